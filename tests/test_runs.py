import json

import numpy as np
import pytest

from mining import load_runs
from mining.files import save_arrays, write_atomically
from mining.runs import Run, run_directory

CONFIG = {
    "pipeline": "curve",
    "model": {"name": "mlp"},
    "data": {"_target_": "mining.data.digits"},
    "seed": 3,
    "device": "cpu",
    "checkpoint": None,
}
KEYS = ("model", "data", "seed", "checkpoint")


def test_record_is_complete_and_written_last(tmp_path):
    run = Run(tmp_path / "curve/mlp-digits/12345678", CONFIG)
    assert not run.finished
    run.finish({"labels": ["v-basin"]}, device="cpu")
    assert run.finished
    record = json.loads(run.record.read_text())
    assert list(record) == ["config", "seed", "versions", "device", "git", "seconds", "metrics"]
    assert record["config"] == CONFIG
    assert record["seed"] == 3
    assert record["versions"]["torch"]
    assert set(record["git"]) == {"commit", "dirty"}
    assert [p.name for p in run.directory.iterdir()] == ["run.json"]


def test_directory_depends_on_what_the_pipeline_reads_alone(tmp_path):
    directory = run_directory(CONFIG, KEYS)
    assert directory.parts[:2] == ("curve", "mlp-digits")
    assert len(directory.name) == 8
    assert run_directory({**CONFIG, "device": "cuda"}, KEYS) == directory
    assert run_directory({**CONFIG, "seed": 4}, KEYS) != directory
    assert run_directory({**CONFIG, "pipeline": "train"}, KEYS).name != directory.name
    reordered = dict(reversed(CONFIG.items()))
    assert run_directory(reordered, KEYS) == directory


def test_content_of_a_file_counts_and_not_its_name(tmp_path):
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(b"one")
    second.write_bytes(b"one")
    a, b = (run_directory({**CONFIG, "checkpoint": str(p)}, KEYS) for p in (first, second))
    assert a == b
    second.write_bytes(b"two")
    assert run_directory({**CONFIG, "checkpoint": str(second)}, KEYS) != a


def test_machine_keys_of_a_data_set_do_not_count():
    data = {"_target_": "x", "name": "cifar10", "root": "data", "download": True, "seed": 0}
    base = run_directory({**CONFIG, "data": data}, KEYS)
    for change in ({"root": "/elsewhere"}, {"download": False}, {"cache": "x"}):
        assert run_directory({**CONFIG, "data": {**data, **change}}, KEYS) == base
    assert run_directory({**CONFIG, "data": {**data, "seed": 1}}, KEYS) != base
    folders = [{"_target_": "x", "root": root} for root in ("a/cub", "b/cub")]
    assert len({run_directory({**CONFIG, "data": folder}, KEYS) for folder in folders}) == 2


def test_records_are_plain_json_and_names_may_have_hyphens(tmp_path):
    config = {**CONFIG, "model": {"name": "my-net"}}
    run = Run(tmp_path / run_directory(config, KEYS), config)
    run.finish({"a": [float("nan"), {"b": float("inf")}], "c": 1.5}, device="cpu")
    text = run.record.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    (row,) = load_runs(tmp_path).itertuples()
    assert (row.model, row.data) == ("my-net", "digits")
    assert row.metrics == {"a": [None, {"b": None}], "c": 1.5}
    run.record.write_text("{")
    with pytest.raises(ValueError, match=r"run.json is damaged: remove it"):
        load_runs(tmp_path)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"_target_": "mining.data.digits"}, "digits"),
        ({"_target_": "x", "name": "cifar10", "root": "data"}, "cifar10"),
        ({"_target_": "x", "path": "data/my images.npz"}, "my images"),
        ({"_target_": "x", "root": "/somewhere/cub"}, "cub"),
    ],
)
def test_data_sets_have_names(data, name):
    assert run_directory({**CONFIG, "data": data}, KEYS).parts[1] == f"mlp-{name}"


def test_load_runs_gives_a_row_per_finished_run(tmp_path):
    for seed in range(3):
        config = {**CONFIG, "seed": seed}
        run = Run(tmp_path / run_directory(config, KEYS), config)
        run.directory.mkdir(parents=True)
        if seed < 2:
            run.finish({"loss_at_theta": 0.5}, device="cpu")
    runs = load_runs(tmp_path)
    assert sorted(runs["seed"]) == [0, 1]
    assert set(runs["model"]) == {"mlp"}
    assert set(runs["data"]) == {"digits"}
    assert runs["metrics"][0] == {"loss_at_theta": 0.5}
    assert len(load_runs(tmp_path, seed=1)) == 1
    assert len(load_runs(tmp_path, model__name="mlp", pipeline="curve")) == 2
    assert load_runs(tmp_path, model__name="cnn").empty
    assert load_runs(tmp_path / "nowhere").empty


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep/file.npz"
    save_arrays(path, {"x": np.arange(3)})
    with np.load(path) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"other")
    with np.load(path) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
    assert [p.name for p in path.parent.iterdir()] == ["file.npz"]
