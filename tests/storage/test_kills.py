"""Commands that are killed at random moments: what they leave is gone on from, with equal results.

MINING_KILLS=100 .venv/bin/pytest tests/storage/test_kills.py
"""

import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import QUICK, record

from mining.app import command_line

#: In all, over the kinds of work.
KILLS = int(os.environ.get("MINING_KILLS", "5"))
CNN = ("model=cnn", *QUICK)
WORK = {
    "surface": ("pipeline=surface", "grid.num=15", *CNN),
    "mining": ("pipeline=mine", "direction=xu2024_w_peak", "epoch=1", "descent.epochs=60", *CNN),
    "training": ("pipeline=train", *CNN, "train.epochs=20", "train.checkpoints=[0,10,20]"),
    "spectrum": (
        "pipeline=spectrum", "spectrum.num_eigenvalues=2", "spectrum.density_probes=4",
        "spectrum.density_steps=15", "spectrum.trace_products=20", *CNN,
    ),
    "sweep": ("-m", "direction=gaussian,gradient,checkpoint_delta", "epoch=0,1", *CNN),
}  # fmt: skip


def call(folder, arguments):
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = ["mining", *arguments]
    with Path("log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        command_line.main()


@pytest.fixture(scope="module")
def processes():
    """Processes that need no second to start: their server has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mining.app.command_line", "mining.pipelines.problem"])
    return context


def finish(processes, folder, arguments):
    """Let a command come to its end; return how long it took, seconds."""
    process = processes.Process(target=call, args=(folder, arguments))
    started = time.monotonic()
    process.start()
    process.join()
    assert process.exitcode == 0, (folder / "log").read_text()
    return time.monotonic() - started


def kill_after(processes, folder, arguments, seconds):
    """Kill a command; return whether it was not at its end."""
    process = processes.Process(target=call, args=(folder, arguments))
    process.start()
    process.join(seconds)
    running = process.is_alive()
    process.kill()
    process.join()
    assert running or process.exitcode == 0, (folder / "log").read_text()
    return running


def points(folder):
    """Read the numbers of the points in the journals of a folder, in their order."""
    return {
        path: [line.split(",")[0] for line in path.read_text().splitlines(keepends=True)[1:]
               if line.endswith("\n")]
        for path in sorted(folder.glob("outputs/*/*/*/points.csv"))
    }  # fmt: skip


def read(path):
    if path.suffix == ".npz":
        with np.load(path) as found:
            return {name: found[name] for name in found.files}
    return torch.load(path, weights_only=True)


def differences(first, second, name=""):
    """List what is not equal in two results."""
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{name}: {sorted(first)} and {sorted(second)}"]
        return [
            difference
            for key in first
            if not str(key).startswith("seconds")  # times are measured
            for difference in differences(first[key], second[key], f"{name}/{key}")
        ]
    if isinstance(first, torch.Tensor):
        first, second = first.numpy(), second.numpy()
    if isinstance(first, np.ndarray) and first.dtype.kind in "fc":
        equal = np.array_equal(first, second, equal_nan=True)
    else:
        equal = np.array_equal(first, second)
    return [] if equal else [f"{name}: {first} and {second}"]


def results(folder):
    """Read every array, weight and metric of the runs of a folder."""
    found = {}
    for run in sorted(folder.glob("outputs/*/*/*/run.json")):
        name = "/".join(run.parent.parts[-3:])
        found[name] = record(run.parent)["metrics"]
        for path in sorted(run.parent.glob("*")):
            if path.suffix in (".npz", ".pt"):
                found[f"{name}/{path.name}"] = read(path)
    return found


@pytest.mark.parametrize("kind", WORK)
def test_killed_work_goes_on_with_equal_results(kind, processes, tmp_path):
    generator = random.Random(kind)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    seconds = finish(processes, undisturbed, WORK[kind])
    kills, rounds = 0, 0
    while kills < KILLS / len(WORK):
        rounds += 1
        folder = tmp_path / str(rounds)
        folder.mkdir()
        seen: dict[Path, list[str]] = {}
        while kill_after(processes, folder, WORK[kind], generator.uniform(0, seconds)):
            kills += 1
            now = points(folder)
            for path, numbers in now.items():
                assert len(set(numbers)) == len(numbers), "a finished point was computed again"
                before = seen.get(path, [])
                assert numbers[: len(before)] == before, "a finished point was lost"
            seen |= now
        assert not differences(results(folder), results(undisturbed))
    print(f"{kind}: {kills} kills in {rounds} rounds; {seconds:.1f} s undisturbed")
