"""Names for the shapes of curves."""

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import find_peaks
from torch import Tensor

from mining import InputError
from mining.evaluation.curves import Curve
from mining.explain.noise import (
    count_turns,
    describe_certainty,
    difference_bounds,
    draw_values,
    is_certain,
)

Array = NDArray[np.float64]


class Shape(StrEnum):
    """The shapes of Xu et al. (2024), Sec. 2, and what else a curve can be."""

    V_BASIN = "v-basin"  # one valley, θ at its bottom
    V_SIDE = "v-side"  # one valley, θ on its side
    W_BASIN = "w-basin"  # two valleys, θ at the bottom of one
    W_PEAK = "w-peak"  # θ on the peak between two valleys
    VVV_BASIN = "vvv-basin"  # three valleys
    MULTI_BASIN = "multi-basin"  # four or five valleys
    CHAOTIC = "chaotic"  # six valleys or more
    FLAT = "flat"  # no variation beyond rounding and sampling errors
    EXPLODED = "exploded"  # the loss overflows or leaves its scale
    OTHER = "other"  # two valleys, θ neither at a bottom nor on the peak


@dataclass(frozen=True)
class CurveShape:
    """The label of a curve and the features from which it follows.

    Valleys and barriers are the prominent ones, from left to right, with one barrier between
    any two neighbouring valleys.
    """

    label: Shape
    stationary_points: int  # as in the paper; beyond rounding and sampling errors, if any
    valleys: tuple[tuple[float, float], ...]  # (α, loss) of each bottom
    barriers: tuple[tuple[float, float], ...]  # (α, loss) of each peak between valleys
    depths: tuple[float, ...]  # per valley, height of the lower of its two rims above it, nats
    curvature: float  # d²L/dα² at α = 0 from the points next to it
    asymmetry: float  # in [-1, 1]: mean loss on the right less that on the left, over the range
    nonfinite: int  # points whose loss is not finite
    label_probability: float = 1.0  # share of resampled curves of the same label; 1 if exact

    def __str__(self) -> str:
        return self.label.value

    @property
    def certain(self) -> bool:
        """Whether at least 95 % of the resampled curves have the same label."""
        return is_certain(self.label_probability)

    @property
    def description(self) -> str:
        """The label, with its probability if it is not certain."""
        return describe_certainty(self.label.value, self.label_probability)


class Look(NamedTuple):
    """What a classifier sees of the losses along a curve."""

    label: Shape
    visible: Array  # (T,) the losses, cut off
    span: float  # their range, 0 of a flat curve
    bottoms: list[int]  # of valleys, from left to right
    peaks: list[int]  # between them


