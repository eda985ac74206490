"""``pipeline=assess`` from the command line."""

import json
import sys

import numpy as np
import pytest
import torch
from command_line import QUICK, record

from mining import Landscape
from mining.app.command_line import main
from mining.data import digits
from mining.models import MLP
from mining.storage.checkpoints import load_weights

FAST = (
    "pipeline=assess",
    "assess.curvature_examples=40",
    "assess.eigenvalue_products=20",
    "assess.trace_probes=3",
    "assess.density_steps=5",
    "assess.density_probes=2",
    "assess.ascent_steps=1",
    "assess.num_curves=2",
    "assess.curve_points=11",
)
CONTRACT = (
    "loss", "accuracy", "calibration_error", "gradient_norm", "lambda_max", "lambda_min", "trace",
    "adaptive_sharpness", "critical_sharpness", "r_e", "k_h05", "k_h1",
)  # fmt: skip


def checkpoints(folder):
    """The kept weights of the trainings of ``QUICK``, in the order of their epochs."""
    found = sorted((folder / "outputs/train/mlp-digits").glob("*/epoch_*.pt"))
    return [path for path in found if json.loads((path.parent / "run.json").read_text())]


def test_assess_leaves_what_the_contract_says(command, folder, capsys):
    directory = command(*QUICK, *FAST)
    assert directory.parent == folder / "outputs/assess/mlp-digits"
    assert {path.name for path in directory.iterdir()} == {
        "run.json", "report.md", "assessment.png", "assessment.npz", "curves.npz", "density.npz",
        "page.txt", "mining.log",
    }  # fmt: skip
    metrics = record(directory)["metrics"]
    for name in (*CONTRACT, "loss_test", "accuracy_test", "calibration_error_test"):
        assert set(metrics[name]) == {"value", "error", "applies", "why"}, name
        assert metrics[name]["value"] is not None or metrics[name]["why"]
    assert len(metrics["labels"]) == 2
    assert metrics["stability_limit"]["value"] == pytest.approx(2 / 0.1)
    assert {finding["name"] for finding in metrics["findings"]}
    report = (directory / "report.md").read_text()
    for name in ("λmax", "adaptive sharpness", "what it does not mean", "assessment.png"):
        assert name in report
    # The same θ and examples, by hand.
    (checkpoint,) = [
        path
        for path in checkpoints(folder)
        if path.name == "epoch_0003.pt" and record(path.parent)["seed"] == 0
    ]
    model = MLP((1, 8, 8), 10)
    load_weights(model, checkpoint)
    data = digits(num_examples=100)
    of = Landscape(model, torch.nn.CrossEntropyLoss(), data.split("train").batches(128))
    found = of.evaluate(of.theta)
    assert metrics["loss"]["value"] == pytest.approx(float(found.loss), rel=1e-5)
    assert metrics["accuracy"]["value"] == pytest.approx(float(found.accuracy))
    assert metrics["gradient_norm"]["value"] == pytest.approx(float(of.gradient().norm()), rel=1e-4)


def test_a_page_is_printed_and_a_finished_run_is_drawn_again(command, folder, monkeypatch, capsys):
    directory = command(*QUICK, *FAST, "seed=3")
    before = (directory / "run.json").stat().st_mtime_ns
    page = (directory / "page.txt").read_text()
    assert "λmax" in page
    monkeypatch.setattr(sys, "argv", ["mining", *QUICK, *FAST, "seed=3"])
    main()
    assert capsys.readouterr().out == f"{page}\n{directory}\n"
    assert (directory / "run.json").stat().st_mtime_ns == before
    (directory / "assessment.png").unlink()
    command(*QUICK, *FAST, "seed=3")
    assert (directory / "assessment.png").exists()


def test_two_checkpoints_are_compared(command, folder):
    command(*QUICK, *FAST)
    early, *_, late = [path for path in checkpoints(folder) if record(path.parent)["seed"] == 0]
    directory = command(*QUICK, *FAST, f"checkpoint=[{early},{late}]")
    metrics = record(directory)["metrics"]
    first, second = metrics["loss"]["value"], metrics["second"]["loss"]["value"]
    change = metrics["differences"]["loss"]
    assert change["value"] == pytest.approx(second - first)
    assert change["is_clear"]
    assert change["interval"][0] < change["value"] < change["interval"][1]
    assert metrics["barrier"]["value"] >= 0
    assert "stability_limit" not in metrics  # of a file the training is not known
    assert "## Comparison" in (directory / "report.md").read_text()
    for name in ("assessment_2.npz", "curves_2.npz", "density_2.npz"):
        assert (directory / name).exists()
    swapped = command(*QUICK, *FAST, f"checkpoint=[{late},{early}]")
    assert swapped != directory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pipeline=curve", "checkpoint=[a.pt,b.pt]"), "checkpoint must be one file or null"),
        (("pipeline=assess", "checkpoint=[a.pt]"), "checkpoint must be one file or null"),
        (("pipeline=assess", "checkpoint=[a.pt,b.pt]"), "checkpoint: no file"),
        (("pipeline=assess", "assess.num_groups=1"), "assess.num_groups must be at least 2"),
        (("pipeline=assess", "assess.rho=0"), "assess.rho must be positive"),
    ],
)
def test_what_cannot_be_assessed_is_refused(command, capsys, arguments, message):
    with pytest.raises(SystemExit):
        command(*QUICK, *arguments)
    assert message in capsys.readouterr().err


def test_data_without_a_test_split_are_assessed_on_the_other(command, folder):
    data = digits(num_examples=60)
    train = data.split("train")
    images = (train.inputs.permute(0, 2, 3, 1).numpy() * 40 + 100).clip(0, 255).astype(np.uint8)
    np.savez(folder / "one.npz", train_images=images, train_labels=train.labels.numpy())
    directory = command(
        "data=arrays", "data.path=one.npz", "train.epochs=1", "progress=false", *FAST
    )
    metrics = record(directory)["metrics"]
    assert metrics["num_examples_of"]["examples"] == 60
    assert "loss_test" not in metrics


@pytest.mark.parametrize("shift", ["shift=contrast:5", "data_shifted=digits"])
def test_shifted_images_are_the_third_set(command, shift):
    home = record(command(*QUICK, *FAST))["metrics"]
    moved = record(command(*QUICK, *FAST, shift))["metrics"]
    assert moved["loss"] == home["loss"]
    assert moved["lambda_max"] == home["lambda_max"]
    assert moved["num_examples_of"]["shifted"] > 0
    for name in ("loss_shifted", "accuracy_shifted", "calibration_error_shifted"):
        assert set(moved[name]) == {"value", "error", "applies", "why"}
        assert name not in home
    if shift.startswith("shift"):  # an image of little contrast is harder to tell
        assert moved["loss_shifted"]["value"] > moved["loss_test"]["value"]
