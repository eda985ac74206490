"""Adaptive and critical sharpness of a sample of examples, with their errors."""

import math

import torch
from torch import Tensor

from mining.curvature.critical_sharpness import critical_sharpness
from mining.explain.adaptive_sharpness import adaptive_sharpness
from mining.explain.groups import Groups
from mining.explain.quantity import Quantity
from mining.explain.resampling import spread_of_groups
from mining.explain.stationarity import bracketed
from mining.landscape import Landscape

#: A sharpness with a larger relative error is called unresolved.
_RESOLVED = 0.5
#: Rounding errors of a loss, in units of the spacing of numbers.
_ROUNDINGS = 4


def measure_adaptive_sharpness(
    landscape: Landscape, groups: Groups, others: Groups | None, rho: float, steps: int
) -> Quantity:
    """Measure adaptive sharpness; see ``adaptive_sharpness`` and ``measure_extremes``.

    The perturbation is found on the examples of ``groups``; its rise on the others is the lower
    end of a bracket.
    """
    theta = landscape.theta
    found = adaptive_sharpness(landscape.restrict(groups.batches), rho, steps)
    moved = theta + found.perturbation
    own = groups.losses(moved) - groups.losses(theta)
    if not own.isfinite().all():
        return Quantity.missing(f"The loss overflows within relative changes of {rho:g}.")
    elsewhere = None
    if others is not None:
        elsewhere = (others.losses(moved) - others.losses(theta), others)
    return bracketed(float(groups.mean(own)), own, groups, elsewhere)


def measure_critical_sharpness(
    groups: Groups, update: Tensor, gradient: Tensor
) -> dict[str, Quantity]:
    """Measure critical sharpness and the largest fall of the loss along an update.

    The rise r of the loss at the critical step has a sampling error, and moves the step by
    r / (dL/dη), where the slope is minus that at θ on a quadratic. The fall is the largest of the
    steps that were tried and half of the critical step, at which that of a quadratic is largest.

    Args:
        groups: All examples in groups.
        update: Δ, shape ``(D,)``.
        gradient: At θ, shape ``(D,)``.

    Returns:
        ``critical_sharpness`` and ``gradient_fall``.
    """
    theta = groups.parts[0].theta
    seen: dict[float, Tensor] = {}

    def loss(step: float) -> float:
        if step not in seen:
            seen[step] = groups.losses(theta - step * update)
        return float(groups.mean(seen[step]))

    slope = -float(gradient.double() @ update.double())
    rounding = _ROUNDINGS * torch.finfo(theta.dtype).eps * abs(loss(0.0))
    found = critical_sharpness(loss, slope, rounding=rounding)
    if found.step is not None:
        loss(found.step / 2)
    lowest = min(seen, key=lambda step: _or_infinite(loss(step)))
    fall = seen[0.0] - seen[lowest]
    spread = spread_of_groups(fall, groups.shares) if len(groups) > 1 else None
    falls = {"gradient_fall": Quantity(float(groups.mean(fall)), spread)}
    if found.step is None or found.sharpness is None or found.error is None:
        return {"critical_sharpness": Quantity.missing(found.why), **falls}
    at_step = found.step
    nearest = min((step for step in seen if step > 0), key=lambda step: abs(step - at_step))
    rises = seen[nearest] - seen[0.0]
    factor = 2 / found.step**2 / -slope
    sampling = factor * spread_of_groups(rises, groups.shares) if len(groups) > 1 else None
    error = found.error if sampling is None else max(found.error, float(sampling.norm()))
    resolved = error <= _RESOLVED * found.sharpness
    why = "" if resolved else "The fall of the loss along the gradient is within its error."
    sharpness = Quantity(found.sharpness, sampling, found.error, applies=resolved, why=why)
    return {"critical_sharpness": sharpness, **falls}


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
