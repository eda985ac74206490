"""The loss around θ: the width of curves along random directions, and the way to another θ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mining.directions import Gaussian
from mining.evaluation.curves import Curve
from mining.evaluation.evaluator import Evaluator
from mining.explain.curve_shape import classify
from mining.explain.groups import Groups
from mining.explain.quantity import Quantity
from mining.explain.resampling import spread_of_groups
from mining.landscape import Landscape


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Curves along filter-normalized Gaussian directions."""

    curves: tuple[Curve, ...]
    labels: tuple[str, ...]  # one a curve
    width: Quantity  # mean over the curves, in α; its error is over directions


def measure_surroundings(
    landscape: Landscape,
    num_curves: int,
    num_points: int,
    generator: torch.Generator,
    *,
    progress: bool = False,
) -> Surroundings:
    """Evaluate curves along Gaussian directions with filter normalization, from α = -1 to 1.

    Args:
        landscape: Of the examples on which the curves are evaluated.
        num_curves: Number of directions.
        num_points: Points of each curve.
        generator: Of the directions.
        progress: Whether to show a progress bar.
    """
    directions = Gaussian("filter").directions(landscape, num_curves, generator=generator)
    alphas = torch.linspace(-1, 1, num_points, dtype=torch.float64)
    curves = tuple(Evaluator(landscape, progress=progress).curves(directions, alphas))
    labels = tuple(str(classify(curve)) for curve in curves)
    return Surroundings(curves, labels, _width(curves, landscape.chance_loss))


def width_of(curve: Curve, level: float) -> tuple[float, bool]:
    """Measure how far around θ the loss stays below a level, by linear interpolation.

    Returns:
        The distance in α between the nearest crossings on the two sides, and whether both lie
        within the curve: otherwise its end counts.
    """
    alphas, loss, origin = curve.alphas.numpy(), curve.loss.numpy(), curve.origin
    above = ~(loss <= level)  # a loss that overflows, too
    reach, inside = 0.0, True
    for side in (range(origin, len(loss)), range(origin, -1, -1)):
        beyond = [i for i in side if above[i]]
        if not beyond:
            reach, inside = reach + abs(float(alphas[side[-1]])), False
            continue
        outer = beyond[0]
        inner = outer - side.step
        if outer == origin:
            continue
        share = (level - loss[inner]) / (loss[outer] - loss[inner])
        share = share if np.isfinite(loss[outer]) else 0.0
        reach += abs(float(alphas[inner] + share * (alphas[outer] - alphas[inner])))
    return reach, inside


def _width(curves: Sequence[Curve], chance: float | None) -> Quantity:
    if chance is None:
        return Quantity.missing("The loss has no chance level, to which widths are related.")
    at_theta = float(curves[0].loss[curves[0].origin])
    if not at_theta < chance:
        return Quantity.missing("The loss at theta is not below the chance level.")
    level = (at_theta + chance) / 2
    widths, inside = zip(*(width_of(curve, level) for curve in curves), strict=True)
    values = torch.tensor(widths, dtype=torch.float64)
    if len(values) > 1:
        shares = torch.full_like(values, 1 / len(values))
        sampling = spread_of_groups(values, shares)
    else:
        sampling = None
    why = "" if all(inside) else "The loss stays low up to an end of the curve: it is wider."
    return Quantity(float(values.mean()), sampling, applies=all(inside), why=why)


def measure_barrier(groups: Groups, theta: Tensor, other: Tensor, num_points: int) -> Quantity:
    """Measure the barrier on the straight line to another θ.

    It is the largest excess of the loss over its linear interpolation between the two ends.
    Entezari et al. (2022), The Role of Permutation Invariance in Linear Mode Connectivity, Eq. 1.

    Args:
        groups: The examples.
        theta: One end, shape ``(D,)``.
        other: The other end, shape ``(D,)``.
        num_points: Points on the line, both ends included, at least 3.
    """
    shares = torch.linspace(0, 1, num_points, dtype=torch.float64)
    losses = torch.stack([groups.losses(torch.lerp(theta, other, s)) for s in shares.tolist()])
    excess = losses - (1 - shares[:, None]) * losses[0] - shares[:, None] * losses[-1]
    if not excess.isfinite().all():
        return Quantity.missing("The loss overflows on the line to the other checkpoint.")
    means = groups.mean(excess.T)
    highest = int(means.argmax())
    sampling = spread_of_groups(excess[highest], groups.shares) if len(groups) > 1 else None
    return Quantity(float(means[highest]), sampling)
