"""A training that is monitored from the command line."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import QUICK, record

from mining.training.loop import read_state

TRAIN = ("pipeline=train", *QUICK)


def test_a_monitored_training_is_the_same_and_leaves_its_curvature(command):
    plain = command(*TRAIN)
    watched = command(*TRAIN, "monitor=default", "monitor.every=2", "monitor.num_examples=40")
    assert plain != watched
    assert not (plain / "curvature.csv").exists()
    table = pd.read_csv(watched / "curvature.csv")
    assert list(table.epoch) == [1, 3]
    assert list(table.num_examples) == [40, 40]
    assert (watched / "curvature.png").stat().st_size > 10_000
    weights = [
        torch.load(directory / "epoch_0003.pt", weights_only=True)["model"]
        for directory in (plain, watched)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    metrics = [record(directory)["metrics"] for directory in (plain, watched)]
    assert metrics[0] == metrics[1]


def test_the_setting_of_the_paper_takes_a_tenth_after_every_epoch(command):
    directory = command(*TRAIN, "monitor=alabdulkareem2022")
    table = pd.read_csv(directory / "curvature.csv")
    assert list(table.epoch) == [1, 2, 3]
    assert list(table.num_examples) == [10, 10, 10]
    # Ten power iterations, one product for their sampling error, and ten of the trace.
    assert list(table.products) == [21, 21, 21]


def test_the_curvature_of_layers_is_written_and_drawn(command):
    directory = command(*TRAIN, "monitor=layers", "monitor.num_examples=40")
    layers = pd.read_csv(directory / "curvature_layers.csv")
    table = pd.read_csv(directory / "curvature.csv")
    assert list(layers.layer) == ["layers.1", "layers.3"] * 3
    traces = layers.groupby("epoch").trace.sum()
    assert np.allclose(traces, table.set_index("epoch").trace)
    # Eigenvalues of diagonal blocks interlace.
    largest = layers.groupby("epoch").lambda_max.max()
    assert (largest <= 1.01 * table.set_index("epoch").lambda_max).all()
    assert (directory / "curvature_layers.png").stat().st_size > 10_000


def test_a_fraction_of_more_than_all_examples_is_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(*TRAIN, "monitor=default", "monitor.num_examples=1.5")
    assert "must be a whole number or a fraction between 0 and 1" in capsys.readouterr().err


def test_a_killed_training_goes_on_with_its_table_whole(command, folder):
    options = (
        *TRAIN, "train.epochs=30", "monitor=default", "monitor.every=2", "monitor.num_examples=40",
        "seed=5", "num_threads=1",
    )  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "mining", *options], cwd=folder, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.01)
        states = list((folder / "outputs/train").glob("*/*/resume.pt"))
        # A state from the midst of the training, and a row that comes after it.
        if states and (states[0].parent / "curvature.csv").exists():
            saved = read_state(states[0])["epoch"]
            if 3 <= saved < pd.read_csv(states[0].parent / "curvature.csv").epoch.iloc[-1]:
                break
    running.kill()
    assert running.wait() == -9
    directory = states[0].parent
    before = pd.read_csv(directory / "curvature.csv")
    assert not (directory / "run.json").exists()
    assert 2 <= len(before) < 15
    assert command(*options) == directory
    whole = pd.read_csv(directory / "curvature.csv")
    undisturbed = pd.read_csv(command(*options, "outputs=undisturbed") / "curvature.csv")
    assert list(whole.epoch) == list(undisturbed.epoch) == list(range(1, 30, 2))
    for column in ("loss", "lr", "gradient_norm", "trace"):
        assert np.array_equal(whole[column], undisturbed[column])
    # Eigenvectors after the interruption are found from others, to a residual of 0.5 %.
    assert np.allclose(whole.lambda_max, undisturbed.lambda_max, rtol=1e-3)
