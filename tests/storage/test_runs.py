import json
import sys
import time

import numpy as np
import pytest
from command_line import record

from mining import InputError, load_runs
from mining.storage import contents
from mining.storage.contents import digest_code
from mining.storage.files import digest_file, save_arrays, write_atomically
from mining.storage.identity import Identity, Inputs
from mining.storage.runs import Run

CONFIG = {
    "pipeline": "curve",
    "model": {"name": "mlp"},
    "data": {"_target_": "mining.data.digits"},
    "seed": 3,
    "device": "cpu",
    "checkpoint": None,
}
_LATER = ("identity", "files", "checksum", "arguments")
KEYS = ("model", "data", "seed", "checkpoint")


def inputs(config, keys=KEYS):
    return Inputs(
        pipeline=config["pipeline"],
        model=config["model"]["name"],
        data=config["data"],
        values={key: config.get(key) for key in keys},
        outputs=config.get("outputs", ""),
    )


def run_directory(config, keys=KEYS):
    return inputs(config, keys).directory()


def test_record_is_complete_and_written_last(tmp_path):
    run = Run(tmp_path / "curve/mlp-digits/12345678", CONFIG)
    assert not run.finished
    run.finish({"labels": ["v-basin"]}, device="cpu")
    assert run.finished
    record = json.loads(run.record.read_text())
    keys = ["config", "seed", "versions", "device", "git", "arguments", "seconds", "metrics"]
    assert list(record) == [*keys, "identity", "files", "checksum"]
    assert record["config"] == CONFIG
    assert record["seed"] == 3
    assert record["versions"]["torch"]
    assert set(record["git"]) == {"commit", "dirty"}
    assert [p.name for p in run.directory.iterdir()] == ["run.json"]


def test_directory_depends_on_what_the_pipeline_reads_alone(tmp_path):
    directory = run_directory(CONFIG)
    assert directory.parts[:2] == ("curve", "mlp-digits")
    assert len(directory.name) == 8
    assert run_directory({**CONFIG, "device": "cuda"}) == directory
    assert run_directory({**CONFIG, "seed": 4}) != directory
    assert run_directory({**CONFIG, "pipeline": "train"}).name != directory.name
    reordered = dict(reversed(CONFIG.items()))
    assert run_directory(reordered) == directory


def test_content_of_a_file_counts_and_not_its_name(tmp_path):
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(b"one")
    second.write_bytes(b"one")
    a, b = (run_directory({**CONFIG, "checkpoint": str(p)}) for p in (first, second))
    assert a == b
    second.write_bytes(b"two")
    assert run_directory({**CONFIG, "checkpoint": str(second)}) != a


def test_machine_keys_of_a_data_set_do_not_count():
    data = {"_target_": "x", "name": "cifar10", "root": "data", "download": True, "seed": 0}
    base = run_directory({**CONFIG, "data": data})
    for change in ({"root": "/elsewhere"}, {"download": False}, {"cache": "x"}):
        assert run_directory({**CONFIG, "data": {**data, **change}}) == base
    assert run_directory({**CONFIG, "data": {**data, "seed": 1}}) != base
    folders = [{"_target_": "x", "root": root} for root in ("a/cub", "b/cub")]
    assert len({run_directory({**CONFIG, "data": folder}) for folder in folders}) == 2


def test_records_are_plain_json_and_names_may_have_hyphens(tmp_path):
    config = {**CONFIG, "model": {"name": "my-net"}}
    run = Run(tmp_path / run_directory(config), config)
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
    assert run_directory({**CONFIG, "data": data}).parts[1] == f"mlp-{name}"


def test_load_runs_gives_a_row_per_finished_run(tmp_path):
    for seed in range(3):
        config = {**CONFIG, "seed": seed}
        run = Run(tmp_path / run_directory(config), config)
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
    for root, where, message in (
        (tmp_path / "nowhere", {}, "No folder"),
        (tmp_path / "curve", {}, "give the folder that outputs=FOLDER named"),
        (tmp_path, {"sede": 0}, r"No run has the key sede; there are .*did you mean seed\?"),
        (tmp_path, {"model__nam": "mlp"}, r"key model.nam; .*did you mean name\?"),
    ):
        with pytest.raises(InputError, match=message):
            load_runs(root, **where)


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


