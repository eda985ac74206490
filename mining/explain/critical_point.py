"""The kind of critical point that θ is on a surface: minimum, maximum or saddle."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from mining.evaluation.curves import Curve, Surface
from mining.explain.curve_shape import CurveClassifier, CurveShape
from mining.explain.labels import Shape
from mining.explain.noise import describe_certainty, draw_values
from mining.explain.valleys import visible_loss

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
class CriticalPoint:
    """The class of θ on a surface, and the curves through θ from which it follows."""

    kind: Kind
    lines: Mapping[str, CurveShape]  # x and y, and the diagonals where the grid has them
    probability: float = 1.0  # share of resampled surfaces of the same kind; 1 if exact

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {shape.description}" for name, shape in self.lines.items())
        return f"{describe_certainty(self.kind.value, self.probability)} ({shapes})"


def classify_critical_point(
    surface: Surface, classifier: CurveClassifier | None = None
) -> CriticalPoint:
    """Classify θ on a surface as minimum, maximum, saddle or slope.

    The class follows from the lines through θ along the axes and the diagonals of the surface. θ
    is a minimum (or maximum) if it is one on all lines that are not flat, and a saddle if it is a
    minimum on some and a maximum on others. It is a slope if it is neither on one of the axes, or
    if it is neither on a diagonal while the axes agree. A line is flat if its loss varies a
    thousand times less than that of another line.

    Args:
        surface: A surface with α = 0 and β = 0 among its points.
        classifier: Classifies the curves along the lines; ``None``: the default classifier.

    Raises:
        InputError: If 0 is not among the points of an axis.
    """
    classifier = CurveClassifier() if classifier is None else classifier
    curves = lines_through_theta(surface)
    lines = {name: classifier(curve) for name, curve in curves.items()}
    kind = _kind(curves, classifier)
    if surface.lines_covariance is None:
        return CriticalPoint(kind, lines)
    together = torch.cat([curve.loss for curve in curves.values()])
    sizes = [len(curve.loss) for curve in curves.values()]
    kinds = []
    for drawn in torch.from_numpy(draw_values(together, surface.lines_covariance)):
        pairs = zip(curves.items(), drawn.split(sizes), strict=True)
        redrawn = {name: replace(curve, loss=loss) for (name, curve), loss in pairs}
        kinds.append(_kind(redrawn, classifier))
    return CriticalPoint(kind, lines, kinds.count(kind) / len(kinds))


def _kind(curves: Mapping[str, Curve], classifier: CurveClassifier) -> Kind:
    """Say what θ is from the curves through it."""
    of_any_scale = replace(classifier, explosion=math.inf)
    curves = {name: visible(curve) for name, curve in curves.items()}
    ranges = {name: float(curve.loss.max() - curve.loss.min()) for name, curve in curves.items()}
    kinds = {
        name: Kind.FLAT
        if ranges[name] <= _FLAT * max(ranges.values())
        else kind_on_line(curve, of_any_scale)
        for name, curve in curves.items()
    }
    return _combine(kinds)


def lines_through_theta(surface: Surface) -> dict[str, Curve]:
    """Cut a surface along its axes, and along its diagonals where points lie on them.

    Returns:
        ``x`` and ``y``, curves over α and over β; ``diagonal`` and ``antidiagonal``, over α, of
        the points where β is proportional to α as the extents of the axes are.
    """
    lines = surface.lines
    ends = iter(torch.tensor([len(i) for i, _ in lines.values()]).cumsum(0).tolist())
    curves = {}
    for name, (i, j) in lines.items():
        curves[name] = Curve(
            alphas=surface.betas[j] if name == "y" else surface.alphas[i],
            loss=surface.loss[i, j],
            name=name,
            chance_loss=surface.chance_loss,
            rounding=surface.rounding,
            loss_covariance=_part(surface.lines_covariance, next(ends), len(i)),
        )
    return curves


def _part(covariance: Tensor | None, end: int, num: int) -> Tensor | None:
    return None if covariance is None else covariance[end - num : end, end - num : end]


def visible(curve: Curve) -> Curve:
    """Cut a curve off as the classifier does, so that one that explodes has a shape as well."""
    at_theta = float(curve.loss[curve.origin])
    loss = visible_loss(curve.loss.numpy(), at_theta, curve.chance_loss)
    covariance = curve.loss_covariance
    if covariance is not None:
        seen = torch.from_numpy(~(curve.loss.numpy() > loss))
        covariance = covariance * (seen[:, None] & seen)
    finite = torch.from_numpy(loss).nan_to_num(0.0, 0.0)
    return replace(curve, loss=finite, loss_covariance=covariance)


def kind_on_line(curve: Curve, classifier: CurveClassifier) -> Kind:
    """Say what θ is on a curve: at the bottom of a valley, on a barrier, or between them.

    Among many valleys θ is at the bottom of one in the lowest quarter between it and the barrier
    on the other side of θ, and on the barrier in the highest. At an end of the curve it is neither.
    """
    if not 0 < curve.origin < len(curve.alphas) - 1:
        return Kind.SLOPE
    loss = curve.loss.numpy()
    look = classifier.look(curve, loss, classifier.bounds(curve))
    match look.label:
        case Shape.V_BASIN | Shape.W_BASIN:
            return Kind.MINIMUM
        case Shape.W_PEAK:
            return Kind.MAXIMUM
        case Shape.V_SIDE | Shape.OTHER:
            return Kind.SLOPE
        case Shape.FLAT | Shape.EXPLODED:
            return Kind.FLAT
    valley = loss[min(look.bottoms, key=lambda i: abs(curve.alphas[i]))]
    # A chaotic curve may have a single deep valley.
    peaks = look.peaks or [int(look.visible.argmax())]
    barrier = look.visible[min(peaks, key=lambda i: abs(curve.alphas[i]))]
    height = (loss[curve.origin] - valley) / (barrier - valley)
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
