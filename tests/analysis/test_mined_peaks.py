"""Where Algorithm 1 finds peaks, on records with known heights."""

import sys

import pandas as pd
import pytest

from analysis import archive
from analysis.archive import Record, keep
from analysis.xu2024 import figures
from analysis.xu2024 import mined_peaks as peaks


def record(seed, epoch, rate, left, right, error=0.01, diverged=False):
    """A kept record of a curve that falls by given heights on both sides of θ."""
    direction = {"_target_": "mining.Xu2024WPeak", "descent": {"lr": rate, "epochs": 20}}
    config = {"seed": seed, "epoch": epoch, "model": {}, "direction": direction}
    config |= {"pipeline": "curve", "train": {"epochs": 200}}
    losses = [2.0, 1 - left, 1.0, 1 - right, 2.0]
    arrays = {"alphas": [-1.0, -0.5, 0.0, 0.5, 1.0], "loss": [losses], "chance_loss": 2.3}
    fall = {"left": left, "left_error": error, "right": right, "right_error": error}
    metadata = {"diverged_epoch": 3} if diverged else {}
    metrics = {"falls": [fall], "metadata": [metadata]}
    return Record(f"curve/mlp-cifar10/{seed}{epoch}{rate}", config, metrics, arrays, 1.0, "cpu")


RECORDS = [
    record(0, 10, 0.04, 0.2, 0.3),
    record(1, 10, 0.04, 0.5, 0.4),
    record(0, 10, 0.1, 0.015, 0.5),  # within twice its error
    record(1, 10, 0.1, 0.9, 0.9, diverged=True),
    record(0, 200, 0.04, 0.0, 0.0),
]


def test_a_peak_is_as_high_as_its_lower_side_and_counts_beyond_its_error():
    found = peaks.rows(RECORDS).set_index(["epoch", "rate", "seed"])
    assert found.height.loc[10, 0.04].to_list() == [pytest.approx(0.2), pytest.approx(0.4)]
    assert found.peak.to_list() == [True, True, False, False, False]
    told = peaks.summary(peaks.rows(RECORDS)).set_index(["E", "η"])
    assert told.n.to_list() == [2, 2, 1]
    assert told.peaks.to_list() == [2, 0, 0]
    assert told.diverged.to_list() == [0, 1, 0]
    assert told["mean height"].to_list() == pytest.approx([0.3, 0.015, 0.0])


def test_the_script_draws_what_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(archive, "_FOLDER", tmp_path)
    keep("xu2024/algorithm1", RECORDS)
    picture = tmp_path / "algorithm1.png"
    monkeypatch.setattr(sys, "argv", ["algorithm1", "--picture", str(picture)])
    figures.main("algorithm1")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(tmp_path / "algorithm1.csv")) == len(RECORDS)
    assert "called w-peak" in capsys.readouterr().out
