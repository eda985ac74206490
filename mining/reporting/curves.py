"""Curves as a page shows them: losses with their errors, the label and what it rests on."""

from typing import Any

import torch
from torch import Tensor

from mining.evaluation.curves import Curve
from mining.explain.curve_shape import CurveShape, classify
from mining.explain.labels import Shape
from mining.plotting.losses import cap
from mining.reporting.encoding import encode

#: What the labels mean, for readers who see them for the first time.
MEANINGS = {
    Shape.V_BASIN: "one valley, with θ at its bottom",
    Shape.V_SIDE: "one valley, with θ on its side: the loss falls to one side of θ",
    Shape.W_BASIN: "two valleys, with θ at the bottom of one",
    Shape.W_PEAK: "two valleys, with θ on the peak between them",
    Shape.VVV_BASIN: "three valleys",
    Shape.CHAOTIC: "far more turns than deep valleys",
    Shape.FLAT: "no variation beyond rounding and sampling errors",
    Shape.EXPLODED: "the loss overflows or leaves its scale",
    Shape.OTHER: "two valleys, with θ neither at a bottom nor on the peak",
}


def meaning(label: str) -> str:
    """Say in a few words what a label means."""
    known = {str(shape): text for shape, text in MEANINGS.items()}
    return known.get(label, f"{label.partition('-')[0]} valleys")


def curve_content(curve: Curve) -> dict[str, Any]:
    """Describe one curve: its arrays, its label and the features of its shape.

    The curves of a surface along its axes are described in the same way. A curve without θ among
    its points has no label, and a reason.
    """
    content = {
        "name": curve.name,
        "cap": cap(curve.loss.numpy(), curve.chance_loss, log_scale=False, loss_cap=None),
        "alphas": encode(curve.alphas),
        "chance": curve.chance_loss,
        "scale": curve.scale,
        "other_alpha": curve.other_alpha,
        **{
            name: encode(getattr(curve, name))
            for name in ("loss", "accuracy", "loss_test", "accuracy_test", "accuracy_error")
        },
        "loss_error": encode(curve.loss_error),
        "loss_test_error": encode(_errors(curve.loss_test_covariance)),
        "numbers": curve.record(),
    }
    return content | shape_content(classify(curve))


def line_content(
    curve: Curve, ends: tuple[tuple[float, float], tuple[float, float]], number: int
) -> dict[str, Any]:
    """Describe a line between two points of a surface.

    Args:
        curve: The line, 0 at the first of the points and 1 at the second.
        ends: (α, β) of the points.
        number: Of the surface on the page.
    """
    (a, b), (c, d) = ends
    content = curve_content(curve)
    if (a, b) != (0.0, 0.0):
        content["meaning"] = content["meaning"].replace("θ", "the first point")
    x, y = a + (c - a) * curve.alphas, b + (d - b) * curve.alphas
    place = {"x": encode(x), "y": encode(y), "share": 1.0, "deviation": 0.0}
    return content | {"group": "drawn lines", "of_surface": number, "place": {str(number): place}}


def shape_content(shape: CurveShape) -> dict[str, Any]:
    """Describe the label of a curve and its features."""
    return {
        "label": str(shape),
        "meaning": meaning(str(shape)),
        "probability": shape.label_probability,
        "certain": shape.certain,
        "stationary_points": shape.stationary_points,
        "valleys": [list(valley) for valley in shape.valleys],
        "barriers": [list(barrier) for barrier in shape.barriers],
        "depths": list(shape.depths),
        "depth_errors": list(shape.depth_errors),
        "minimum_alpha": shape.minimum_alpha,
        "theta_is_minimum": shape.theta_is_minimum,
        "curvature": shape.curvature,
        "asymmetry": shape.asymmetry,
        "nonfinite": shape.nonfinite,
    }


def _errors(covariance: Tensor | None) -> Tensor | None:
    return None if covariance is None else torch.diagonal(covariance).clamp(min=0).sqrt()
