"""``python -m mining runs``: the state of every run, and what distinguishes it."""

import json
import sys

import pytest
from command_line import QUICK, record
from filelock import FileLock

from mining.app.command_line import main
from mining.pipelines.shares import share_done
from mining.storage.runs import Run
from mining.storage.states import run_states
from mining.training.loop import Loop

CONFIG = {"pipeline": "curve", "model": {"name": "mlp"}, "seed": 0, "num_directions": 2}
CONFIG |= {"grid": {"low": -1.0, "high": 1.0, "num": 10}, "outputs": "elsewhere"}


@pytest.fixture
def listed(monkeypatch, capsys):
    """What ``mining runs`` prints."""

    def call(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["mining", "runs", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call


def started(folder, name, **changes):
    """A run that ended without finishing after eleven of its 22 points."""
    run = Run(folder / "curve/mlp-digits" / name, CONFIG | changes)

    def stop():
        lines = ["fingerprint", *(f"{i},1.0,ab" for i in range(11))]
        (run.directory / "points.csv").write_text("\n".join(lines) + "\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.complete(stop)
    return run


def failed(folder, name):
    run = Run(folder / "curve/mlp-digits" / name, CONFIG | {"seed": 7})

    def fail():
        raise RuntimeError("the device is gone\nand more")

    with pytest.raises(RuntimeError):
        run.complete(fail)
    return run


def test_every_state_is_told(tmp_path, listed):
    started(tmp_path, "aa")
    failed(tmp_path, "bb")
    done = Run(tmp_path / "curve/mlp-digits/cc", CONFIG | {"seed": 2})
    assert done.complete(lambda: done.finish({}, device="cpu"))
    started(tmp_path, "dd", seed=3)
    (tmp_path / "curve/mlp-digits/ee").mkdir()  # holds no run
    with FileLock(tmp_path / "curve/mlp-digits/.dd.lock"):
        states = {run.directory.name: run for run in run_states(tmp_path)}
    told = {name: run.state for name, run in states.items()}
    assert told == {"aa": "interrupted", "bb": "failed", "cc": "done", "dd": "running"}
    assert states["bb"].note == "RuntimeError: the device is gone"
    assert states["dd"].note.startswith("process ")
    lines = listed("--folder", tmp_path).splitlines()
    # θ lies between two of the ten points: eleven a curve, of two curves.
    assert lines[0].startswith("interrupted 50%")
    assert lines[0].endswith(f"{tmp_path}/curve/mlp-digits/aa  seed=0")
    assert lines[1].endswith("bb  seed=7")
    assert lines[2] == "    RuntimeError: the device is gone"
    assert lines[3].startswith("done ")
    assert lines[4].startswith("interrupted 50%")  # nobody holds its lock any more


def test_a_killed_run_is_interrupted_and_finishes_later(tmp_path):
    run = started(tmp_path, "aa")
    (tmp_path / "curve/mlp-digits/.aa.lock").touch()  # of a process that was killed
    assert run_states(tmp_path)[0].state == "interrupted"
    assert not (tmp_path / "curve/mlp-digits/.aa.lock").exists()
    assert run.complete(lambda: run.finish({}, device="cpu"))
    assert run_states(tmp_path)[0].state == "done"


def test_runs_of_the_command_line_are_listed_with_their_differences(command, folder, listed):
    first, second = (command(*QUICK, f"seed={seed}", "num_threads=1") for seed in (0, 1))
    lines = listed("pipeline=curve").splitlines()
    assert {line.split()[-1] for line in lines} == {"seed=0", "seed=1"}
    (found,) = json.loads(listed("pipeline=curve", "seed=1", "--json"))
    assert found["directory"] == str(second.relative_to(folder))
    assert found["state"] == "done"
    assert found["share"] == 1
    assert found["config"] == record(second)["config"]
    assert found["size"] == sum(path.stat().st_size for path in second.iterdir())
    assert {run["config"]["pipeline"] for run in json.loads(listed("--json"))} == {"curve", "train"}
    assert first.exists()


def test_removal_asks_first_and_spares_what_is_running(tmp_path, listed, monkeypatch, capsys):
    started(tmp_path, "aa")
    failed(tmp_path, "bb")
    monkeypatch.setattr(sys.stdin, "readline", lambda: "n\n", raising=False)
    assert "Nothing was deleted." in listed("--folder", tmp_path, "--remove")
    assert len(run_states(tmp_path)) == 2
    monkeypatch.setattr(sys.stdin, "readline", lambda: "y\n", raising=False)
    assert "Deleted 1." in listed("--folder", tmp_path, "--remove", "--state", "failed")
    assert [run.directory.name for run in run_states(tmp_path)] == ["aa"]
    with FileLock(tmp_path / "curve/mlp-digits/.aa.lock"), pytest.raises(SystemExit):
        listed("--folder", tmp_path, "--remove", "--yes")
    assert "is being computed" in capsys.readouterr().err
    assert "Deleted 1." in listed("--folder", tmp_path, "--remove", "--yes")
    assert "No runs in" in listed("--folder", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "nowhere"], "No folder"),
        (["seeed=1"], "No run has the key seeed (did you mean seed?)"),
        (["seed"], "must be KEY=VALUE"),
    ],
)
def test_what_cannot_be_listed_is_said(arguments, message, tmp_path, listed, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started(tmp_path / "outputs", "aa")
    with pytest.raises(SystemExit, match="1"):
        listed(*arguments)
    assert message in capsys.readouterr().err


def test_the_share_of_a_training_is_that_of_its_epochs(command, folder, monkeypatch):
    def stop(self):
        whole(self)
        if self.epoch == 2:
            raise KeyboardInterrupt

    whole = Loop.save
    monkeypatch.setattr(Loop, "save", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        command("pipeline=train", *QUICK, "train.epochs=8", "train.checkpoints=[0,1,2]")
    (run,) = [run for run in run_states(folder / "outputs") if run.state == "interrupted"]
    assert run.config["train"]["epochs"] == 8
    assert share_done(run.directory, run.config) == pytest.approx(2 / 8)
