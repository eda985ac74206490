"""The claims of the papers, the criteria that they are held to, and what was measured here.

python -m analysis.claims [PAPER]               by the records in analysis/figures
python -m analysis.claims [PAPER] size=smoke    by the finished runs of the experiments
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.alabdulkareem2022.claims import CLAIMS as ALABDULKAREEM2022
from analysis.archive import Record, read_archive, record_of
from analysis.findings import Claim, Finding, find, page
from analysis.gabdullin2024.claims import CLAIMS as GABDULLIN2024
from analysis.records import add_overrides, experiment_runs, run_script, save_csv
from analysis.sankar2021.claims import CLAIMS as SANKAR2021
from analysis.xu2024.claims import CLAIMS as XU2024
from mining import InputError
from mining.storage.files import write_atomically

#: Those of all papers.
CLAIMS: tuple[Claim, ...] = (*XU2024, *GABDULLIN2024, *ALABDULKAREEM2022, *SANKAR2021)


def check(claim: Claim, overrides: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """Judge a claim.

    Args:
        claim: What to judge.
        overrides: What the experiments were run with besides; without any, the records that the
            repository keeps decide.

    Returns:
        The findings, and a line for every figure without runs: the command that makes them.
    """
    records: dict[str, list[Record]] = {}
    missing = []
    for figure in claim.figures:
        experiment = f"{claim.paper}/{figure}"
        if not overrides:
            records[figure] = read_archive(experiment)
            continue
        try:
            runs = experiment_runs(experiment, overrides)
        except FileNotFoundError as error:
            missing.append(str(error))
        else:
            records[figure] = [record_of(run) for run in runs.itertuples()]
    findings = [
        finding
        for criterion in claim.criteria
        for finding in find(criterion, records.get(criterion.figure, []))
    ]
    return findings, missing


def main() -> None:
    """Print every claim with its findings, and write the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    path = Path("outputs/claims.csv")
    arguments.add_argument("--csv", type=Path, default=path, help=f"table to write ({path})")
    arguments.add_argument("--page", type=Path, help="page in Markdown to write besides")
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
    found: list[tuple[Claim, Sequence[Finding]]] = []
    for claim in CLAIMS:
        if paper not in (None, claim.paper):
            continue
        findings, without = check(claim, overrides)
        found.append((claim, findings))
        missing += without
        table += [
            {"paper": claim.paper, "claim": claim.number, **found.row()} for found in findings
        ]
        show(claim, findings)
    if table:
        save_csv(table, options.csv)
        print(options.csv)
    if options.page is not None:
        write_atomically(options.page, page(found))
        print(options.page)
    if missing:
        raise FileNotFoundError("\n".join(dict.fromkeys(missing)))


def show(claim: Claim, findings: Sequence[Finding]) -> None:
    """Print a claim with a line for every criterion and every network."""
    print(f"{claim.paper} {claim.number}. {claim.sentence}")
    for criterion in claim.criteria:
        about = f"{criterion.by}, {criterion.figure}"
        print(f"   {criterion.name} {criterion.statement}: {criterion.bound}? ({about})")
        own = [finding for finding in findings if finding.criterion is criterion]
        for finding in own or ["not measured"]:
            print(f"      {finding}")


if __name__ == "__main__":
    run_script(main)