@dataclass(frozen=True)
class CurveClassifier:
    """Classifies the shape of a curve.

    The loss is clipped at the chance level log C, since losses above it carry no information about
    the model. (If θ is above log C by more than the curve ever falls below it, nothing is clipped.)
    A valley counts if its prominence is at least ``prominence`` times the remaining range. An end
    of the window towards which the curve falls is also the bottom of a valley.

    With one valley, θ is at its bottom if its loss is within half that prominence of the bottom,
    where noise is averaged over a twentieth of the window on both sides. With two, θ is at a
    bottom if its loss is in the lowest quarter between bottom and peak, and on the peak if it is
    in the highest quarter. Labels are therefore invariant under α → -α, under a common scaling or
    shift of the loss and log C, under a finer grid, and under noise of 1 % of the range.
    (Only ``exploded`` depends on the ratio of the loss and log C.)

    If the losses were estimated (``tolerance``), differences between two points within their
    errors are ignored: they are not barriers, do not place θ above the bottom, and leave a curve
    flat. Curves sampled from the covariance of the errors show how often the label is the same.

    Args:
        prominence: Smallest height of a barrier above a valley, as a fraction of the range. With
            noise of 1 %, two points of equal loss differ by 8 % in fewer than one of 10⁷ cases.
        explosion: Loss, in units of log C, from which a curve counts as exploded.

    Raises:
        InputError: If ``prominence`` is not between 0 and 1 or ``explosion`` not above 1.
    """

    prominence: float = 0.08
    explosion: float = 1e3

    def __post_init__(self) -> None:
        if not 0 < self.prominence < 1:
            raise InputError(f"prominence must lie between 0 and 1, got {self.prominence}.")
        if not self.explosion > 1:
            raise InputError(f"explosion must exceed 1, got {self.explosion}.")

    def __call__(self, curve: Curve) -> CurveShape:
        """Classify ``curve``.

        Raises:
            InputError: If α = 0 is not among its points.
        """
        loss, origin, bounds = curve.loss.numpy(), curve.origin, self.bounds(curve)
        found = self.look(curve, loss, bounds)
        probability, estimated = 1.0, curve.loss_covariance is not None
        if curve.loss_covariance is not None:
            drawn = draw_values(curve.loss, curve.loss_covariance)
            labels = [self.look(curve, row, bounds).label for row in drawn]
            probability = labels.count(found.label) / len(labels)
        alphas, visible = curve.alphas.numpy(), found.visible
        flat = found.span == 0
        stationary = count_turns(loss, bounds) if estimated else count_stationary_points(curve.loss)
        return CurveShape(
            label=found.label,
            stationary_points=0 if found.label is Shape.FLAT else stationary,
            valleys=tuple((float(alphas[i]), float(loss[i])) for i in found.bottoms),
            barriers=tuple((float(alphas[i]), float(loss[i])) for i in found.peaks),
            depths=_depths(visible, found.bottoms, found.peaks),
            curvature=_curvature(alphas, loss, origin),
            asymmetry=0.0 if flat else _asymmetry(alphas, visible, origin, found.span),
            nonfinite=curve.nonfinite,
            label_probability=probability,
        )

    @staticmethod
    def bounds(curve: Curve) -> Array:
        """Bound the sampling errors of differences between points of a curve, ``(T, T)``."""
        loss = curve.loss.numpy()
        visible = visible_loss(loss, loss[curve.origin], curve.chance_loss)
        return difference_bounds(curve.loss_covariance, loss > visible)

    def look(self, curve: Curve, loss: Array, bounds: Array) -> Look:
        """Find label, valleys and barriers of losses at the points of a curve.

        Args:
            curve: Its points and its chance-level loss.
            loss: Shape ``(T,)``, that of the curve or another.
            bounds: What ``bounds`` gave.
        """
        chance, origin = curve.chance_loss, curve.origin
        finite = np.isfinite(loss)
        scale = np.abs(loss[finite]).max(initial=0.0)
        exploded = not finite.all() or (chance is not None and scale > self.explosion * chance)
        visible = visible_loss(loss, loss[origin], chance)
        span = float(visible.max() - visible.min()) if finite[origin] else 0.0
        # Less than the rounding of the losses is no variation.
        least = max(8 * curve.rounding * scale, bounds[visible.argmax(), visible.argmin()])
        if not span > least:
            return Look(Shape.EXPLODED if exploded else Shape.FLAT, visible, 0.0, [], [])
        tolerance = self.prominence * span
        bottoms = _valleys(visible, tolerance, bounds)
        peaks = [
            left + 1 + int(visible[left + 1 : right].argmax()) for left, right in pairwise(bottoms)
        ]
        if exploded:
            label = Shape.EXPLODED
        else:
            alphas = curve.alphas.numpy()
            label = self._label(alphas, visible, origin, bottoms, peaks, tolerance, bounds)
        return Look(label, visible, span, bottoms, peaks)

    @staticmethod
    def _label(
        alphas: Array,
        loss: Array,
        origin: int,
        bottoms: list[int],
        peaks: list[int],
        tolerance: float,
        bounds: Array,
    ) -> Shape:
        if len(bottoms) > 5:
            return Shape.CHAOTIC
        if len(bottoms) > 3:
            return Shape.MULTI_BASIN
        if len(bottoms) == 3:
            return Shape.VVV_BASIN
        if len(bottoms) == 1:
            smooth = _average(alphas, loss)
            # The plain loss decides where averaging would blunt a valley with unequal slopes.
            height = min(values[origin] - values.min() for values in (loss, smooth))
            within_errors = loss[origin] - loss[bottoms[0]] <= bounds[origin, bottoms[0]]
            at_bottom = height <= tolerance / 2 or within_errors
            return Shape.V_BASIN if at_bottom else Shape.V_SIDE
        (peak,) = peaks
        # The valley in which θ lies is the one on its side of the peak.
        bottom = bottoms[0] if origin <= peak else bottoms[1]
        height, below = loss[origin] - loss[bottom], loss[peak] - loss[origin]
        margin = max(tolerance, 0.25 * (loss[peak] - loss[bottom]))
        if height <= min(max(margin, bounds[origin, bottom]), below):
            return Shape.W_BASIN
        if bottoms[0] < origin < bottoms[1] and below <= max(margin, bounds[origin, peak]):
            return Shape.W_PEAK
        return Shape.OTHER


def classify(curve: Curve) -> CurveShape:
    """Classify the shape of ``curve`` with the default classifier."""
    return CurveClassifier()(curve)


