"""Value explosion: where a loss leaves its scale, and which module's outputs do so first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mining import InputError
from mining.evaluation.curves import EXPLODED, Curve, Surface
from mining.functional.activations import Activation
from mining.landscape import Landscape


@dataclass(frozen=True)
class Explosion:
    """Where the loss of a curve or surface first exceeds a bound, or is not finite.

    Of all such points of the grid the one nearest to θ, by √(α² + β²). ``None`` if there is none.
    """

    bound: float | None  # nats; None: only losses that are not finite count
    start: float | None = None  # its distance, in units of the directions
    at: tuple[float, ...] | None = None  # its α, and β of a surface
    loss: float | None = None  # its loss, nats, which may be inf or nan
    nonfinite_start: float | None = None  # distance of the nearest loss that is not finite

    def __bool__(self) -> bool:
        return self.start is not None


@dataclass(frozen=True)
class Overflow:
    """Which module's outputs grow beyond a multiple of their size at θ."""

    factor: float  # the multiple
    module: str | None  # the first beyond it, in the order in which modules finish
    ratio: float | None  # its root mean square over that at θ
    largest_module: str | None  # the one that grows most
    largest_ratio: float | None
    nonfinite_module: str | None  # the first with an output that is not finite


def find_explosion(found: Curve | Surface, bound: float | None = None) -> Explosion:
    """Find where a loss leaves its scale ("value explosion": Gabdullin, 2024, Sec. 2.3).

    Args:
        found: The curve or surface.
        bound: Loss beyond which it has, nats; by default ten times the chance-level loss log C,
            from which pictures are cut off. If there is no chance level, only losses that are not
            finite count.

    Raises:
        InputError: If the bound is not positive.
    """
    if bound is not None and not 0 < bound < math.inf:
        raise InputError(f"bound must be positive, got {bound}.")
    if bound is None and found.chance_loss is not None:
        bound = EXPLODED * found.chance_loss
    if isinstance(found, Curve):
        points = found.alphas[:, None]
    else:
        points = torch.cartesian_prod(found.alphas, found.betas)
    loss = found.loss.flatten()
    distances = points.square().sum(1).sqrt()
    lost = ~torch.isfinite(loss)
    beyond = lost if bound is None else lost | (loss > bound)
    nearest = _nearest(distances, beyond)
    if nearest is None:
        return Explosion(bound)
    first_lost = _nearest(distances, lost)
    return Explosion(
        bound,
        float(distances[nearest]),
        tuple(points[nearest].tolist()),
        float(loss[nearest]),
        None if first_lost is None else float(distances[first_lost]),
    )


def _nearest(distances: Tensor, chosen: Tensor) -> int | None:
    if not bool(chosen.any()):
        return None
    return int(torch.where(chosen, distances, math.inf).argmin())


def find_overflow(
    landscape: Landscape,
    theta: Tensor,
    factor: float = 10.0,
    reference: Mapping[str, Activation] | None = None,
) -> Overflow:
    """Find the module whose outputs leave their scale first.

    The model runs on all examples of the landscape at θ and at the point, each with the statistics
    of its batch-norm policy. The root mean square of the outputs of each module is compared.
    Modules whose outputs are zero at θ have no scale and are compared for finiteness alone.

    Args:
        landscape: The model and its examples.
        theta: The point, shape ``(D,)``.
        factor: Multiple of the root mean square at θ.
        reference: What ``landscape.activations(landscape.theta)`` returned, if it is known.

    Raises:
        InputError: If the factor is not above 1.
    """
    if not 1 < factor < math.inf:
        raise InputError(f"factor must exceed 1, got {factor}.")
    before = landscape.activations(landscape.theta) if reference is None else reference
    after = landscape.activations(theta)
    ratios = {
        name: found.rms / before[name].rms if found.finite else math.inf
        for name, found in after.items()
        if name in before and before[name].finite and before[name].rms > 0
    }
    first = next((name for name, ratio in ratios.items() if ratio > factor), None)
    largest = max(ratios, key=lambda name: ratios[name], default=None)
    return Overflow(
        factor,
        first,
        None if first is None else ratios[first],
        largest,
        None if largest is None else ratios[largest],
        next((name for name, found in after.items() if not found.finite), None),
    )
