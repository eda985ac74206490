"""Judge many cases: ``python tests/foreign FIRST LAST [FILE]``.

A line of JSON a case goes to FILE, and a case that FILE has is not judged again.
"""

import json
import sys
import warnings
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from foreign import build
from foreign.judge import judge


def main(first: int, last: int, file: Path | None = None) -> int:
    """Judge the seeds from ``first`` up to ``last``; returns the number of faulty cases."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known: dict[int, dict[str, object]] = {}
    if file is not None and file.exists():
        known = {row["seed"]: row for row in map(json.loads, file.read_text().splitlines())}
    counts: Counter[str] = Counter()
    for seed in range(first, last):
        row = known.get(seed)
        if row is None:
            verdict = judge(seed)
            row = {
                "seed": seed,
                "outcome": verdict.outcome,
                "faults": [list(fault) for fault in verdict.faults],
                "note": verdict.note,
            }
            if verdict.faults:
                row["case"] = str(build(seed))
                print(build(seed), *verdict.faults, sep="\n", end="\n\n", flush=True)
            if file is not None:
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
        counts[str(row["outcome"])] += 1
    print(dict(counts))
    return counts["fault"]


if __name__ == "__main__":
    first, last, *files = sys.argv[1:]
    sys.exit(main(int(first), int(last), *map(Path, files)) > 0)
