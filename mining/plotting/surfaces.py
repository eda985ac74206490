"""Pictures of surfaces."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D

from mining.evaluation.curves import Surface
from mining.evaluation.grid import index_of_zero
from mining.explain.critical_point import classify_critical_point
from mining.plotting.losses import Array, cap, extent


def draw_surface(
    surface: Surface,
    *,
    title: str = "",
    log_scale: bool = False,
    loss_cap: float | None = None,
    colormap: str | None = None,
) -> Figure:
    """Draw a surface as filled contours with θ marked, and in 3-D.

    The title states the kind of critical point, and whether points are missing or clipped.

    Args:
        surface: The surface; points that are not finite are left blank and counted.
        title: First line of the title.
        log_scale: Logarithmic loss.
        loss_cap: Loss above which the picture is clipped, nats; by default twice the chance level
            if the surface exceeds ten times the chance level.
        colormap: The name of one of matplotlib; by default viridis.
    """
    picture = Figure(figsize=(10, 4.2), layout="constrained")
    options: dict[str, Any] = {"log_scale": log_scale, "loss_cap": loss_cap, "colormap": colormap}
    contours, relief = picture.add_subplot(1, 2, 1), picture.add_subplot(1, 2, 2, projection="3d")
    filled = draw_contours(contours, surface, **options)
    name = "loss" if surface.chance_loss is None else "loss (nats)"
    label = f"log10 of the {name}" if log_scale else name
    if filled is not None:
        picture.colorbar(filled, ax=contours, label=label)
    contours.legend(fontsize=8)
    draw_relief(relief, surface, **options)
    assert isinstance(relief, Axes3D)
    relief.set_zlabel(label, fontsize=8)
    for axes in (contours, relief):
        axes.set_xlabel(f"α along {surface.names[0]}", fontsize=8)
        axes.set_ylabel(f"β along {surface.names[1]}", fontsize=8)
    loss_cap = cap(
        surface.loss.numpy(), surface.chance_loss, log_scale=log_scale, loss_cap=loss_cap
    )
    notes = _surface_notes(surface, loss_cap)
    picture.suptitle("\n".join(filter(None, [title, ", ".join(notes)])), fontsize=9)
    return picture


def draw_contours(
    axes: Axes,
    surface: Surface,
    *,
    log_scale: bool = False,
    loss_cap: float | None = None,
    colormap: str | None = None,
) -> QuadContourSet | None:
    """Draw a surface as filled contours with a red cross at θ; arguments as ``draw_surface``.

    Returns:
        The contours, for a colour bar; ``None`` if no point is finite.
    """
    x, y, loss = _surface_mesh(surface, log_scale=log_scale, loss_cap=loss_cap)
    axes.plot(0, 0, "+", color="red", markersize=10, label="θ")
    if not np.isfinite(loss).any():
        return None
    return axes.contourf(x, y, loss, levels=24, cmap=colormap or "viridis")


def draw_relief(
    axes: Axes,
    surface: Surface,
    *,
    log_scale: bool = False,
    loss_cap: float | None = None,
    colormap: str | None = None,
) -> None:
    """Draw a surface into 3-D axes; arguments as ``draw_surface``."""
    assert isinstance(axes, Axes3D)
    x, y, loss = _surface_mesh(surface, log_scale=log_scale, loss_cap=loss_cap)
    axes.plot_surface(x, y, loss, cmap=colormap or "viridis", linewidth=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.set_box_aspect(None, zoom=0.9)  # the layout ignores the labels of 3-D axes


def _surface_mesh(
    surface: Surface, *, log_scale: bool, loss_cap: float | None
) -> tuple[Array, Array, Array]:
    """Return α, β and the drawn loss, shape ``(A, B)`` each."""
    values = surface.loss.numpy()
    loss = np.where(np.isfinite(values), values, np.nan)
    loss_cap = cap(values, surface.chance_loss, log_scale=log_scale, loss_cap=loss_cap)
    if loss_cap is not None:
        loss = np.minimum(loss, loss_cap)
    if log_scale:
        loss = np.log10(loss)
    x, y = np.meshgrid(surface.alphas.numpy(), surface.betas.numpy(), indexing="ij")
    return x, y, loss


def _surface_notes(surface: Surface, loss_cap: float | None) -> list[str]:
    """State what kind of critical point θ is, and what is missing, estimated or clipped."""
    has_origin = all(
        index_of_zero(points) is not None for points in (surface.alphas, surface.betas)
    )
    notes = [f"critical point: {classify_critical_point(surface)}"] if has_origin else []
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
