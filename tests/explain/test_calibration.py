"""Calibration errors against closed forms and simulations."""

import pytest
import torch
from cases import build, landscape, loader
from torch import nn

from mining import InputError, Landscape
from mining.explain.calibration import calibration_error
from mining.explain.resampling import (
    interval_of,
    resampled_sums,
    spread_of_groups,
    spread_of_replicates,
)


def test_a_classifier_that_is_sure_and_right_half_the_time():
    correct = torch.tensor([1.0, 0.0] * 50)
    found = calibration_error(torch.full((100,), 0.9), correct)
    assert found.error == pytest.approx(0.4)
    assert found.by_chance < 0.1
    # The standard error of a share of one half.
    assert float(found.replicates.std()) == pytest.approx(0.05, rel=0.1)
    low, high = found.interval
    assert (low, high) == pytest.approx((0.3, 0.5), abs=0.02)


def test_bins_are_weighted_by_their_examples():
    # 30 examples at 0.95, all right (gap 0.05), and 10 at 0.55, of which 1 is right (gap 0.45).
    confidence = torch.tensor([0.95] * 30 + [0.55] * 10)
    correct = torch.tensor([1.0] * 30 + [1.0] + [0.0] * 9)
    expected = (30 * 0.05 + 10 * 0.45) / 40
    assert calibration_error(confidence, correct).error == pytest.approx(expected)
    # In one bin the gaps cancel in part: mean confidence 0.85, share right 31/40.
    assert calibration_error(confidence, correct, 1).error == pytest.approx(0.85 - 31 / 40)


def test_the_edges_of_bins_belong_to_the_bin_below():
    confidence = torch.tensor([0.5, 0.500001], dtype=torch.float64)
    assert calibration_error(confidence, torch.tensor([1.0, 0.0]), 2).error == pytest.approx(
        0.5, abs=1e-5
    )


def test_a_calibrated_classifier_is_within_what_chance_makes():
    generator = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(100):
        confidence = 0.1 + 0.9 * torch.rand(200, generator=generator).double()
        correct = (torch.rand(200, generator=generator).double() < confidence).double()
        found = calibration_error(confidence, correct, resamples=100)
        below += found.error <= found.by_chance
    assert below >= 88  # 95 expected


def test_the_interval_covers_a_true_error():
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(100):  # sure by 0.9, right with probability 0.75
        correct = (torch.rand(150, generator=generator) < 0.75).double()
        low, high = calibration_error(torch.full((150,), 0.9), correct, resamples=200).interval
        covered += low <= 0.15 <= high
    assert covered >= 88  # 95 expected


def test_confidences_are_those_of_the_outputs():
    of = landscape("mlp")
    found = of.confidences(of.theta)
    outputs = torch.cat([build("mlp")(x) for x, _ in loader()])
    targets = torch.cat([y for _, y in loader()])
    confidence, predicted = outputs.softmax(1).max(1)
    assert torch.allclose(found[:, 0], confidence)
    assert torch.equal(found[:, 1], (predicted == targets).double())


def test_ignored_targets_have_no_confidence():
    batches = [(x, torch.where(torch.arange(len(y)) % 2 == 0, y, -100)) for x, y in loader()]
    of = Landscape(build("mlp"), nn.CrossEntropyLoss(), batches)
    assert len(of.confidences(of.theta)) == 35


def test_only_class_scores_have_confidences():
    margin = Landscape(build("mlp"), nn.MultiMarginLoss(), loader())
    with pytest.raises(InputError, match="CrossEntropyLoss"):
        margin.confidences(margin.theta)


def test_resampling_gives_the_error_of_a_mean():
    values = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).double()
    sums = resampled_sums(values, torch.Generator().manual_seed(1), 2000)[:, 0] / 400
    expected = float(values.std()) / 20
    assert float(spread_of_replicates(sums).norm()) == pytest.approx(expected, rel=0.05)
    low, high = interval_of(float(values.mean()), sums)
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.08)
    again = resampled_sums(values, torch.Generator().manual_seed(1), 2000)[:, 0] / 400
    assert torch.equal(sums, again)


def test_the_spread_of_groups_is_the_error_of_their_mean():
    values, shares = torch.tensor([1.0, 2.0, 4.0, 5.0]), torch.full((4,), 0.25)
    assert float(spread_of_groups(values, shares).norm()) == pytest.approx(
        float(values.std()) / 2, rel=1e-6
    )


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [(torch.ones(3), torch.ones(4)), (torch.ones(0), torch.ones(0)), (2 * torch.ones(3),) * 2],
)
def test_what_is_no_confidence_is_refused(confidence, correct):
    with pytest.raises(InputError, match="confidence"):
        calibration_error(confidence, correct)