@pytest.mark.parametrize("name", ["w.pt", "w.th", "w.ckpt", "w.pth.tar", "folder/w"])
def test_the_content_of_a_file_of_any_suffix_counts(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    found = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        found.append(run_directory({**CONFIG, "checkpoint": str(path)}))
    assert found[0] == found[2] != found[1]


def test_the_content_of_a_folder_counts_and_not_its_times(tmp_path):
    for name, content in (("train/a/1.png", b"pixels"), ("train/b/2.png", b"others")):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(content)
    (tmp_path / "images/train/loop").symlink_to(tmp_path / "images")
    data = {"_target_": "x", "root": str(tmp_path / "images"), "cache": str(tmp_path / "images/c")}
    config = {**CONFIG, "data": data}
    first = run_directory(config)
    (tmp_path / "images/c").mkdir()
    (tmp_path / "images/c/decoded.npz").write_bytes(b"what caches hold does not count")
    (tmp_path / "images/train/a/1.png").touch()
    assert run_directory(config) == first
    (tmp_path / "images/train/a/1.png").write_bytes(b"piXels")
    second = run_directory(config)
    (tmp_path / "images/train/a/1.png").write_bytes(b"pixels")
    (tmp_path / "images/train/b/2.png").rename(tmp_path / "images/train/b/3.png")
    assert len({first, second, run_directory(config)}) == 3


def test_the_digest_of_much_is_remembered_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_REMEMBERED", 1)
    monkeypatch.setattr(contents, "_SETTLED", 0.0)
    monkeypatch.setattr(contents, "_known", {})
    path, read = tmp_path / "large.pt", []
    path.write_bytes(b"one")

    def counting(path):
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr(contents, "digest_file", counting)
    config = {**CONFIG, "checkpoint": str(path), "outputs": str(tmp_path / "outputs")}
    time.sleep(0.01)
    first = run_directory(config)
    contents._known.clear()  # as in another process
    assert run_directory(config) == first
    assert len(read) == 1
    path.write_bytes(b"two")
    time.sleep(0.01)
    assert run_directory(config) != first
    assert len(list((tmp_path / "outputs/.digests").iterdir())) == 2


def test_words_that_are_names_of_files_here_are_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {**CONFIG, "split": "train", "model": {"name": "mlp", "kind": "x", "_target_": "a.b"}}
    keys = (*KEYS, "split")
    before = run_directory(config, keys)
    for name in ("train", "mlp", "x", "a.b", "digits"):
        (tmp_path / name).mkdir()
    assert run_directory(config, keys) == before


def test_the_code_of_ones_own_modules_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "ownnets"
    package.mkdir()
    files = {
        package / "__init__.py": "",
        package / "net.py": "import json, torch\nfrom . import blocks\nfrom ownparts import *\n",
        package / "blocks.py": "def late():\n    import ownlate\n",
        tmp_path / "ownparts.py": "import ownnets.net\nWIDTH = 3\n",
        tmp_path / "ownlate.py": "DEPTH = 3\n",
        tmp_path / "unrelated.py": "",
    }
    for path, text in files.items():
        path.write_text(text)
    config = {**CONFIG, "model": {"name": "custom", "_target_": "ownnets.net.Net"}}
    first = run_directory(config)
    for path, text in files.items():
        path.write_text(text + "# changed\n")
        assert (run_directory(config) == first) == (path.name == "unrelated.py")
        path.write_text(text)
    assert run_directory(config) == first
    assert "ownnets" not in sys.modules
    (package / "net.py").write_text("not python")  # what imports it says so
    assert run_directory(config) != first
    for target in ("torch.nn.Linear", "os.system", "mining.models.MLP", "nowhere.Net", "", "a..b"):
        assert digest_code(target) is None


def test_a_run_of_other_inputs_is_not_taken_for_finished(tmp_path, caplog):
    """Eight digits may agree by chance, and a packed data set is named and not digested."""
    (tmp_path / "data").mkdir()
    data = {"_target_": "x", "name": "cifar10", "root": str(tmp_path / "data")}
    config, packed = {**CONFIG, "data": data}, tmp_path / "data/cifar10.npz"

    def run():
        return Run(tmp_path / run_directory(config), config, inputs(config).identity())

    def compute(run, value):
        save_arrays(run.directory / "curves.npz", {"loss": value})
        run.finish({"loss": value}, device="cpu")

    assert run().complete(lambda: compute(run(), 1.0))
    assert run().finished
    assert record(run().directory)["identity"]["digest"].startswith(run().directory.name)
    packed.write_bytes(b"other images")
    assert not run().finished
    assert "of other inputs: the content of data differs. Computing it again" in caplog.text
    assert run().complete(lambda: compute(run(), 2.0))
    assert not run().complete(lambda: compute(run(), 3.0))
    assert record(run().directory)["metrics"] == {"loss": 2.0}
    assert record(run().directory / "replaced")["metrics"] == {"loss": 1.0}
    assert {p.name for p in (run().directory / "replaced").iterdir()} == {"run.json", "curves.npz"}


def test_what_an_interrupted_run_of_other_inputs_left_is_not_used(tmp_path):
    found = []
    for digest, parts in (("a" * 64, ["directions.pt"]), ("b" * 64, []), ("b" * 64, ["again.npz"])):
        run = Run(tmp_path / "curve/mlp-digits/12345678", CONFIG, Identity(digest, {}))

        def compute(run=run, parts=parts):
            found.append({p.name for p in run.directory.iterdir()})
            for name in ("directions.pt", "resume_1.pt", "points.csv", *parts):
                (run.directory / name).write_text("half")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run.complete(compute)
    halves = {"directions.pt", "resume_1.pt", "points.csv"}
    assert found == [
        {"started.json"},
        {"started.json", "replaced"},
        {"started.json", "replaced"} | halves,
    ]
    assert {p.name for p in (run.directory / "replaced").iterdir()} == halves | {"started.json"}


@pytest.mark.parametrize("error", [InputError, FileNotFoundError, KeyboardInterrupt])
def test_a_start_that_was_refused_or_stopped_at_once_leaves_nothing(tmp_path, error):
    def compute():
        raise error

    with pytest.raises(error):
        Run(tmp_path / "curve/mlp-digits/12345678", CONFIG).complete(compute)
    assert not list(tmp_path.iterdir())


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": lambda path: path.write_bytes(
        bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
    ),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["curves.npz", "run.json"])
