"""Whether peaks shrink with training or with the loss, on records with known answers."""

import sys

import pandas as pd
import pytest

from analysis import archive
from analysis.archive import Record, keep
from analysis.xu2024 import figures
from analysis.xu2024 import step_by_step as steps


def record(seed, epoch, step, loss, height):
    """A kept record of a curve with a peak of a height on a slope of 0.2."""
    config = {"seed": seed, "epoch": epoch, "step": step, "model": {}, "train": {"epochs": 200}}
    losses = [loss - height - 0.1, loss, loss - height + 0.1]
    arrays = {"alphas": [-1.0, 0.0, 1.0], "loss": [losses], "chance_loss": 2.3}
    fall = {"left": height + 0.1, "left_error": 0.0, "right": height - 0.1, "right_error": 0.0}
    metrics = {"falls": [fall], "metadata": [{"eigenvalue": -1.0 / epoch}]}
    name = f"curve/mlp-cifar10/{seed}-{epoch}-{step}"
    return Record(name, config | {"pipeline": "curve"}, metrics, arrays, 1.0, "cpu")


#: The height follows the loss within an epoch, and falls over the epochs.
LOSSES = [1.0, 0.8, 1.3, 0.9]
RECORDS = [
    record(seed, epoch, step, loss + 0.01 * seed, (2 + loss + 0.1 * seed) / epoch + 0.1)
    for seed in range(3)
    for epoch in (10, 50)
    for step, loss in enumerate(LOSSES, start=1)
]


def test_height_that_follows_the_loss_and_training():
    found = steps.rows(RECORDS)
    assert found.slope.to_list() == pytest.approx([0.1] * len(RECORDS))
    assert (steps.correlations(found) == 1).all()
    told = steps.answer(found).set_index("question")
    assert told.n.to_list() == [3, 3]
    # Three correlations that are equal have no interval, and three signs do not decide.
    assert told.word.to_list() == ["not decided", "holds"]


def test_height_that_is_constant_has_no_correlation():
    flat = [record(0, 10, step, loss, 0.2) for step, loss in enumerate(LOSSES)]
    assert steps.correlations(steps.rows(flat)).isna().all()


def test_the_script_draws_and_lists_what_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(archive, "_FOLDER", tmp_path)
    keep("xu2024/steps", RECORDS)
    picture = tmp_path / "steps.png"
    monkeypatch.setattr(sys, "argv", ["steps", "--picture", str(picture)])
    figures.main("steps")
    assert picture.read_bytes().startswith(b"\x89PNG")
    written = pd.read_csv(tmp_path / "steps.csv")
    assert len(written) == len(RECORDS)
    assert "rank correlation of height and loss" in capsys.readouterr().out
