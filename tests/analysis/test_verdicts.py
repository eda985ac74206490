"""Verdicts against the definition of a confidence interval."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from analysis.verdicts import Bound, decide

ABOVE = Bound(low=0.5)


@pytest.mark.parametrize("seed", range(20))
def test_the_interval_is_that_of_a_t_test(seed):
    values = np.random.default_rng(seed).normal(0.7, 0.3, size=3 + seed % 5)
    found = decide(values, ABOVE)
    interval = ttest_1samp(values, 0.5).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(interval)
    expected = "holds" if interval.low > 0.5 else "fails" if interval.high < 0.5 else "not decided"
    assert found.word == expected
    assert found.n == len(values)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("values", "bound", "word"),
    [
        ([], ABOVE, "not measured"),
        ([9.0], ABOVE, "not decided"),
        ([9.0, 9.1], ABOVE, "not decided"),  # two trainings never decide
        ([9.0, 9.1, 9.2], ABOVE, "holds"),
        ([0.1, 0.12, 0.09], ABOVE, "fails"),
        ([1.0] * 4, ABOVE, "not decided"),  # p = 1/16
        ([1.0] * 5, ABOVE, "holds"),  # p = 1/32
        ([0.0] * 5, ABOVE, "fails"),
        ([0.5] * 5, ABOVE, "fails"),  # the bound itself is not beyond it
        ([1.0, 1.01, 0.99], Bound(0.9, 1.1), "holds"),
        ([1.2, 1.21, 1.19], Bound(0.9, 1.1), "fails"),
        ([0.7, 1.0, 1.3], Bound(0.9, 1.1), "not decided"),  # the interval reaches beyond both ends
        ([-1.0, -1.1, -0.9], Bound(high=0.0), "holds"),
    ],
)
def test_words(values, bound, word):
    assert decide(values, bound).word == word


def test_verdicts_of_no_effect_are_seldom():
    """Of means that lie on the bound, one in twenty intervals misses it, on one of two sides."""
    generator = np.random.default_rng(0)
    words = [decide(generator.normal(0.5, 1, size=5), ABOVE).word for _ in range(4000)]
    assert words.count("holds") / 4000 == pytest.approx(0.025, abs=0.01)
    assert words.count("fails") / 4000 == pytest.approx(0.025, abs=0.01)


def test_bounds_say_what_they_are():
    bounds = (ABOVE, Bound(high=1.5), Bound(0.9, 1.1))
    assert [str(bound) for bound in bounds] == ["above 0.5", "below 1.5", "above 0.9, below 1.1"]


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="finite"):
        decide([1.0, math.nan], ABOVE)
