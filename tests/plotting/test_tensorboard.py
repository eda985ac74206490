"""Runs exported for TensorBoard, read back by TensorBoard."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import QUICK

from mining import InputError, Surface
from mining.app.command_line import main
from mining.app.exports import main as export
from mining.evaluation.storage import load_curves, load_surface
from mining.plotting.meshes import mesh_of
from mining.plotting.tensorboard import event_file, numbered

pytest.importorskip("tensorboard")


def read(path):
    """Tags with their steps and values, and tensors of meshes by tag."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    scalars, tensors = {}, {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            array = make_ndarray(value.tensor)
            if value.metadata.plugin_data.plugin_name == "mesh" or array.ndim:
                tensors[value.tag] = array[0]
            else:
                scalars.setdefault(value.tag, []).append((event.step, array.item()))
    return {tag: np.array(found).T for tag, found in scalars.items()}, tensors


def test_numbers_and_triangles_come_back(tmp_path):
    alphas, betas = torch.arange(4.0).double(), torch.arange(3.0).double() / 2
    loss = alphas[:, None] ** 2 + betas
    loss[0, 0] = torch.inf
    mesh = mesh_of(Surface(alphas, betas, loss, names=("x", "y")), height=0.5)
    steps, values = np.array([-1, 0, 2]), np.array([0.1, np.inf, -3.0])
    path = tmp_path / "a.tfevents"
    path.write_bytes(event_file({"x × y": mesh}, {"loss": (steps, values)}))
    scalars, tensors = read(path)
    np.testing.assert_array_equal(scalars["loss"][0], steps)
    np.testing.assert_array_equal(scalars["loss"][1], values.astype(np.float32))
    found = {tag.rpartition("_")[2]: tensor for tag, tensor in tensors.items()}
    np.testing.assert_array_equal(found["VERTEX"], mesh.points.astype(np.float32))
    np.testing.assert_array_equal(found["FACE"], mesh.faces)
    np.testing.assert_allclose(found["COLOR"] / 255, mesh.colors, atol=0.5 / 255 + 1e-9)
    assert len(mesh.faces) == 2 * (3 * 2 - 1)  # the cell at the overflow is left out
    assert 0 not in mesh.faces
    assert np.ptp(mesh.points[:, 2]) == pytest.approx(0.5 * 3)


def test_rows_are_numbered_where_their_column_has_no_integers():
    loss = np.array([3.0, np.nan, 1.0])
    whole = numbered({"epoch": np.array([0.0, 5, 10]), "loss": loss}, "epoch", "a/")
    assert {tag: [v.tolist() for v in pair] for tag, pair in whole.items()} == {
        "a/loss": [[0, 10], [3.0, 1.0]]
    }
    split = numbered({"alphas": np.array([-0.5, 0, 0.5]), "loss": loss}, "alphas", "")
    assert {tag: [v.tolist() for v in pair] for tag, pair in split.items()} == {
        "alphas": [[0, 1, 2], [-0.5, 0.0, 0.5]],
        "loss": [[0, 2], [3.0, 1.0]],
    }


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    monitored = ["monitor=default", "pipeline=train"]
    for arguments in (monitored, ["pipeline=surface", "grid.num=5"], ["grid.num=5"]):
        patch.setattr(sys, "argv", ["mining", *QUICK, *arguments])
        main()
    patch.undo()
    return folder / "outputs"


def run_of(outputs, pipeline):
    return next(path.parent for path in outputs.glob(f"{pipeline}/*/*/run.json"))


def test_one_run_has_tags_of_its_own(outputs, tmp_path, capsys):
    path = tmp_path / "surface.tfevents"
    run = run_of(outputs, "surface")
    export([str(run), str(path), "--loss-cap", "3"])
    assert capsys.readouterr().out.strip() == str(path)
    scalars, tensors = read(path)
    surface = load_surface(run / "surface.npz")
    (vertices,) = [t for tag, t in tensors.items() if tag.endswith("VERTEX")]
    heights = surface.loss.clamp(max=3.0).T.flatten().float().numpy()
    np.testing.assert_array_equal(vertices[:, 2], heights)
    assert scalars == {}


def test_curves_and_trainings_are_scalars(outputs, tmp_path):
    path = tmp_path / "both.tfevents"
    runs = [run for run in outputs.glob("train/*/*") if (run / "curvature.csv").exists()]
    export([str(runs[0]), str(run_of(outputs, "curve")), str(path)])
    scalars, tensors = read(path)
    assert tensors == {}
    (curve,) = load_curves(run_of(outputs, "curve") / "curves.npz")
    (found,) = [v for tag, v in scalars.items() if tag.endswith(f"{curve.name}/loss")]
    np.testing.assert_array_equal(found[1], curve.loss.float().numpy())
    (found,) = [v for tag, v in scalars.items() if tag.endswith(f"{curve.name}/alphas")]
    np.testing.assert_array_equal(found[1], curve.alphas.float().numpy())
    table = pd.read_csv(runs[0] / "curvature.csv")
    (found,) = [v for tag, v in scalars.items() if tag.endswith("monitor/lambda_max")]
    np.testing.assert_array_equal(found[0], table["epoch"])
    np.testing.assert_array_equal(found[1], table["lambda_max"].astype(np.float32))
    history = pd.read_csv(runs[0] / "history.csv")
    (found,) = [v for tag, v in scalars.items() if tag.endswith("history/train_loss")]
    np.testing.assert_array_equal(found[1], history["train_loss"].astype(np.float32))


def test_other_pipelines_and_a_missing_library_are_refused(outputs, tmp_path, monkeypatch):
    run = run_of(outputs, "curve")
    record = (run / "run.json").read_text()
    other = tmp_path / "spectrum/a/b"
    other.mkdir(parents=True)
    (other / "run.json").write_text(record.replace('"pipeline": "curve"', '"pipeline": "spectrum"'))
    path = tmp_path / "a.tfevents"
    with pytest.raises(InputError, match="spectrum"):
        export([str(other), str(path)])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"mining\[tensorboard\]"):
        export([str(run), str(path)])
    assert not path.exists()
