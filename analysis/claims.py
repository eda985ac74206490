"""The claims of the papers beside what was measured here.

python -m mining experiment=xu2024/fig02 (and every other figure that a claim names)
python -m analysis.claims [PAPER]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.findings import Claim
from analysis.records import add_overrides, experiment_runs, run_script, save_csv
from analysis.xu2024.claims import CLAIMS as XU2024
from mining import InputError

#: Those of all papers.
CLAIMS: tuple[Claim, ...] = XU2024


def check(claim: Claim, overrides: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Check a claim on the finished runs.

    Args:
        claim: What to check.
        overrides: What the experiments were run with besides.

    Returns:
        A row of the table for every finding, and a line for every check without runs: the command
        that makes them.
    """
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for find in claim.checks:
        try:
            found = find(lambda figure: experiment_runs(f"{claim.paper}/{figure}", overrides))
        except FileNotFoundError as error:
            missing.append(str(error))
        else:
            about = {"paper": claim.paper, "number": claim.number}
            rows += [about | vars(finding) for finding in found]
    return rows, missing


def main() -> None:
    """Print every claim with whether it holds and what was measured, and write the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    path = Path("outputs/claims.csv")
    arguments.add_argument("--csv", type=Path, default=path, help="table to write (%(default)s)")
    papers = list(dict.fromkeys(claim.paper for claim in CLAIMS))
    arguments.add_argument(
        "paper", nargs="?", metavar="PAPER", help=f"only its claims: {', '.join(papers)}"
    )
    add_overrides(arguments)
    options = arguments.parse_args()
    paper, overrides = options.paper, options.overrides
    if paper is not None and "=" in paper:  # no paper is given, and this is the first override
        paper, overrides = None, [paper, *overrides]
    if paper not in (None, *papers):
        raise InputError(f"No claim of {paper!r} is checked, only of {', '.join(papers)}.")
    table: list[dict[str, Any]] = []
    missing: list[str] = []
    for claim in CLAIMS:
        if paper not in (None, claim.paper):
            continue
        rows, without = check(claim, overrides)
        table, missing = table + rows, missing + without
        if rows:
            print(f"{claim.paper} {claim.number}. {claim.sentence} ({', '.join(claim.figures)})")
        for row in rows:
            print(f"   {row['claim']}: {row['holds']}.")
            print(f"      {row['network']}: {row['measured']}")
    if table:
        save_csv(table, options.csv)
        print(options.csv)
    if missing:
        raise FileNotFoundError("\n".join(dict.fromkeys(missing)))


if __name__ == "__main__":
    run_script(main)
