"""Pictures of surfaces."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from scipy.ndimage import minimum_filter

from mining.evaluation.curves import Surface
from mining.evaluation.grid import index_of_zero
from mining.explain.basins import find_basins
from mining.explain.critical_point import Kind, classify_critical_point
from mining.plotting.layout import explain
from mining.plotting.losses import Array, cap, extent
from mining.plotting.paths import draw_path

_SEQUENTIAL, _DIVERGING = "viridis", "RdBu_r"
#: The smaller side of θ, as a share of the range of a surface, from which colours tell the sides.
_BOTH_SIDES = 0.03
#: A saddle is cut off in 3-D where one side is more than this many times as high as the other.
_STEEP = 4
#: Points of each axis of a surface that is cut off.
_FINE = 50
#: Letters of a name that fits beside 3-D axes.
_LONG = 24
_DOT: dict[str, Any] = {
    "color": "white",
    "markeredgecolor": "black",
    "marker": "o",
    "markersize": 5,
    "linestyle": "none",
}


def draw_surface(
    surface: Surface,
    *,
    title: str = "",
    about: str = "",
    log_scale: bool = False,
    loss_cap: float | None = None,
    colormap: str | None = None,
) -> Figure:
    """Draw a surface as filled contours with θ marked, and in 3-D.

    Several minima inside, by ``find_basins``, are marked, and the saddles at which their basins
    join deeper ones. The title states what kind of critical point θ is, and what is missing or
    clipped. Colours are centred at the loss of θ where the surface goes both above and below it.
    In 3-D a saddle is cut off where it is too steep for its other side to be seen.

    Args:
        surface: The surface; points that are not finite are left blank and counted.
        title: First line of the title.
        about: What to say below the picture.
        log_scale: Logarithmic loss.
        loss_cap: Loss above which the picture is clipped, nats; by default twice the chance level
            if the surface exceeds ten times the chance level.
        colormap: The name of one of matplotlib; by default viridis, and blue to red if centred.
    """
    picture = Figure(figsize=(10, 4.4), layout="constrained")
    options: dict[str, Any] = {"log_scale": log_scale, "loss_cap": loss_cap, "colormap": colormap}
    contours, relief = picture.add_subplot(1, 2, 1), picture.add_subplot(1, 2, 2, projection="3d")
    filled = draw_contours(contours, surface, **options)
    name = "loss" if surface.chance_loss is None else "loss (nats)"
    label = f"log10 of the {name}" if log_scale else name
    if filled is not None:
        add_scale(picture, contours, filled, label)
    draw_relief(relief, surface, **options)
    assert isinstance(relief, Axes3D)
    relief.set_zlabel(label, fontsize=8)
    for axes in (contours, relief):
        for which, name, name_axis in zip(
            ("x: α", "y: β"), surface.names, (axes.set_xlabel, axes.set_ylabel), strict=True
        ):
            told = axes is contours or len(name) <= _LONG  # two long ones overlap in 3-D
            name_axis(f"{which}, direction {name}" if told else which, fontsize=8)
        axes.tick_params(labelsize=7)
    loss_cap = cap(
        surface.loss.numpy(), surface.chance_loss, log_scale=log_scale, loss_cap=loss_cap
    )
    notes = surface_notes(surface, loss_cap)
    picture.suptitle("\n".join(filter(None, [title, ", ".join(notes)])), fontsize=9)
    explain(picture, [contours], about)
    return picture


def draw_contours(
    axes: Axes,
    surface: Surface,
    *,
    log_scale: bool = False,
    loss_cap: float | None = None,
    colormap: str | None = None,
) -> QuadContourSet | None:
    """Draw a surface as filled contours with a dot at θ and its path; see ``draw_surface``.

    Returns:
        The contours, for ``add_scale``; ``None`` if no point is finite.
    """
    mesh = _read_mesh(surface, log_scale=log_scale, loss_cap=loss_cap)
    draw_path(axes, surface)
    axes.plot(0, 0, **_DOT, label="θ")
    if not np.isfinite(mesh.loss).any():
        return None
    _mark_basins(axes, surface)
    filled = axes.contourf(mesh.x, mesh.y, mesh.loss, levels=mesh.levels, **mesh.colors(colormap))
    filled.set_edgecolor("face")  # viewers of PDF show gaps between faces without an edge
    if mesh.centred:
        axes.contour(mesh.x, mesh.y, mesh.loss, levels=[mesh.own], colors="black", linewidths=0.8)
        label = "loss of θ, at which the colours are centred"
        axes.plot([], [], color="black", linewidth=0.8, label=label)
    return filled


def _mark_basins(axes: Axes, surface: Surface) -> None:
    """Mark the minima of several basins, and where these join deeper ones.

    Those at the edge, to which the loss falls, are none that the surface shows.
    """
    found = [basin for basin in find_basins(surface) if not basin.on_edge]
    if len(found) < 2:
        return
    minima = np.array([basin.at for basin in found])
    saddles = np.array([basin.saddle for basin in found if basin.saddle is not None])
    label = f"{len(found)} minima, at least 1 % of the range deep"
    axes.plot(*minima.T, **_DOT | {"marker": "v", "color": "tab:orange"}, label=label)
    axes.plot(*saddles.T, **_DOT | {"marker": "X"}, label="their saddles")


def add_scale(
    picture: FigureBase, axes: Axes, filled: QuadContourSet, label: str | None = None
) -> Colorbar:
    """Draw the scale of the colours of filled contours beside them."""
    scale = picture.colorbar(filled, ax=axes, format="%.3g")
    scale.ax.tick_params(labelsize=7)
    if label is not None:
        scale.set_label(label, fontsize=8)
    return scale


def draw_relief(
    axes: Axes,
    surface: Surface,
    *,
    log_scale: bool = False,
    loss_cap: float | None = None,
    colormap: str | None = None,
) -> None:
    """Draw a surface into 3-D axes with a dot at θ; arguments as ``draw_surface``."""
    assert isinstance(axes, Axes3D)
    mesh = _read_mesh(surface, log_scale=log_scale, loss_cap=loss_cap)
    shown, about = mesh.about_theta()
    axes.set_title(about, fontsize=7)
    axes.computed_zorder = False  # the dot lies on the surface
    axes.plot_surface(*shown, **mesh.colors(colormap), edgecolor="0.3", linewidth=0.15, zorder=1)
    if np.isfinite(mesh.own):
        axes.plot([0], [0], [mesh.own], **_DOT, zorder=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.set_box_aspect(None, zoom=0.85)  # the layout ignores the labels of 3-D axes


@dataclass(frozen=True)
class _Mesh:
    """The points of a surface as they are drawn."""

    x: Array  # (A, B) α
    y: Array  # (A, B) β
    loss: Array  # (A, B) clipped, and logarithmic if asked for
    own: float  # the loss of θ, as drawn; NaN if it is not on the grid or not finite
    kind: Kind | None  # what θ is; None if it is not on the grid

    @property
    def sides(self) -> tuple[float, float]:
        """How far the surface goes below and above θ."""
        low, high = extent(self.loss)
        return self.own - low, high - self.own

    @property
    def centred(self) -> bool:
        """Whether the surface goes both above and below θ by more than a little."""
        least = 0 if self.kind is Kind.SADDLE else _BOTH_SIDES * sum(self.sides)
        return min(self.sides) > least  # not if θ is not there: NaN

    @property
    def levels(self) -> Any:
        """The levels of the contours: a number, or as many below as above the loss of θ."""
        if not self.centred:
            return 24
        low, high = extent(self.loss)
        below, above = np.linspace(low, self.own, 11), np.linspace(self.own, high, 11)
        return np.concatenate([below, above[1:]])

    def colors(self, colormap: str | None) -> dict[str, Any]:
        """Return the colormap and the norm that are drawn with."""
        low, high = extent(self.loss)
        if not self.centred:
            return {"cmap": colormap or _SEQUENTIAL, "norm": Normalize(low, high)}
        return {"cmap": colormap or _DIVERGING, "norm": TwoSlopeNorm(self.own, low, high)}

    def about_theta(self) -> tuple[tuple[Array, Array, Array], str]:
        """Cut off the loss of a saddle or a slope where one side of θ is much higher.

        Returns:
            α, β and the loss, NaN beyond the edge of the cut, and what to say of it.
        """
        whole = self.x, self.y, self.loss
        below, above = self.sides
        if self.kind not in (Kind.SADDLE, Kind.SLOPE) or not self.centred:
            return whole, ""
        low, high = self.own - _STEEP * above, self.own + _STEEP * below
        if not ((self.loss < low) | (self.loss > high)).any():
            return whole, ""
        x, y, loss = (_refine(values) for values in whole)
        beyond = (loss < low) | (loss > high)
        # What has a neighbour within reaches to the edge of the cut.
        hidden = minimum_filter(beyond.astype(np.uint8), size=3, mode="nearest") == 1
        where = f"above {high:.3g}" if above > below else f"below {low:.3g}"
        return (x, y, np.where(hidden, np.nan, loss.clip(low, high))), f"3-D: cut off {where}"


def _refine(values: Array) -> Array:
    """Interpolate on a grid linearly, so that the edge of a cut is smooth."""
    for axis, num in enumerate(values.shape):
        interpolate = partial(np.interp, np.linspace(0, num - 1, _FINE), np.arange(num))
        values = np.apply_along_axis(interpolate, axis, values)
    return values


def _has_origin(surface: Surface) -> bool:
    return all(index_of_zero(points) is not None for points in (surface.alphas, surface.betas))


def _read_mesh(surface: Surface, *, log_scale: bool, loss_cap: float | None) -> _Mesh:
    values = surface.loss.numpy()
    loss = np.where(np.isfinite(values), values, np.nan)
    loss_cap = cap(values, surface.chance_loss, log_scale=log_scale, loss_cap=loss_cap)
    if loss_cap is not None:
        loss = np.minimum(loss, loss_cap)
    if log_scale:
        loss = np.log10(loss)
    x, y = np.meshgrid(surface.alphas.numpy(), surface.betas.numpy(), indexing="ij")
    row, column = index_of_zero(surface.alphas), index_of_zero(surface.betas)
    if row is None or column is None:
        return _Mesh(x, y, loss, math.nan, None)
    kind = classify_critical_point(replace(surface, lines_covariance=None)).kind
    return _Mesh(x, y, loss, float(loss[row, column]), kind)


def surface_notes(surface: Surface, loss_cap: float | None) -> list[str]:
    """State what kind of critical point θ is, and what is missing, estimated or clipped."""
    notes = [f"θ: {classify_critical_point(surface)}"] if _has_origin(surface) else []
    if surface.nonfinite:
        notes.append(f"{surface.nonfinite} points not finite")
    if surface.evaluated is not None:
        share = surface.evaluated.double().mean()
        notes.append(f"{share:.0%} of the points evaluated, the others interpolated")
    if surface.relative_error is not None:
        notes.append(f"standard errors up to {surface.relative_error:.1%} of the loss")
    if loss_cap is not None:
        _, highest = extent(surface.loss.numpy())
        notes.append(f"cut off at {loss_cap:.3g} of {highest:.3g}")
    return notes
