"""What the centre of a surface is: a minimum, a maximum, a saddle."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from mining.classification import CurveClassifier, CurveShape, Shape, visible_loss
from mining.curves import Curve, Surface
from mining.errors import InputError

#: Range of a flat line, as a share of the largest.
_FLAT = 1e-3


class Kind(StrEnum):
    """What θ is on a line through it, or on a surface around it."""

    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    SADDLE = "saddle"  # of a surface: a minimum on one line and a maximum on another
    SLOPE = "slope"  # neither: the loss falls to one side
    FLAT = "flat"


@dataclass(frozen=True)
class Centre:
    """What θ is on a surface, and the curves through it from which this follows."""

    kind: Kind
    lines: Mapping[str, CurveShape]  # x and y, and the diagonals where the grid has them

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.lines.items())
        return f"{self.kind.value} ({shapes})"


def classify_centre(surface: Surface, classifier: CurveClassifier | None = None) -> Centre:
    """Say what θ is on a surface, from the curves along its axes and diagonals.

    θ is a minimum or a maximum where it is one on all lines that are not flat, a saddle where it
    is one on some and the other on others, and on a slope where it is neither on one of its axes,
    or on a diagonal while the axes agree. A line whose loss varies a thousand times less than that
    of another is flat.

    Args:
        surface: With α = 0 and β = 0 among its points.
        classifier: What names the curves.

    Raises:
        InputError: If 0 is not among the points of an axis.
    """
    classifier = CurveClassifier() if classifier is None else classifier
    of_any_scale = replace(classifier, explosion=math.inf)
    curves = {name: visible(curve) for name, curve in lines_through_centre(surface).items()}
    ranges = {name: float(curve.loss.max() - curve.loss.min()) for name, curve in curves.items()}
    kinds = {
        name: Kind.FLAT
        if ranges[name] <= _FLAT * max(ranges.values())
        else kind_on_line(curve, of_any_scale(curve))
        for name, curve in curves.items()
    }
    lines = {name: classifier(curve) for name, curve in lines_through_centre(surface).items()}
    return Centre(_combine(kinds), lines)


def lines_through_centre(surface: Surface) -> dict[str, Curve]:
    """Cut a surface along its axes, and along its diagonals where points lie on them.

    Returns:
        ``x`` and ``y``, curves over α and over β; ``diagonal`` and ``antidiagonal``, over α, of
        the points where β is proportional to α as the extents of the axes are.
    """
    rows, columns = surface.loss.shape
    origin = _index_of_zero(surface.alphas), _index_of_zero(surface.betas)
    cuts = {
        "x": (torch.arange(rows), torch.full((rows,), origin[1])),
        "y": (torch.full((columns,), origin[0]), torch.arange(columns)),
        "diagonal": _diagonal(surface, 1.0),
        "antidiagonal": _diagonal(surface, -1.0),
    }
    return {
        name: Curve(
            alphas=(surface.betas if name == "y" else surface.alphas)[j if name == "y" else i],
            loss=surface.loss[i, j],
            name=name,
            chance_loss=surface.chance_loss,
        )
        for name, (i, j) in cuts.items()
        if len(i) > 2
    }


def visible(curve: Curve) -> Curve:
    """Cut a curve off as the classifier does, so that one that explodes has a shape as well."""
    at_theta = float(curve.loss[curve.origin])
    loss = visible_loss(curve.loss.numpy(), at_theta, curve.chance_loss)
    return replace(curve, loss=torch.from_numpy(loss).nan_to_num(0.0, 0.0))


def kind_on_line(curve: Curve, shape: CurveShape) -> Kind:
    """Say what θ is on a curve: at the bottom of a valley, on a barrier, or between them.

    Among many valleys θ is at the bottom of one in the lowest quarter between it and the barrier
    on the other side of θ, and on the barrier in the highest. At an end of the curve it is neither.
    """
    if not 0 < curve.origin < len(curve.alphas) - 1:
        return Kind.SLOPE
    match shape.label:
        case Shape.V_BASIN | Shape.W_BASIN:
            return Kind.MINIMUM
        case Shape.W_PEAK:
            return Kind.MAXIMUM
        case Shape.V_SIDE | Shape.OTHER:
            return Kind.SLOPE
        case Shape.FLAT | Shape.EXPLODED:
            return Kind.FLAT
    level = float(curve.loss[curve.origin])
    valley = min(shape.valleys, key=lambda point: abs(point[0]))[1]
    barrier = min(shape.barriers, key=lambda point: abs(point[0]))[1]
    height = (level - valley) / (barrier - valley)
    if height <= 0.25:
        return Kind.MINIMUM
    return Kind.MAXIMUM if height >= 0.75 else Kind.SLOPE


def _combine(kinds: Mapping[str, Kind]) -> Kind:
    found = {kind for kind in kinds.values() if kind != Kind.FLAT}
    if not found:
        return Kind.FLAT
    axes = {kinds["x"], kinds["y"]} - {Kind.FLAT}
    if Kind.SLOPE in axes:
        return Kind.SLOPE
    if found >= {Kind.MINIMUM, Kind.MAXIMUM}:
        return Kind.SADDLE
    return Kind.SLOPE if Kind.SLOPE in found else found.pop()


def _diagonal(surface: Surface, sign: float) -> tuple[Tensor, Tensor]:
    """Find the indices of the points on a diagonal."""
    alphas, betas = surface.alphas, surface.betas
    width, height = alphas[-1] - alphas[0], betas[-1] - betas[0]
    distance = (betas[None, :] - sign * alphas[:, None] * height / width).abs()
    i, j = (distance <= 1e-6 * height).nonzero(as_tuple=True)
    return i, j


def _index_of_zero(points: Tensor) -> int:
    (found,) = torch.nonzero(points == 0, as_tuple=True)
    if len(found) == 0:
        raise InputError("The points of both axes must contain 0, where θ is.")
    return int(found[0])
