"""Training on one data set and evaluating on another, or on a shifted version of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mining import Landscape
from mining.app.command_line import main
from mining.app.experiments import plan
from mining.data import digits, shifted
from mining.models import MLP
from mining.storage.checkpoints import load_weights
from mining.storage.table import read_runs

QUICK = ["train.epochs=2", "train.checkpoints=[0,2]", "split=test", "num_threads=1"]
QUICK += ["progress=false", "pipeline=spectrum", "spectrum.num_eigenvalues=0"]
QUICK += ["spectrum.trace_products=0", "spectrum.density_steps=5", "spectrum.density_probes=2"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["mining", *QUICK, *arguments])
        main()
        directory = capsys.readouterr().out.splitlines()[-1]
        return next(read_runs([Path(directory)]).itertuples())

    return call


def test_loss_is_that_of_the_shifted_images_and_training_is_not(run, tmp_path):
    home, noisy = run(), run("shift=noise:4")
    (training,) = (tmp_path / "outputs/train/mlp-digits").iterdir()  # one training for both
    model = MLP((1, 8, 8), 10)
    load_weights(model, training / "epoch_0002.pt")
    loss = torch.nn.CrossEntropyLoss()
    for found, data in ((home, digits()), (noisy, shifted(digits(), "noise", 4))):
        of = Landscape(model, loss, data.split("test").batches(128))
        expected = of.evaluate(of.theta)
        assert found.metrics["loss_at_theta"] == pytest.approx(float(expected.loss), rel=1e-5)
        assert found.metrics["accuracy_at_theta"] == pytest.approx(float(expected.accuracy))
    assert noisy.metrics["loss_at_theta"] > home.metrics["loss_at_theta"]


def test_another_data_set_is_evaluated_in_the_form_of_the_first(run, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", test_images=images, test_labels=np.arange(30) % 10)
    found = run("data_shifted=arrays", "data_shifted.path=other.npz")
    assert found.metrics["num_examples"] == 30
    assert found.data == "digits"
    assert found.metrics["loss_at_theta"] != run().metrics["loss_at_theta"]
    with pytest.raises(SystemExit):
        run("data_shifted=arrays", "data_shifted.path=other.npz", "split=train")


def test_recalibration_uses_images_that_are_not_shifted(run):
    arguments = [
        "model=cifar_resnet8",
        "split=train",
        "num_examples=40",
        "batchnorm.num_examples=40",
    ]
    shifts = [run(*arguments, f"shift=contrast:{strength}") for strength in (1, 5)]
    frozen = run(*arguments, "shift=contrast:5", "batchnorm=frozen")
    # Statistics of the shifted images themselves would undo most of a loss of contrast.
    assert shifts[1].metrics["loss_at_theta"] > shifts[0].metrics["loss_at_theta"]
    assert shifts[1].metrics["recalibration"] == {"split": "train", "num_examples": 40}
    assert frozen.metrics["recalibration"] is None


def test_without_a_shift_runs_keep_their_names():
    (plain,) = plan(["pipeline=spectrum"])
    assert plain.directory.name == plan(["pipeline=spectrum", "shift=null"])[0].directory.name
    assert plain.directory.name != plan(["pipeline=spectrum", "shift=blur:1"])[0].directory.name
    (training,) = plan(["pipeline=train"])
    (same,) = plan(["pipeline=train", "shift=blur:1", "data_shifted=svhn"])
    assert training.directory == same.directory


def test_a_shift_of_another_form_is_said_in_one_line(run, capsys):
    with pytest.raises(SystemExit):
        run("shift=fog:3")
    assert "shift must be KIND:STRENGTH" in capsys.readouterr().err


def test_assess_reports_on_both(run):
    few = {"curvature_examples": 50, "check_examples": 50, "num_groups": 3, "num_curves": 1}
    few |= {"curve_points": 11, "density_steps": 5, "density_probes": 2, "trace_probes": 3}
    arguments = ["pipeline=assess", "num_examples=100", "shift=noise:5"]
    found = run(*arguments, *(f"assess.{key}={value}" for key, value in few.items()))
    metrics = found.metrics
    noisy = run("shift=noise:5", "num_examples=100").metrics
    home = run("num_examples=100").metrics
    assert metrics["accuracy"]["value"] == pytest.approx(home["accuracy_at_theta"])
    assert metrics["accuracy_shifted"]["value"] == pytest.approx(noisy["accuracy_at_theta"])
    assert metrics["loss_shifted"]["value"] == pytest.approx(noisy["loss_at_theta"], rel=1e-5)
