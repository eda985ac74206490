"""Processes that want the same run at once."""

import platform
import re
import subprocess
import sys

import pytest
from command_line import QUICK, record
from filelock import FileLock

from mining import load_runs
from mining.storage.locks import alone
from mining.storage.states import run_states

#: Computes a run in as many seconds as it is told, and writes down that it did.
SCRIPT = """
import logging, sys, time
from pathlib import Path
from mining.storage.identity import Identity
from mining.storage.runs import Run

logging.basicConfig(level=logging.INFO)
root, seconds, fails = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "fails"
config = {"pipeline": "train", "model": {"name": "mlp"}, "data": {"name": "digits"}}
run = Run(root / "train/mlp-digits/12345678", config, Identity("a" * 64, {}))

def compute():
    with (root / "computed.txt").open("a") as file:
        file.write("once\\n")
    (run.directory / "history.csv").write_text("epoch\\n")
    print("computing", flush=True)
    time.sleep(seconds)
    if fails:
        raise ArithmeticError("diverged")
    run.finish({"loss": 1.0}, device="cpu")

print(run.complete(compute))
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(seconds, ending="finishes"):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(seconds), ending],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _finish(process):
    printed, said = process.communicate(timeout=60)
    return process.returncode, printed.split(), said


def _times(root):
    return len((root / "computed.txt").read_text().splitlines())


def _is_free(root):
    return not list((root / "train/mlp-digits").glob(".*.lock"))


def test_the_second_waits_for_the_first_and_finds_it_finished(tmp_path, start):
    first = start(3.0)
    assert first.stdout.readline() == "computing\n"
    second = start(0.0)
    code, printed, said = _finish(second)
    assert (code, printed) == (0, ["False"])
    assert f"Waiting for process {first.pid} on {platform.node()}, which computes" in said
    assert _finish(first)[:2] == (0, ["True"])
    assert _times(tmp_path) == 1
    assert _is_free(tmp_path)
    assert not (tmp_path / "train/mlp-digits/12345678/started.json").exists()


def test_many_at_once_compute_it_once(tmp_path, start):
    processes = [start(0.2) for _ in range(4)]
    found = [_finish(process) for process in processes]
    assert [code for code, _, _ in found] == [0] * 4
    assert sorted(printed[-1] for _, printed, _ in found) == ["False"] * 3 + ["True"]
    assert _times(tmp_path) == 1


@pytest.mark.parametrize("waiting", [False, True])
def test_a_killed_process_is_taken_over_from(tmp_path, start, waiting):
    first = start(60.0)
    assert first.stdout.readline() == "computing\n"
    second = start(0.0) if waiting else None
    if second is not None:  # it says for whom it waits
        assert "Waiting for" in second.stderr.readline()
    first.kill()
    first.wait()
    code, printed, said = _finish(second or start(0.0))
    assert (code, printed) == (0, ["computing", "True"])
    assert f"Taking over from process {first.pid} on {platform.node()}, which ended with" in said
    assert _times(tmp_path) == 2


def test_what_fails_is_tried_by_the_one_that_waits_and_deletes_nothing_of_it(tmp_path, start):
    first = start(2.0, "fails")
    assert first.stdout.readline() == "computing\n"
    second = start(0.0)
    assert _finish(first)[0] == 1
    code, printed, said = _finish(second)
    assert (code, printed) == (0, ["computing", "True"])
    assert "Taking over" not in said  # it ended in order
    assert record(tmp_path / "train/mlp-digits/12345678")["metrics"] == {"loss": 1.0}


def test_a_folder_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def unsupported(*arguments, **options):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    with alone(tmp_path / "run", lambda: "nobody"):
        pass
    assert "no locks here" in caplog.text


def test_two_commands_that_need_one_training_train_once(folder):
    outputs = folder / "together"
    arguments = [*QUICK, f"outputs={outputs}", "num_threads=1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "mining", *arguments, f"grid.num={num}"],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        for num in (3, 5)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sum("computing it once now" in text for text in said) == 1
    assert len(load_runs(outputs, pipeline="curve")) == 2
    assert not list(outputs.rglob("*.lock"))


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_in_other_processes_fails_if_one_of_its_jobs_does(folder, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mining", "-m", f"hydra/launcher={launcher}"),
            *(*QUICK, f"outputs={launcher}", "pipeline=train", "train.lr=0.1,1e6"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    files = (folder / launcher / ".submitit").rglob("*.err")
    told = done.stderr + "".join(path.read_text() for path in files)
    (line,) = re.findall("^error: .*", told, re.M)
    assert "Training diverged" in line
    assert len(load_runs(folder / launcher, pipeline="train")) == 1
    (failed,) = [run for run in run_states(folder / launcher) if run.state == "failed"]
    assert "Training diverged" in failed.note
    assert failed.config["train"]["lr"] == 1e6
