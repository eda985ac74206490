"""Timing side by side: alternating, several times, in one process."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def alternate(
    workloads: Mapping[str, Callable[[], Any]], repeats: int, *, warm_up: bool = True
) -> dict[str, float]:
    """Run each workload once to warm up, then all in turn; return the median seconds of each."""
    for workload in workloads.values() if warm_up else ():
        workload()
    times: dict[str, list[float]] = {name: [] for name in workloads}
    for _ in range(repeats):
        for name, workload in workloads.items():
            start = time.perf_counter()
            workload()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def timed(workload: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = workload()
    return result, time.perf_counter() - start


def machine() -> dict[str, Any]:
    names = ("torch", "torchvision", "loss-landscapes", "pyhessian", "curvlinops-for-pytorch")
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].partition(": ")[2] if lines else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def write(path: Path, results: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    print(f"written: {path}")
