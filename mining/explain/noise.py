"""What the sampling errors of a curve may hide or feign."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

Array = NDArray[np.float64]

#: All differences between points of one curve lie within their bounds in this share of the draws.
_CONFIDENCE = 0.95
#: Curves that are drawn to find how sure a label is: to 1.5 % of a share of 95 %.
_DRAWS = 200


def difference_bounds(covariance: Tensor | None, hidden: NDArray[np.bool_]) -> Array:
    """Bound what sampling errors add to the difference between any two points of a curve.

    The bounds hold for all pairs together with 95 % confidence (Bonferroni): 4.0 standard errors
    of the difference for 41 points.

    Args:
        covariance: Of the errors, shape ``(T, T)``; ``None`` where values are exact.
        hidden: Points at which the error does not matter, shape ``(T,)``.

    Returns:
        Shape ``(T, T)``, zeros where values are exact.
    """
    num = len(hidden)
    if covariance is None:
        return np.zeros((num, num))
    known = _known(covariance)
    known[hidden] = 0.0
    known[:, hidden] = 0.0
    variances = known.diagonal()[:, None] + known.diagonal() - 2 * known
    quantile = float(norm.isf((1 - _CONFIDENCE) / (num * (num - 1))))
    bounds: Array = quantile * np.sqrt(variances.clip(min=0))
    return bounds


def draw_values(values: Tensor, covariance: Tensor) -> Array:
    """Draw what might have been estimated in place of some values, the same on every call.

    Args:
        values: Shape ``(T,)``.
        covariance: Of their errors, shape ``(T, T)``; one that is not finite moves no value.

    Returns:
        Normal about the values, shape ``(200, T)``.
    """
    variances, vectors = np.linalg.eigh(_known(covariance))
    steps = np.random.default_rng(0).standard_normal((_DRAWS, len(values)))
    errors = (steps * np.sqrt(variances.clip(min=0))) @ vectors.T
    drawn: Array = values.double().numpy() + errors
    return drawn


def count_turns(values: Array, bounds: Array) -> int:
    """Count where a curve turns by more than the bounds of what errors feign.

    A maximum counts when the curve rises to it and falls from it by more than the bounds, a
    minimum likewise.

    Args:
        values: Shape ``(T,)``.
        bounds: Of differences, shape ``(T, T)``.
    """
    turns, going, extreme, lowest, highest = 0, 0, 0, 0, 0
    for t in range(1, len(values)):
        if going == 0:  # neither a rise nor a fall is certain yet
            lowest = t if values[t] < values[lowest] else lowest
            highest = t if values[t] > values[highest] else highest
            rises = values[t] - values[lowest] > bounds[lowest, t]
            falls = values[highest] - values[t] > bounds[highest, t]
            going, extreme = int(rises) - int(falls), t
        elif going * (values[t] - values[extreme]) >= 0:
            extreme = t
        elif going * (values[extreme] - values[t]) > bounds[extreme, t]:
            turns, going, extreme = turns + 1, -going, t
    return turns


def is_certain(probability: float) -> bool:
    """Whether a label is that of enough resampled curves."""
    return probability >= _CONFIDENCE


def describe_certainty(name: str, probability: float) -> str:
    """Add to a label how sure it is, where that is not enough."""
    if is_certain(probability):
        return name
    return f"{name} (uncertain: {math.floor(100 * probability)} %)"


def _known(covariance: Tensor) -> Array:
    known: Array = covariance.double().nan_to_num(0.0, 0.0, 0.0).numpy().copy()
    return known
