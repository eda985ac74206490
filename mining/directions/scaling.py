"""Factors by which directions are scaled, so that their curvature is visible in a curve."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from mining import InputError
from mining.directions.base import Direction, Scale
from mining.landscape import Landscape

#: Second-order change at α = 1, as a fraction of the loss at θ, for positive curvature.
_RISE = 1.0
#: The same for negative curvature. The loss cannot fall below zero: higher-order terms stop its
#: fall and soon raise it above the peak. With a fifth both minima of a w-peak are visible.
_FALL = 0.2


def with_scales(
    landscape: Landscape, directions: Sequence[Direction], scale: Scale
) -> list[Direction]:
    """Store the factor by which each direction is to be scaled as its ``scale``.

    Args:
        landscape: The point θ and the loss.
        directions: Of shape ``(D,)`` each.
        scale: One factor for all; or ``curvature``: for each direction ε the factor s at which the
            second-order change ½ s² |εᵀHε| equals the loss at θ if εᵀHε is positive, and a fifth
            of it if εᵀHε is negative.

    Returns:
        The same vectors. ``stretch`` applies the factor.

    Raises:
        InputError: If the scale is not positive, or the loss has no curvature along a direction.
    """
    if scale != "curvature" and not (isinstance(scale, int | float) and 0 < scale < math.inf):
        raise InputError(f"scale must be a positive number or 'curvature', got {scale!r}.")
    if scale == 1.0 or not directions:
        return list(directions)
    if scale != "curvature":
        return [replace(d, scale=float(scale)) for d in directions]
    loss = abs(float(landscape.loss(landscape.theta)))
    vectors = torch.stack([d.vector.to(landscape.theta) for d in directions], 1)
    products = landscape.hessian() @ vectors
    curvatures = (vectors.double() * products.double()).sum(0).tolist()
    rounding = 10 * torch.finfo(vectors.dtype).eps * vectors.norm(dim=0) * products.norm(dim=0)
    scaled = []
    for direction, curvature, limit in zip(directions, curvatures, rounding, strict=True):
        if abs(curvature) <= limit or loss == 0:
            raise InputError(
                f"grid.scale=curvature: the curvature along {direction.name} is {curvature:.3g} "
                f"and the loss at theta {loss:.3g}, so it defines no scale. Give a number instead."
            )
        share = _RISE if curvature > 0 else _FALL
        factor = math.sqrt(2 * share * loss / abs(curvature))
        scaled.append(
            replace(
                direction, scale=factor, metadata={**direction.metadata, "curvature": curvature}
            )
        )
    return scaled


def stretch(direction: Direction) -> Direction:
    """Multiply a direction by its ``scale``, if it has one that was not yet applied."""
    scale, other = direction.scale, direction.other_alpha
    if scale is None or direction.stretched:
        return direction
    return replace(
        direction,
        vector=direction.vector * scale,
        stretched=True,
        other_alpha=None if other is None else other / scale,
    )
