"""Measure products and estimators beside other tools: ``make bench``, ``make bench SIZE=small``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from benchmarks import curvature
from benchmarks.timing import machine, write
from published import AVAILABLE

from mining.plotting import table


def main() -> None:
    """Print a table for every workload and write them to one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="full")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--only", nargs="+", default=None, help="workloads to run")
    options = parser.parse_args()
    if not AVAILABLE:
        sys.exit("error: needs weights/ and data/ of the shared folder: MINING_SHARED=FOLDER")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    small = options.size == "small"
    num = 64 if small else 256
    print(machine())
    results = {}
    workloads = {
        "products": lambda: curvature.product_costs(128 if small else 512, 3 if small else 5),
        "largest": lambda: curvature.largest_eigenpairs(num, 2 if small else 5),
        "both_ends": lambda: curvature.both_ends(num, 2 if small else 10),
        "trace": lambda: curvature.traces(num, 0.2 if small else 0.05),
        "density": lambda: curvature.densities(num, 10 if small else 15, 4),
    }
    for name in workloads if options.only is None else options.only:
        workload = workloads[name]
        results[name] = workload()
        print(f"\n{table(results[name])}", flush=True)
    write(options.output / f"curvature-{'-'.join(options.only or [options.size])}.json", results)


if __name__ == "__main__":
    main()
