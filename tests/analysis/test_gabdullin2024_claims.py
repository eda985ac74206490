"""Quantities of the claims of Gabdullin (2024), by hand."""

from functools import partial

import pytest

from analysis.archive import Record
from analysis.gabdullin2024.claims import advantage, correlation, criterion_of, largest, loss, rise

ACCURACIES = (0.9, 0.8, 0.7, 0.6, 0.5)


def records(values, accuracies=ACCURACIES):
    """Five versions of the images, the first as they are."""
    return [
        Record(
            directory=f"spectrum/a-b/{number}",
            config={
                "seed": 0,
                "pipeline": "spectrum",
                "shift": f"noise:{number}" if number else None,
            },
            metrics={
                "k_h05": {"value": value},
                "accuracy_at_theta": accuracy,
                "eigenvalues_largest": [1 / accuracy],
                "loss_at_theta": accuracy,
            },
            arrays={},
            seconds=1.0,
            device="cpu",
        )
        for number, (value, accuracy) in enumerate(zip(values, accuracies, strict=False))
    ]


K = partial(criterion_of, name="k_h05")


def test_rise_is_the_mean_logarithm_over_the_images_as_they_are():
    assert rise(records([0.1, 1, 1, 10, 10]), "k_h05") == pytest.approx(1.5)
    assert rise(records([0.1, 1, None, 10, 10]), "k_h05") is None
    assert rise(records([0.0, 1, 1, 10, 10]), "k_h05") is None
    assert rise(records([1] * 5)[1:], "k_h05") is None


def test_another_data_set_is_not_home():
    home, away = records([0.1, 1])[:1], records([0.1, 1])[1:]
    for record, name in (*((r, "cifar10") for r in home), *((r, "cinic10") for r in away)):
        record.config.update(
            data={"_target_": "mining.data.torchvision_dataset", "name": "cifar10"},
            data_shifted={"_target_": "mining.data.torchvision_dataset", "name": name},
            shift=None,
        )
    assert rise([*home, *away], "k_h05") == pytest.approx(1)
    assert rise(away, "k_h05") is None


def test_correlations_are_of_ranks():
    falling = records([1, 2, 4, 8, 1000])
    assert correlation(falling, K) == pytest.approx(-1)
    assert correlation(records([8, 4, 3, 2, 1]), K) == pytest.approx(1)
    assert correlation(falling, largest) == pytest.approx(-1)
    assert correlation(records([1, 2, None, 4, 5]), K) is None
    assert correlation(falling[:4], K) is None


def test_advantage_is_the_difference_of_correlations():
    falling = records([1, 2, 4, 8, 1000])
    assert advantage(falling, K, loss) == pytest.approx(-2)
    assert advantage(falling, K, largest) == pytest.approx(0)
    assert advantage(records([1, 2, None, 4, 5]), K, loss) is None