def test_a_damaged_file_of_a_finished_run_is_noticed(tmp_path, caplog, damage, name):
    if name == "run.json" and damage == "missing":
        return
    run = Run(tmp_path / "curve/mlp-digits/12345678", CONFIG, Identity("a" * 64, {}))

    def compute():
        assert {p.name for p in run.directory.iterdir()} <= {
            *("points.csv", "curves.npz", "started.json", f"{name}.damaged")
        }
        save_arrays(run.directory / "curves.npz", {"loss": 1.0})
        (run.directory / "points.csv").write_text("points")
        run.finish({"loss": 1.0}, device="cpu")

    assert run.complete(compute)
    DAMAGES[damage](run.directory / name)
    assert not run.finished
    assert f"{name} is" in caplog.text
    assert caplog.text.count("\n") == 1
    assert run.complete(compute)
    assert run.finished
    assert (run.directory / f"{name}.damaged").exists() == (damage != "missing")


def test_a_number_changed_in_a_record_is_noticed(tmp_path):
    run = Run(tmp_path / run_directory(CONFIG), CONFIG)
    run.finish({"loss_at_theta": 0.5, "by": {1: 2, 10: 3}}, device="cpu")
    assert load_runs(tmp_path)["metrics"][0] == {"loss_at_theta": 0.5, "by": {"1": 2, "10": 3}}
    run.record.write_text(run.record.read_text().replace("0.5", "0.7"))
    with pytest.raises(ValueError, match=r"run.json is damaged: remove it and run again"):
        load_runs(tmp_path)


def test_records_from_before_there_were_checksums_are_read(tmp_path):
    run = Run(tmp_path / run_directory(CONFIG), CONFIG, inputs(CONFIG).identity())
    run.finish({"loss_at_theta": 0.5}, device="cpu")
    old = {k: v for k, v in record(run.directory).items() if k not in _LATER}
    run.record.write_text(json.dumps(old))
    assert run.finished
    assert len(load_runs(tmp_path)) == 1


def test_large_files_are_read_only_where_they_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr("mining.storage.files._SMALL", 3)
    run = Run(tmp_path / "train/mlp-digits/12345678", CONFIG)
    run.directory.mkdir(parents=True)
    (run.directory / "epoch_0001.pt").write_bytes(b"weights")
    run.finish({}, device="cpu")
    (run.directory / "epoch_0001.pt").write_bytes(b"weighty")
    assert run.finished
    assert not run.is_finished("epoch_0001.pt")