def count_stationary_points(loss: Tensor) -> int:
    """Count the points that lie above both neighbours or below both.

    Xu et al. (2024), Appendix A.3: (y_t - y_{t+1}) (y_t - y_{t-1}) > 0, the two ends excluded.

    Args:
        loss: Shape ``(T,)``.

    Returns:
        The count; a point next to a non-finite one counts only if the product is positive.
    """
    y = loss.double()
    middle = y[1:-1]
    return int(((middle - y[2:]) * (middle - y[:-2]) > 0).sum())


def visible_loss(loss: Array, at_theta: float, chance: float | None) -> Array:
    """Clip a loss at the chance level, or at the loss of θ, and at its largest finite value.

    If θ is above the chance level by more than the curve ever falls below it, only losses that
    are not finite are clipped.

    Args:
        loss: Shape ``(T,)``.
        at_theta: The loss of θ.
        chance: The chance-level loss, if there is one.

    Returns:
        Shape ``(T,)``, finite where any of ``loss`` is.
    """
    finite = loss[np.isfinite(loss)]
    cap = finite.max(initial=0.0)
    if chance is not None and chance - finite.min(initial=np.inf) > at_theta - chance:
        cap = min(cap, max(chance, at_theta))
    visible: Array = np.minimum(np.where(np.isfinite(loss), loss, np.inf), cap)
    return visible


def _valleys(loss: Array, tolerance: float, bounds: Array) -> list[int]:
    """Find the bottoms of valleys at least ``tolerance`` deep, ends of the window included.

    Of two that no barrier divides by more than ``bounds``, shape ``(T, T)``, the lower one counts.
    """
    rim = loss.max()
    padded = np.concatenate([[rim], loss, [rim]])
    found, _ = find_peaks(-padded, prominence=tolerance)
    bottoms = [int(i) - 1 for i in found]
    # Of two equally low neighbours find_peaks takes both for deep, however low the barrier.
    merged = bottoms[:1]
    for right in bottoms[1:]:
        left = merged[-1]
        if loss[left : right + 1].max() - max(loss[left], loss[right]) >= tolerance:
            merged.append(right)
        elif loss[right] < loss[left]:
            merged[-1] = right
    while len(merged) > 1:
        excess = []  # of each barrier over what errors explain
        for left, right in pairwise(merged):
            peak = left + int(loss[left : right + 1].argmax())
            excess.append(min(loss[peak] - loss[i] - bounds[peak, i] for i in (left, right)))
        worst = int(np.argmin(excess))
        if excess[worst] > 0:
            break
        del merged[worst + int(loss[merged[worst + 1]] >= loss[merged[worst]])]
    return merged


def _average(alphas: Array, loss: Array) -> Array:
    """Average over a twentieth of the window to both sides, less where the window ends."""
    ends = np.minimum(alphas - alphas[0], alphas[-1] - alphas)
    reach = np.minimum(ends, 0.05 * (alphas[-1] - alphas[0])) * (1 + 1e-9)
    first = np.searchsorted(alphas, alphas - reach)
    last = np.searchsorted(alphas, alphas + reach, side="right")
    total = np.concatenate([[0.0], loss.cumsum()])
    average: Array = (total[last] - total[first]) / (last - first)
    return average


def _depths(loss: Array, bottoms: list[int], peaks: list[int]) -> tuple[float, ...]:
    edges = [0, *peaks, len(loss) - 1] if bottoms else []
    return tuple(
        float(min(loss[left : i + 1].max(), loss[i : right + 1].max()) - loss[i])
        for i, left, right in zip(bottoms, edges, edges[1:], strict=False)
    )


def _curvature(alphas: Array, loss: Array, origin: int) -> float:
    """Second divided difference at θ; ``nan`` where θ is an end of the window."""
    if not 0 < origin < len(alphas) - 1:
        return math.nan
    left, right = alphas[origin] - alphas[origin - 1], alphas[origin + 1] - alphas[origin]
    with np.errstate(invalid="ignore"):
        slopes = (loss[origin + 1] - loss[origin]) / right, (loss[origin] - loss[origin - 1]) / left
        return float(2 * (slopes[0] - slopes[1]) / (left + right))


def _asymmetry(alphas: Array, loss: Array, origin: int, span: float) -> float:
    """Compare the mean loss on both sides as far as the shorter side reaches."""
    reach = min(-alphas[0], alphas[-1])
    if reach <= 0:
        return math.nan
    points = torch.linspace(0, float(reach), 101, dtype=torch.float64).numpy()
    right, left = np.interp(points, alphas, loss), np.interp(-points, alphas, loss)
    return float((right.mean() - left.mean()) / span)
