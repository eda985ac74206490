"""Mining from the command line, on the digits."""

import pandas as pd
import pytest
import torch
from command_line import QUICK, record

from mining.evaluation.storage import load_curves

MINE = (*QUICK, "descent.epochs=2", "grid.num=5")


def mined(folder):
    return sorted((folder / "outputs/mine").glob("*/*/run.json"))


def test_mining_leaves_what_a_curve_and_a_surface_then_use(command, folder):
    directory = command(*MINE, "pipeline=mine", "direction=xu2024_w_peak", "epoch=1")
    assert {p.name for p in directory.iterdir()} == {
        "run.json",
        "directions.pt",
        "history.csv",
        "history.png",
        "mining.log",
    }
    metrics = record(directory)["metrics"]
    assert metrics["diverged_epochs"] == [None]
    assert metrics["batch_norm_while_mining"] == "of each mini-batch"
    assert metrics["num_examples"] == 100
    assert list(pd.read_csv(directory / "history.csv").epoch) == [1, 2]
    before = mined(folder)
    curve = command(*MINE, "direction=xu2024_w_peak", "epoch=1", "num_examples=50", "split=both")
    surface = command(*MINE, "pipeline=surface", "x_direction=xu2024_w_peak", "epoch=1")
    assert mined(folder) == before
    expected = torch.load(directory / "directions.pt", weights_only=True)["vectors"][0]
    for other in (curve, surface):
        vectors = torch.load(other / "directions.pt", weights_only=True)["vectors"]
        assert torch.equal(vectors[0], expected)
    assert record(surface)["metrics"]["directions"][0] == "mined w-peak"
    with pytest.raises(SystemExit):  # as without a finished run
        command(*MINE, "direction=xu2024_w_peak", "epoch=1", "normalization=filter")
    another = command(*MINE, "direction=xu2024_w_peak", "epoch=1", "descent.lr=0.05")
    assert len(mined(folder)) == len(before) + 1
    assert record(another)["metrics"]["metadata"][0]["norm"] > 0


def test_the_way_to_another_basin_starts_at_an_initialization_without_training_it(
    command,
    folder,
):
    arguments = (*MINE, "direction=xu2024_vvv_basin", "seed=5", "grid.low=-1", "grid.high=2")
    directory = command(*arguments)
    (curve,) = load_curves(directory / "curves.npz")
    assert curve.other_alpha == 1
    seeds = [record(p.parent)["seed"] for p in (folder / "outputs/train").glob("*/*/run.json")]
    assert 1005 not in seeds
    # A training from that seed later has the same initialization.
    (start,) = {
        p
        for p in (folder / "outputs/train").glob("*/*/epoch_0000.pt")
        if not (p.parent / "run.json").exists()
    }
    before = torch.load(start, weights_only=True)["model"]
    command(*QUICK, "pipeline=train", "seed=1005")
    after = torch.load(start, weights_only=True)["model"]
    assert (start.parent / "run.json").exists()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_two_mined_axes_differ(command):
    axes = ("x_direction=xu2024_w_peak", "y_direction=xu2024_w_peak")
    metrics = record(command(*MINE, "pipeline=surface", "epoch=1", *axes))["metrics"]
    assert metrics["directions"] == ["mined w-peak 1", "mined w-peak 2"]


def test_eigenvectors_are_computed_once(command, folder):
    view = (*QUICK, "view=negative_eigenvector", "num_directions=2")
    first = record(command(*view, "grid.num=3"))["metrics"]
    again = record(command(*view, "grid.num=5"))["metrics"]
    assert again["metadata"] == first["metadata"]
    surface = record(command(*QUICK, "view=bottle", "grid.num=3"))["metrics"]
    assert surface["directions"] == ["N.E.1", "N.E.2"]
    (kept,) = (folder / "outputs/eigenvectors").glob("*/*/run.json")
    pair = ("direction=eigenvectors", "direction.which=smallest", "num_directions=2", "epoch=1")
    directory = command(*QUICK, "pipeline=eigenvectors", *pair, "batchnorm=frozen")
    assert directory.resolve() == kept.parent.resolve()
    assert (kept.parent / "eigenvalues.png").exists()


def test_axes_at_one_end_of_the_spectrum_may_come_in_any_order(command):
    axes = [f"{axis}_direction=eigenvectors" for axis in "xy"]
    axes += [f"{axis}_direction.which=largest" for axis in "xy"]
    surface = ("pipeline=surface", *axes, "grid.num=3", "x_direction.start=3", "epoch=1")
    metrics = record(command(*QUICK, *surface))["metrics"]
    assert metrics["directions"] == ["P.E.3", "P.E.1"]


def test_a_drawn_curve(command):
    template = "direction.template=[[-1.0,2.5],[0.0,null],[1.0,2.0]]"
    metrics = record(command(*MINE, "direction=multipoint", template))["metrics"]
    assert metrics["directions"] == ["mined curve of 3 points"]
    alphas, losses = zip(*metrics["template"], strict=True)
    assert alphas == (-1, 0, 1)
    assert losses == pytest.approx((2.5, metrics["loss_at_theta"], 2.0))
    assert metrics["rmse"][0] > 0


def test_mining_that_diverges_is_said(command, capsys):
    directory = command(*MINE, "direction=xu2024_w_peak", "descent.lr=1e10", "descent.epochs=9")
    (name,) = record(directory)["metrics"]["directions"]
    assert "diverged in epoch" in name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pipeline=mine"],
            "Gaussian is not mined. Take another direction: --help marks those that are",
        ),
        (
            ["pipeline=mine", "direction=xu2024_w_peak", "num_directions=0"],
            "num_directions must be at least 1, got 0",
        ),
        (
            ["direction=multipoint", "grid.high=0.5"],
            "extends from 0 to 1, the grid only from -1 to 0.5",
        ),
        (
            ["direction=multipoint", "direction.template=[[0.0,9.0],[1.0,2.0]]"],
            "gives 9 at alpha = 0, but the loss of θ is",
        ),
        (["pipeline=eigenvectors"], "Gaussian gives none. Take direction=eigenvectors"),
        (["direction=multipoint", "grid.scale=0.5"], "extends from 0 to 1, the grid only from"),
        (["direction=multipoint", "grid.scale=curvature"], "would stretch the template"),
        (["direction=xu2024_vvv_basin", "direction.gamma=-1"], "gamma must be positive, got -1"),
        (["direction=xu2024_vvv_basin", "direction.alpha=1"], "between 0 and 0.5, got 1"),
        (["direction=xu2024_w_peak", "descent.epochs=x"], "epochs must be an integer, got 'x'"),
        (
            ["direction=xu2024_vvv_basin", "direction.independent=false", "epoch=0"],
            "the same gradient",
        ),
        (
            ["direction=xu2024_w_peak", "normalization=filter"],
            "Xu2024WPeak sets its own length: leave normalization out",
        ),
    ],
)
def test_bad_input_of_miners(command, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        command(*MINE, *arguments)
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
