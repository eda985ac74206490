"""The command line on several processes: ``torchrun -m mining``."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

SURFACE = (
    *("pipeline=surface", "model=custom", "model._target_=deadly.Net", "data=digits"),
    *("num_examples=100", "batchnorm.num_examples=100", "grid.num=7", "train.epochs=1"),
    *("train.checkpoints=[1]", "chunk=1", "progress=false"),
)
#: Ends its process by SIGKILL when a file of this pattern has so many lines: ``DIE=PATTERN:LINES``.
NETWORK = """
import os, signal
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.linear = nn.Linear(64, 12)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Linear(12, num_classes)

    def forward(self, x):
        pattern, _, lines = os.environ.get("DIE", "none:0").partition(":")
        if any(p.read_text().count(chr(10)) >= int(lines) for p in Path().glob(pattern)):
            if pattern.endswith(f"rank{os.environ['RANK']}.csv"):
                os.kill(os.getpid(), signal.SIGKILL)
        return self.head(self.norm(self.linear(x.flatten(1))).relu())
"""


def torchrun(folder, *arguments, **environment):
    """Run a job of two processes."""
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "mining")
    return subprocess.run(
        [sys.executable, *launcher, *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )


def start(folder, *arguments):
    """Start two processes as torchrun does, without the time that it takes itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **{"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2"},
        **{"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "mining", *arguments],
            cwd=folder,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    return [
        subprocess.CompletedProcess(arguments, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def test_a_job_whose_rank_is_killed_ends_and_the_next_start_goes_on(command, folder):
    (folder / "deadly.py").write_text(NETWORK)
    die = "killed/surface/*/*/points.rank1.csv:6"
    killed = torchrun(folder, *SURFACE, "outputs=killed", DIE=die)
    ended = time.time()
    assert killed.returncode != 0
    (left,) = (folder / "killed/surface").glob("*/[0-9a-f]*")
    assert not (left / "run.json").exists()
    journals = sorted(left.glob("points*.csv"))
    assert [path.name for path in journals] == ["points.csv", "points.rank1.csv"]
    assert ended - journals[1].stat().st_mtime < 60  # its last point, before it died
    kept = {line for path in journals for line in path.read_text().splitlines()[1:]}
    assert len(kept) >= 5
    assert command(*SURFACE, "outputs=killed").resolve() == left.resolve()
    assert [path.name for path in left.glob("points*")] == ["points.csv"]
    lines = (left / "points.csv").read_text().splitlines()[1:]
    assert kept < set(lines)  # none of them was evaluated again
    undisturbed = command(*SURFACE, "outputs=undisturbed")
    with np.load(left / "surface.npz") as a, np.load(undisturbed / "surface.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


def test_a_job_writes_one_folder_and_is_skipped_when_it_is_finished(command, folder):
    arguments = ("grid.num=5", "train.epochs=1", "num_examples=50", "outputs=job")
    done = start(folder, *arguments)
    assert [rank.returncode for rank in done] == [0, 0], done[0].stderr
    (directory,) = (folder / "job/curve").glob("*/[0-9a-f]*")
    assert [rank.stdout.split() for rank in done] == [[str(directory)], []]
    assert command(*arguments) == directory  # and finds it finished
    names = {path.name for path in directory.iterdir()}
    assert {"run.json", "curves.npz", "curves.png", "points.csv", "directions.pt"} <= names
    assert not [name for name in names if "rank" in name]


@pytest.mark.parametrize("sweep", [("-m", "seed=0,1"), ("experiment=quickstart",)])
def test_several_runs_in_one_job_are_refused(command, folder, monkeypatch, capsys, sweep):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        command(*sweep, "outputs=refused")
    said = capsys.readouterr().err
    assert said.count("error: The processes of torchrun share one run: leave out -m") == 1
    assert not list((folder / "refused").glob("*/*"))
