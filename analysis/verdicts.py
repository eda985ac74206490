"""Verdicts on claims from independent trainings; ``criteria.md`` explains the rules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

#: Trainings that a confidence interval needs, and that the sign test needs if all agree.
_FEWEST, _AGREEING = 3, 5


@dataclass(frozen=True)
class Bound:
    """The open interval in which a claim places a quantity."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low < value < self.high

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"below {self.high:g}"
        return f"above {self.low:g}" + ("" if math.isinf(self.high) else f", below {self.high:g}")


@dataclass(frozen=True)
class Verdict:
    """What independent trainings say of a claim."""

    n: int  # trainings
    mean: float
    deviation: float  # standard deviation over the trainings
    low: float  # 95 % confidence interval of the mean
    high: float
    word: str  # holds, fails, not decided, not measured


def decide(values: Sequence[float], bound: Bound) -> Verdict:
    """Compare a quantity with the bound that a claim puts on it.

    Args:
        values: One per independent training.
        bound: Where the claim places their mean.

    Returns:
        *holds* if the confidence interval (Student's t) lies within the bound, *fails* if it lies
        outside, otherwise *not decided*. Equal values have no interval: five or more decide by the
        sign test (p = 1/32), fewer do not.
    """
    found = np.asarray(values, dtype=float)
    if len(found) == 0:
        return Verdict(0, math.nan, math.nan, math.nan, math.nan, "not measured")
    if not np.isfinite(found).all():
        raise ValueError(f"values must be finite, got {found.tolist()}.")
    n, mean = len(found), float(found.mean())
    if n == 1:
        return Verdict(1, mean, math.nan, math.nan, math.nan, "not decided")
    deviation = float(found.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    low, high = mean - half, mean + half
    enough = n >= (_FEWEST if deviation > 0 else _AGREEING)
    if enough and low in bound and high in bound:
        word = "holds"
    elif enough and (high <= bound.low or low >= bound.high):
        word = "fails"
    else:
        word = "not decided"
    return Verdict(n, mean, deviation, low, high, word)
