"""Measure speed beside other tools: ``make bench``, ``make bench SIZE=small``."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from benchmarks import curvature, evaluation, growth, regularizer, training
from benchmarks.timing import machine, write
from published import AVAILABLE

from mining.plotting import table

Rows = list[dict[str, Any]]


def workloads(size: str) -> dict[str, Callable[[], Rows]]:
    """Every workload by its name; the small ones take minutes together."""
    resnet, mlp = evaluation.resnet, evaluation.mlp
    if size == "small":
        return {
            "curve": lambda: evaluation.curves(resnet(256, 9), 1),
            "curve_mlp": lambda: evaluation.curves(mlp(4000, 21), 2),
            "upbn": lambda: evaluation.recalibrated(resnet(256, 3), 1),
            "tolerance": lambda: evaluation.to_a_tolerance(resnet(2000, 9), 0.05, "filter"),
            "surface": lambda: evaluation.surfaces(resnet(128, 5), 1),
            "surface_mlp": lambda: evaluation.surfaces(mlp(1000, 11), 1),
            "products": lambda: curvature.product_costs(128, 2),
            "blocks": lambda: curvature.blocks(16, 8, 3),
            "largest": lambda: curvature.largest_eigenpairs(64, 2),
            "trace": lambda: curvature.traces(64, 0.3),
            "density": lambda: curvature.densities(64, 10, 4),
            "training": lambda: training.epochs(512, 1),
            "regularizer": lambda: regularizer.penalties(["LeNet"], 5),
        }
    return {
        "curve": lambda: evaluation.curves(resnet(1000, 41), 3),
        "curve_mlp": lambda: evaluation.curves(mlp(20_000, 41), 5),
        "upbn": lambda: evaluation.recalibrated(resnet(1000, 41), 2),
        "tolerance": lambda: evaluation.to_a_tolerance(resnet(10_000, 41), 0.01, "filter"),
        "tolerance_model": lambda: evaluation.to_a_tolerance(resnet(10_000, 41), 0.01, "model"),
        "surface": lambda: evaluation.surfaces(resnet(500, 21), 1),
        "surface_mlp": lambda: evaluation.surfaces(mlp(2000, 21), 3),
        "products": lambda: curvature.product_costs(512, 7),
        "blocks": lambda: curvature.blocks(128, 20, 3),
        "largest": lambda: curvature.largest_eigenpairs(256, 5),
        "both_ends": lambda: curvature.both_ends(256, 10),
        "trace": lambda: curvature.traces(256, 0.05),
        "density": lambda: curvature.densities(64, 60, 8),
        "training": lambda: training.epochs(5120, 3),
        "regularizer": lambda: regularizer.penalties(
            ["LeNet", "VGG-11", "VGG-11-BN", "ResNet-18"], 3
        ),
        "growth": lambda: growth.growth(256, 3, large=True),
    }


def main() -> None:
    """Print a table for every workload and write all to one file."""
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
    known = workloads(options.size)
    unknown = set(options.only or []) - known.keys()
    if unknown:
        sys.exit(f"error: --only takes {', '.join(known)}, got {', '.join(sorted(unknown))}")
    print(machine())
    results = {}
    for name in known if options.only is None else options.only:
        started = time.perf_counter()
        results[name] = known[name]()
        print(f"\n{name}, {time.perf_counter() - started:.0f} s", flush=True)
        print(table(results[name]), flush=True)
        if name == "growth":
            options.output.mkdir(parents=True, exist_ok=True)
            growth.draw_growth(results[name], options.output / "growth.png")
    write(options.output / f"speed-{'-'.join(options.only or [options.size])}.json", results)


if __name__ == "__main__":
    main()
