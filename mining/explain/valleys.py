"""The valleys and barriers of a curve, and how rough it is."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from mining.evaluation.curves import CEILING

Array = NDArray[np.float64]

#: A curve that falls below the chance level by a smaller share of it is seen above it as well.
_LEAST_FALL = 0.05
#: Least height of a barrier above the higher of its valleys, as a share of that above the lowest.
_LEAST_SHARE = 0.08
#: The median of the absolute value of a standard normal variable.
_MEDIAN = 0.67449


def visible_loss(loss: Array, at_theta: float, chance: float | None) -> Array:
    """Clip a loss at the chance level, or at the loss of θ, and at its largest finite value.

    Losses above the chance level say nothing about the model. Those of a curve that hardly falls
    below it, by less than 5 % of it or by less than θ is above it, are clipped at twice the chance
    level, or twice the loss of θ.

    Args:
        loss: Shape ``(T,)``.
        at_theta: The loss of θ.
        chance: The chance-level loss, if there is one.

    Returns:
        Shape ``(T,)``, finite where any of ``loss`` is.
    """
    finite = loss[np.isfinite(loss)]
    cap = finite.max(initial=0.0)
    if chance is not None:
        fall = chance - finite.min(initial=np.inf)
        hardly = fall <= max(at_theta - chance, _LEAST_FALL * chance)
        cap = min(cap, max(chance, at_theta) * (CEILING if hardly else 1))
    visible: Array = np.minimum(np.where(np.isfinite(loss), loss, np.inf), cap)
    return visible


def estimate_noise(loss: Array, hidden: NDArray[np.bool_]) -> float:
    """Estimate the standard deviation of independent noise from differences of high order.

    Their root mean square, cut off at 2.5 times what their median shows, vanishes with the median
    for smooth and for piecewise linear curves. That of sixth differences counts instead of fourth
    ones if it is less than a third: it is smaller of valleys a few points wide.

    Args:
        loss: Shape ``(T,)``.
        hidden: Points that were clipped and show no noise, shape ``(T,)``.

    Returns:
        The estimate, in units of the loss; 0 of fewer than five differences.
    """
    if len(loss) < 11:
        return 0.0
    estimates = []
    for order in (4, 6):
        seen = np.convolve(hidden, np.ones(order + 1), mode="valid") == 0
        differences = np.abs(np.diff(loss, order))[seen]
        if len(differences) < 5:
            return 0.0
        cut = np.minimum(differences, 2.5 * np.median(differences) / _MEDIAN)
        # Differences of noise have the variance σ² Σ binom(order, k)² = σ² binom(2 order, order).
        variance = float(np.square(cut).mean()) / math.comb(2 * order, order)
        estimates.append(math.sqrt(variance))
    fourth, sixth = estimates
    return sixth if sixth < fourth / 3 else fourth


def find_valleys(loss: Array, tolerance: float, bounds: Array) -> list[int]:
    """Find the bottoms of valleys, ends of the window included.

    Between two of them lies a barrier that rises above both by ``tolerance``, by 8 % of its own
    height above the lowest point, and by more than the errors explain.

    Args:
        loss: Shape ``(T,)``.
        tolerance: Least height of a barrier above the higher of its valleys.
        bounds: What errors explain of differences, shape ``(T, T)``.
    """
    rim, lowest = loss.max(), loss.min()
    padded = np.concatenate([[rim], loss, [rim]])
    bottoms = [int(i) - 1 for i in find_peaks(-padded, prominence=tolerance)[0]]
    while len(bottoms) > 1:
        excess = []  # of each barrier over what it needs
        for pair, peak in zip(pairwise(bottoms), find_barriers(loss, bottoms), strict=True):
            least = max(tolerance, _LEAST_SHARE * (loss[peak] - lowest))
            excess.append(min(loss[peak] - loss[i] - max(least, bounds[peak, i]) for i in pair))
        worst = int(np.argmin(excess))
        if excess[worst] >= 0:
            break
        del bottoms[worst + int(loss[bottoms[worst + 1]] >= loss[bottoms[worst]])]
    return bottoms


def find_barriers(loss: Array, bottoms: list[int]) -> list[int]:
    """Find the highest point between any two neighbouring bottoms."""
    return [left + int(loss[left : right + 1].argmax()) for left, right in pairwise(bottoms)]


def find_rims(loss: Array, bottoms: list[int], peaks: list[int]) -> list[int]:
    """Find the lower one of the two rims of each valley.

    A rim is the highest point up to the neighbouring barrier or the end of the window; a valley
    with its bottom at an end has one within the window.
    """
    edges = [0, *peaks, len(loss) - 1] if bottoms else []
    rims = []
    for i, left, right in zip(bottoms, edges, edges[1:], strict=False):
        sides = [left + int(loss[left : i + 1].argmax()), i + int(loss[i : right + 1].argmax())]
        inside = [j for j in sides if j != i] or sides
        rims.append(min(inside, key=lambda j: loss[j]))
    return rims


def average(alphas: Array, loss: Array) -> Array:
    """Average over a twentieth of the window to both sides, less where the window ends."""
    ends = np.minimum(alphas - alphas[0], alphas[-1] - alphas)
    reach = np.minimum(ends, 0.05 * (alphas[-1] - alphas[0])) * (1 + 1e-9)
    first = np.searchsorted(alphas, alphas - reach)
    last = np.searchsorted(alphas, alphas + reach, side="right")
    total = np.concatenate([[0.0], loss.cumsum()])
    smooth: Array = (total[last] - total[first]) / (last - first)
    return smooth
