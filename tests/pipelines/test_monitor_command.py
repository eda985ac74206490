"""A training that is monitored from the command line."""

import pandas as pd
import pytest
import torch
from command_line import QUICK, record

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


def test_a_fraction_of_more_than_all_examples_is_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(*TRAIN, "monitor=default", "monitor.num_examples=1.5")
    assert "must be a whole number or a fraction between 0 and 1" in capsys.readouterr().err
