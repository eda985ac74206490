"""Numbers of random vectors against estimates that used as many, and against numbers by hand."""

import math

import pytest
import torch

from mining import InputError, MatrixOperator, sample_size, trace

#: Trace 6 and, for Gaussian vectors, the variance 2 (9 + 4 + 1 + 4) = 36 of a sample.
DENSE = torch.diag(torch.tensor([3.0, 2.0, -1.0, 2.0], dtype=torch.float64))
TRACE, DEVIATION = 6.0, 6.0


@pytest.mark.parametrize(
    ("bound", "confidence", "by_hand"),
    [
        ("chebyshev", 0.95, 2000),  # 36 / (0.05 · 0.6²)
        ("chebyshev", 0.9, 1000),
        ("normal", 0.95, 385),  # (1.95996 · 10)² = 384.1
        ("alabdulkareem2022", 0.95, 45),  # 10 / √0.05 = 44.7
        ("alabdulkareem2022", 0.9, 32),  # 10 / √0.1 = 31.6
    ],
)
def test_numbers_by_hand(bound, confidence, by_hand):
    options = {"relative_error": 0.1, "confidence": confidence, "bound": bound}
    assert sample_size(DEVIATION, TRACE, **options) == by_hand
    assert sample_size(DEVIATION, -TRACE, **options) == by_hand


def test_the_larger_error_counts():
    assert sample_size(6.0, 6.0, absolute_error=1.2) == sample_size(6.0, 6.0, relative_error=0.2)
    assert sample_size(6.0, 0.001, absolute_error=1.0) == 720  # 36 / 0.05
    assert sample_size(6.0, 6.0, absolute_error=0.1) == sample_size(6.0, 6.0)


def test_samples_without_spread_need_one():
    assert sample_size(0.0, 0.0) == 1
    assert sample_size(1e-9, 6.0) == 1


def share_within(bound: str, relative_error: float, draws: int) -> float:
    """The share of estimates within the error, with as many vectors as the bound asks for."""
    num = sample_size(DEVIATION, TRACE, relative_error=relative_error, bound=bound)
    operator = MatrixOperator(DENSE)
    inside = 0
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        found = trace(operator, generator=generator, distribution="gaussian", num_products=num)
        inside += abs(found.mean - TRACE) <= relative_error * TRACE
    return inside / draws


def test_what_follows_is_kept_in_simulation_and_what_is_printed_is_not():
    """At an error of 40 % and a confidence of 95 %: 125, 25 and 12 vectors.

    Of 400 estimates the share inside has a standard deviation of 1.1 % at 95 % and of 2 % at 83 %,
    the normal probability of 0.4 √12 standard deviations.
    """
    assert share_within("chebyshev", 0.4, 400) >= 0.99
    assert share_within("normal", 0.4, 400) == pytest.approx(0.95, abs=0.044)
    assert share_within("alabdulkareem2022", 0.4, 400) == pytest.approx(0.83, abs=0.08)


def test_the_deviation_is_that_of_the_samples_of_an_estimate():
    generator = torch.Generator().manual_seed(0)
    found = trace(
        MatrixOperator(DENSE), generator=generator, distribution="gaussian", num_products=4000
    )
    # Of 4,000 squares the standard deviation is known to some 3 %.
    assert float(found.samples.std()) == pytest.approx(DEVIATION, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trace": math.nan}, "trace must be finite, got nan"),
        ({"standard_deviation": -1.0}, "standard_deviation must be finite and not negative"),
        ({"standard_deviation": math.inf}, "standard_deviation must be finite and not negative"),
        ({"relative_error": -0.1}, "relative_error must be finite and not negative"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1"),
        ({"bound": "hoeffding"}, "bound must be one of"),
        ({"trace": 0.0}, "No error is allowed .* give a positive absolute_error"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        sample_size(**{"standard_deviation": 1.0, "trace": 1.0, **arguments})
