"""Surfaces as a page shows them, with the path on them and the curves along their axes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mining.evaluation.curves import Surface
from mining.evaluation.grid import index_of_zero
from mining.explain.basins import find_basins
from mining.explain.critical_point import (
    Kind,
    classify_critical_point,
    lines_through_theta,
)
from mining.plotting.losses import cap
from mining.plotting.surfaces import surface_notes
from mining.reporting.curves import curve_content
from mining.reporting.encoding import encode

_ARRAYS = ("loss", "accuracy", "loss_test", "accuracy_test", "loss_error", "accuracy_error")
#: What θ can be on a surface, in words.
_KINDS = {
    Kind.MINIMUM: "a minimum",
    Kind.MAXIMUM: "a maximum",
    Kind.SADDLE: "a saddle",
    Kind.SLOPE: "on a slope",
    Kind.FLAT: "on flat ground",
}


def surface_content(
    surface: Surface, basins: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Describe a surface: arrays, path, basins, what θ is on it, and where a picture is cut off.

    Args:
        surface: The surface.
        basins: Those that its run recorded; ``None`` finds them.
    """
    losses, chance = surface.loss.numpy(), surface.chance_loss
    if basins is None:
        drawn = bool(surface.loss.isfinite().any())
        basins = [basin.record() for basin in find_basins(surface)] if drawn else []
    content: dict[str, Any] = {
        "names": list(surface.names),
        "alphas": encode(surface.alphas),
        "betas": encode(surface.betas),
        "chance": chance,
        "cap": cap(losses, chance, log_scale=False, loss_cap=None),
        **{name: encode(getattr(surface, name)) for name in _ARRAYS},
        "evaluated": encode(surface.evaluated),
        "notes": surface_notes(surface, None),
        "basins": list(basins),
        "kind": None,
        "path": None,
    }
    if has_theta(surface):
        found = classify_critical_point(surface)
        content["kind"] = {
            "name": found.kind.value,
            "words": _KINDS[found.kind],
            "probability": found.probability,
            "lines": {name: shape.description for name, shape in found.lines.items()},
        }
    if surface.path is not None and surface.path_names is not None:
        content["path"] = {
            "names": list(surface.path_names),
            "x": encode(surface.path[:, 0]),
            "y": encode(surface.path[:, 1]),
            "deviation": encode(surface.path_deviation),
        }
    return content


def line_contents(surface: Surface, number: int) -> list[dict[str, Any]]:
    """Describe the curves along the axes and the diagonals of a surface.

    Args:
        surface: The surface.
        number: Of the surface on the page, on which the curves lie.
    """
    if not has_theta(surface):
        return []
    x, y = surface.names
    names = {"x": f"along x: {x}", "y": f"along y: {y}"}
    found = []
    for name, curve in lines_through_theta(surface).items():
        i, j = surface.lines[name]
        fields = ("accuracy", "accuracy_error", "loss_test", "accuracy_test")
        known = {field: getattr(surface, field) for field in fields}
        more: dict[str, Any] = {f: v[i, j] for f, v in known.items() if v is not None}
        content = curve_content(replace(curve, name=names.get(name, name), **more))
        content["place"] = {
            str(number): {
                "x": encode(surface.alphas[i]),
                "y": encode(surface.betas[j]),
                "share": 1.0,
                "deviation": 0.0,
            }
        }
        found.append(content | {"group": "lines of the surface", "of_surface": number})
    return found


def has_theta(surface: Surface) -> bool:
    """Whether θ is among the points of a surface."""
    return all(index_of_zero(points) is not None for points in (surface.alphas, surface.betas))
