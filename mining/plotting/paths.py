"""Paths of trainings in pictures of surfaces."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from mining.evaluation.curves import Surface
from mining.plotting.losses import Array

#: Points of a path that are named; of longer ones the first, the last and some between them.
_NAMED = 8
#: Names closer to each other than this share of the picture would cover each other.
_CLOSE = 0.05
_OUTLINE: dict[str, Any] = {"path_effects": [withStroke(linewidth=2.5, foreground="white")]}


def draw_path(axes: Axes, surface: Surface) -> None:
    """Draw the path of a surface into its contours, with the names of its points.

    Points off the edge are not drawn. The legend says how many there are, and how far the path is
    from the plane.
    """
    if surface.path is None or surface.path_names is None or surface.path_deviation is None:
        return
    x, y = surface.path.numpy().T
    limits = [(float(points[0]), float(points[-1])) for points in (surface.alphas, surface.betas)]
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    sizes = np.array([high - low for low, high in limits])
    # The end of a component of the path is at 1, up to rounding.
    inside = [
        (low - 1e-6 * size <= c) & (c <= high + 1e-6 * size)
        for c, (low, high), size in zip((x, y), limits, sizes, strict=True)
    ]
    within = inside[0] & inside[1]
    deviation = float(surface.path_deviation.max())
    label = f"path, projected: off the plane by at most {deviation:.1%} of its extent"
    if not within.all():
        label += f", {int((~within).sum())} of {len(x)} beyond the edge"
    axes.plot(x, y, color="black", marker="o", markersize=3, linewidth=1.2, label=label, **_OUTLINE)
    for number in _choose(np.column_stack([x, y]) / sizes, within):
        axes.annotate(
            surface.path_names[number],
            (x[number], y[number]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
            annotation_clip=True,
            **_OUTLINE,
        )


def _choose(places: Array, within: Any) -> list[int]:
    """Choose the points that are named: the ends, and others that are not close to them.

    Args:
        places: Of n points, shape ``(n, 2)``, as shares of the picture.
        within: Which of them are in it, shape ``(n,)``.
    """
    last = len(places) - 1
    spread = np.linspace(0, last, min(_NAMED, last + 1)).round().astype(int).tolist()
    chosen: list[int] = []
    for number in dict.fromkeys([0, last, *spread]):
        far = all(np.linalg.norm(places[number] - places[n]) > _CLOSE for n in chosen)
        if within[number] and far:
            chosen.append(number)
    return chosen
