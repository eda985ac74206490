"""Names for the shapes of curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mining import InputError
from mining.evaluation.curves import Curve
from mining.explain.labels import Line, Shape, name_shape
from mining.explain.noise import (
    count_turns,
    describe_certainty,
    difference_bounds,
    draw_values,
    is_certain,
)
from mining.explain.valleys import (
    estimate_noise,
    find_barriers,
    find_rims,
    find_valleys,
    visible_loss,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CurveShape:
    """The label of a curve and the features from which it follows.

    Valleys and barriers are the prominent ones, from left to right, with one barrier between
    any two neighbouring valleys.
    """

    label: str  # a ``Shape``, or the number of valleys: ``4-basin``, ``5-basin``, …
    stationary_points: int  # as in the paper; beyond rounding and sampling errors, if any
    valleys: tuple[tuple[float, float], ...]  # (α, loss) of each bottom
    barriers: tuple[tuple[float, float], ...]  # (α, loss) of each peak between valleys
    depths: tuple[float, ...]  # per valley, height of the lower of its two rims above it, nats
    depth_errors: tuple[float, ...]  # their standard errors, 0 if losses are exact
    minimum_alpha: float  # α of the lowest point; ``nan`` if no loss is finite
    theta_is_minimum: bool  # whether θ is lower than all other points beyond rounding and errors
    curvature: float  # d²L/dα² at α = 0 from the points next to it
    asymmetry: float  # in [-1, 1]: mean loss on the right less that on the left, over the range
    nonfinite: int  # points whose loss is not finite
    label_probability: float = 1.0  # share of resampled curves of the same label; 1 if exact

    def __str__(self) -> str:
        return str(self.label)

    @property
    def certain(self) -> bool:
        """Whether at least 95 % of the resampled curves have the same label."""
        return is_certain(self.label_probability)

    @property
    def description(self) -> str:
        """The label, with its probability if it is not certain."""
        return describe_certainty(str(self), self.label_probability)

    @property
    def summary(self) -> str:
        """The description with stationary points, depths and the position of the minimum."""
        points = self.stationary_points
        parts = [self.description, f"{points} stationary point{'s' if points != 1 else ''}"]
        if self.depths:
            parts.append(f"{describe_depths(self.depths, self.depth_errors)} nats deep")
        if not self.theta_is_minimum:
            parts.append(f"lowest at α = {self.minimum_alpha:.3g}")
        return "; ".join(parts)


class Look(NamedTuple):
    """What a classifier sees of the losses along a curve."""

    label: str
    visible: Array  # (T,) the losses, cut off
    span: float  # their range, 0 of a flat curve
    bottoms: list[int]  # of valleys, from left to right
    peaks: list[int]  # between them


@dataclass(frozen=True)
class CurveClassifier:
    """Classifies the shape of a curve.

    The loss is clipped at the chance level log C, since losses above it carry no information about
    the model; ``visible_loss`` defines what counts of a curve that hardly falls below it. A valley
    counts if its prominence is at least ``prominence`` times the remaining range, and seven times
    the noise that differences of neighbouring losses show; see ``find_valleys``. An end of the
    window towards which the curve falls is also the bottom of a valley. ``name_shape`` derives the
    label from the valleys.

    Labels are invariant under α → -α, under a common scaling of the loss and log C, under a finer
    grid, and under noise of 1 % of the range. They are also invariant under a common shift where
    the curve falls clearly below log C or has none. (``exploded`` depends on the ratio of the loss
    and log C.)

    If the losses were estimated (``tolerance``), differences between two points within their
    errors are ignored: they are not barriers, do not place θ above the bottom, and leave a curve
    flat. Curves sampled from the covariance of the errors show how often the label is the same.

    Args:
        prominence: Smallest height of a barrier above a valley, as a fraction of the range.
        explosion: Loss, in units of log C, from which a curve counts as exploded.

    Raises:
        InputError: If ``prominence`` is not between 0 and 1 or ``explosion`` not above 1.
    """

    prominence: float = 0.025
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
        rims = find_rims(visible, found.bottoms, found.peaks)
        lowest, alone = _minimum(curve, bounds)
        return CurveShape(
            label=found.label,
            stationary_points=0 if found.label == Shape.FLAT else stationary,
            valleys=tuple((float(alphas[i]), float(loss[i])) for i in found.bottoms),
            barriers=tuple((float(alphas[i]), float(loss[i])) for i in found.peaks),
            depths=tuple(
                float(visible[j] - visible[i]) for i, j in zip(found.bottoms, rims, strict=True)
            ),
            depth_errors=_depth_errors(curve, visible, found.bottoms, rims),
            minimum_alpha=lowest,
            theta_is_minimum=alone,
            curvature=_curvature(alphas, loss, origin),
            asymmetry=0.0 if flat else _asymmetry(alphas, visible, origin, found.span),
            nonfinite=curve.nonfinite,
            label_probability=probability,
        )

    @staticmethod
    def bounds(curve: Curve) -> Array:
        """Bound what sampling errors add to differences along a curve, shape ``(T, T)``."""
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
        noise = _noise(visible, loss > visible, span)
        bottoms = find_valleys(visible, max(self.prominence * span, 7 * noise), bounds)
        label: str = Shape.EXPLODED
        if not exploded:
            line = Line(curve.alphas.numpy(), visible, origin, bounds)
            label = name_shape(line, bottoms, noise, self.prominence / 2)
        return Look(label, visible, span, bottoms, find_barriers(visible, bottoms))


def classify(curve: Curve) -> CurveShape:
    """Name the shape of ``curve`` with the default classifier."""
    return CurveClassifier()(curve)


def find_stationary_points(loss: Tensor) -> list[int]:
    """Find the points that lie above both neighbours or below both.

    Xu et al. (2024), Appendix A.3: (y_t - y_{t+1}) (y_t - y_{t-1}) > 0, the two ends excluded.

    Args:
        loss: Shape ``(T,)``.

    Returns:
        Their indices; a point next to a non-finite one counts only if the product is positive.
    """
    y = loss.double()
    middle = y[1:-1]
    found: list[int] = (1 + ((middle - y[2:]) * (middle - y[:-2]) > 0).nonzero()[:, 0]).tolist()
    return found


def count_stationary_points(loss: Tensor) -> int:
    """Count the points that ``find_stationary_points`` finds."""
    return len(find_stationary_points(loss))


def describe_depths(depths: Sequence[float], errors: Sequence[float]) -> str:
    """List depths with their standard errors, if they have any: ``0.52 ± 0.01, 0.3 ± 0.01``."""
    pairs = zip(depths, errors, strict=True)
    return ", ".join(
        f"{depth:.3g} ± {error:.1g}" if error else f"{depth:.3g}" for depth, error in pairs
    )


def _noise(visible: Array, hidden: NDArray[np.bool_], span: float) -> float:
    """Estimate the noise that valleys must exceed.

    What is smaller than 0.3 % of the range may be no noise, and what is larger counts as 1 % of it
    at least, since the noise of short curves is estimated to a factor of two. Above 8 %, it is the
    curve that turns as often as its grid allows.
    """
    noise = estimate_noise(visible, hidden)
    if noise > 0.08 * span:
        return 0.0
    return max(noise, 0.01 * span) if noise > 0.003 * span else noise


def _minimum(curve: Curve, bounds: Array) -> tuple[float, bool]:
    """Find α of the lowest point, and whether θ is lower than all others."""
    loss, origin = curve.loss.numpy(), curve.origin
    finite = np.isfinite(loss)
    if not finite.any():
        return math.nan, False
    lowest = float(curve.alphas[int(np.where(finite, loss, np.inf).argmin())])
    if not finite[origin]:
        return lowest, False
    others = finite & (np.arange(len(loss)) != origin)
    rounding = 8 * curve.rounding * abs(float(loss[origin]))
    least = np.maximum(bounds[origin, others], rounding)
    return lowest, bool((loss[others] - loss[origin] > least).all())


def _depth_errors(
    curve: Curve, visible: Array, bottoms: list[int], rims: list[int]
) -> tuple[float, ...]:
    """Compute the standard errors of depths; rims that were cut off have none of their own."""
    errors, loss = curve.loss_error, curve.loss.numpy()
    if errors is None:
        return (0.0,) * len(bottoms)
    return tuple(
        float(errors[i]) if loss[j] > visible[j] else curve.difference_error(i, j)
        for i, j in zip(bottoms, rims, strict=True)
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
