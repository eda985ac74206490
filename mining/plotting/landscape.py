"""Pictures of curves, surfaces, trainings and angles."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

from mining.evaluation.curves import CEILING, Curve, Surface
from mining.evaluation.grid import index_of_zero
from mining.explain.critical_point import classify_critical_point
from mining.explain.curve_shape import classify
from mining.storage.files import read_arrays, write_atomically

Array = NDArray[np.float64]

#: The chance level is drawn unless its distance from the lowest loss exceeds this multiple of the
#: range of the curves.
_CHANCE_STRETCH = 3

#: Letters that fit above a picture of one panel.
_WIDEST = 75


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write_atomically(path, buffer.getbuffer())


def draw_curves(
    axes: Axes,
    curves: Sequence[Curve],
    *,
    log_scale: bool = False,
    loss_cap: float | None = None,
    template: Sequence[tuple[float, float]] | None = None,
    legend: bool = True,
) -> None:
    """Draw curves in the style of Xu et al. (2024).

    A dotted horizontal line marks the chance-level loss log C, unless the curves are so far below
    it that they would look flat. Dotted vertical lines mark θ (black) and, if the direction leads
    to one, the other checkpoint (red). Bands of estimated losses are two standard errors wide on
    both sides. The title has the labels and, in brackets, the average number of stationary points;
    the probability of a label is added if sampling errors could change it. Points whose loss is
    not finite leave a gap and are counted in the title. Dashed lines are the second set of
    examples.

    Args:
        axes: Where to draw.
        curves: At least one.
        log_scale: Logarithmic loss axis.
        loss_cap: Loss above which the picture is clipped, nats; by default twice the chance level
            if a curve exceeds ten times the chance level.
        template: α and loss of the points of the template to which the curves were mined.
        legend: Whether to name the directions.
    """
    shapes = [classify(curve) for curve in curves]
    names = [curve.name for curve in curves]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    for curve, name, shape in zip(curves, names, shapes, strict=True):
        scale = curve.scale
        factor = "" if scale is None else f" × {scale:.3g}"
        _draw_curve(axes, curve, f"{name}{factor}: {shape.description}")
    if template is not None:
        axes.plot(*zip(*template, strict=True), color="grey", linewidth=1, label="template")
    losses, chance = torch.cat([curve.loss for curve in curves]).numpy(), curves[0].chance_loss
    lowest, highest = _extent(losses)
    axes.axvline(0, color="black", linestyle=":", linewidth=1)
    for other in {curve.other_alpha for curve in curves if curve.other_alpha is not None}:
        axes.axvline(other, color="red", linestyle=":", linewidth=1)
    draw_chance_level(axes, losses, chance)
    average = np.mean([shape.stationary_points for shape in shapes])
    labels = sorted({shape.label.value for shape in shapes})
    notes = [f"{', '.join(labels)} [{average:.{int(len(curves) > 1)}f}]", *_curve_notes(curves)]
    uncertain = sum(not shape.certain for shape in shapes)
    if uncertain:
        notes.append(f"{uncertain} of {len(shapes)} labels uncertain")
    if log_scale:
        axes.set_yscale("log")
    loss_cap = _cap(losses, chance, log_scale=log_scale, loss_cap=loss_cap)
    if loss_cap is not None and lowest < loss_cap:
        axes.set_ylim(lowest - (0 if log_scale else 0.05 * (loss_cap - lowest)), loss_cap)
        notes.append(f"cut off at {loss_cap:.3g} of {highest:.3g}")
    axes.set_title(textwrap.fill(", ".join(notes), _WIDEST), fontsize=9)
    unit = "the direction's length"
    if any(curve.scale is not None for curve in curves):
        unit += " × its factor"
    axes.set_xlabel(f"α, in units of {unit}", fontsize=8)
    axes.set_ylabel("loss" if chance is None else "loss (nats)", fontsize=8)
    axes.tick_params(labelsize=8)
    if legend:
        axes.legend(fontsize=7, loc="best")


def _draw_curve(axes: Axes, curve: Curve, label: str) -> None:
    """Draw one curve with its band and, dashed, the second set of examples."""
    loss = curve.loss.masked_fill(~curve.loss.isfinite(), np.nan)
    (line,) = axes.plot(curve.alphas, loss, marker=".", markersize=4, linewidth=1.2, label=label)
    if curve.loss_error is not None:
        low, high = loss - 2 * curve.loss_error, loss + 2 * curve.loss_error
        axes.fill_between(curve.alphas, low, high, color=line.get_color(), alpha=0.3, lw=0)
    if curve.loss_test is not None:
        test = curve.loss_test.masked_fill(~curve.loss_test.isfinite(), np.nan)
        axes.plot(curve.alphas, test, linestyle="--", linewidth=1.0, color=line.get_color())


def _curve_notes(curves: Sequence[Curve]) -> list[str]:
    """List what a reader of the picture must know: missing points, and standard errors."""
    nonfinite = sum(curve.nonfinite for curve in curves)
    notes = [f"{nonfinite} points not finite"] if nonfinite else []
    errors = [curve.relative_error for curve in curves if curve.relative_error is not None]
    if errors:
        notes.append(f"bands: 2 standard errors (up to {max(errors):.1%} of the loss)")
    return notes


def draw_chance_level(axes: Axes, losses: Array, chance: float | None) -> None:
    """Mark the chance-level loss by a dotted line, unless all losses are far below it."""
    lowest, highest = _extent(losses)
    if chance is not None and chance - lowest < _CHANCE_STRETCH * (highest - lowest):
        axes.axhline(chance, color="black", linestyle=":", linewidth=1)


def _extent(losses: Array) -> tuple[float, float]:
    """Find the lowest and the highest finite loss, 0 and 0 if there is none."""
    finite = losses[np.isfinite(losses)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _cap(
    losses: Array, chance: float | None, *, log_scale: bool, loss_cap: float | None
) -> float | None:
    """Choose the loss at which to clip a picture; ``None`` if all losses are below it."""
    _, highest = _extent(losses)
    if loss_cap is None and chance is not None and not log_scale and highest > 10 * chance:
        loss_cap = CEILING * chance
    return loss_cap if loss_cap is not None and highest > loss_cap else None


def draw_surface(
    surface: Surface, *, title: str = "", log_scale: bool = False, loss_cap: float | None = None
) -> Figure:
    """Draw a surface as filled contours with θ marked, and in 3-D.

    The title states what kind of critical point θ is, and what is missing or clipped.

    Args:
        surface: The surface; points that are not finite are left blank and counted.
        title: First line of the title.
        log_scale: Logarithmic loss.
        loss_cap: Loss above which the picture is clipped, nats; by default twice the chance level
            if the surface exceeds ten times the chance level.
    """
    picture = Figure(figsize=(10, 4.2), layout="constrained")
    contours, relief = picture.add_subplot(1, 2, 1), picture.add_subplot(1, 2, 2, projection="3d")
    filled = draw_contours(contours, surface, log_scale=log_scale, loss_cap=loss_cap)
    name = "loss" if surface.chance_loss is None else "loss (nats)"
    label = f"log10 of the {name}" if log_scale else name
    if filled is not None:
        picture.colorbar(filled, ax=contours, label=label)
    contours.legend(fontsize=8)
    draw_relief(relief, surface, log_scale=log_scale, loss_cap=loss_cap)
    assert isinstance(relief, Axes3D)
    relief.set_zlabel(label, fontsize=8)
    for axes in (contours, relief):
        axes.set_xlabel(f"α along {surface.names[0]}", fontsize=8)
        axes.set_ylabel(f"β along {surface.names[1]}", fontsize=8)
    loss_cap = _cap(
        surface.loss.numpy(), surface.chance_loss, log_scale=log_scale, loss_cap=loss_cap
    )
    notes = _surface_notes(surface, loss_cap)
    picture.suptitle("\n".join(filter(None, [title, ", ".join(notes)])), fontsize=9)
    return picture


def draw_contours(
    axes: Axes, surface: Surface, *, log_scale: bool = False, loss_cap: float | None = None
) -> QuadContourSet | None:
    """Draw a surface as filled contours with a red cross at θ; arguments as ``draw_surface``.

    Returns:
        The contours, for a colour bar; ``None`` if no point is finite.
    """
    x, y, loss = _surface_mesh(surface, log_scale=log_scale, loss_cap=loss_cap)
    axes.plot(0, 0, "+", color="red", markersize=10, label="θ")
    if not np.isfinite(loss).any():
        return None
    return axes.contourf(x, y, loss, levels=24, cmap="viridis")


def draw_relief(
    axes: Axes, surface: Surface, *, log_scale: bool = False, loss_cap: float | None = None
) -> None:
    """Draw a surface into 3-D axes; arguments as ``draw_surface``."""
    assert isinstance(axes, Axes3D)
    x, y, loss = _surface_mesh(surface, log_scale=log_scale, loss_cap=loss_cap)
    axes.plot_surface(x, y, loss, cmap="viridis", linewidth=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.set_box_aspect(None, zoom=0.9)  # the layout ignores the labels of 3-D axes


def _surface_mesh(
    surface: Surface, *, log_scale: bool, loss_cap: float | None
) -> tuple[Array, Array, Array]:
    """Return α, β and the drawn loss, shape ``(A, B)`` each."""
    values = surface.loss.numpy()
    loss = np.where(np.isfinite(values), values, np.nan)
    loss_cap = _cap(values, surface.chance_loss, log_scale=log_scale, loss_cap=loss_cap)
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
        _, highest = _extent(surface.loss.numpy())
        notes.append(f"cut off at {loss_cap:.3g} of {highest:.3g}")
    return notes


def draw_history(path: Path, *, title: str = "", log_scale: bool = False) -> Figure:
    """Draw loss and accuracy per epoch from the ``history.csv`` of a training."""
    history = pd.read_csv(path)
    picture = Figure(figsize=(8, 3.4), layout="constrained")
    for position, quantity in enumerate(("loss", "accuracy")):
        axes = picture.add_subplot(1, 2, position + 1)
        for split in ("train", "test"):
            column = f"{split}_{quantity}"
            if column in history:
                axes.plot(history["epoch"], history[column], label=split)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss (nats)" if quantity == "loss" else "accuracy")
        if log_scale and quantity == "loss":
            axes.set_yscale("log")
        axes.legend()
    last = history.iloc[-1]
    accuracy = f", test accuracy {last['test_accuracy']:.2%}" if "test_accuracy" in last else ""
    picture.suptitle(
        f"{title or path.parent.parent.name}: {len(history)} epochs{accuracy}", fontsize=10
    )
    return picture


def draw_mining(path: Path, *, title: str = "") -> Figure:
    """Draw objective and norm per epoch from the ``history.csv`` of mined directions."""
    history = pd.read_csv(path)
    picture = Figure(figsize=(8, 3.4), layout="constrained")
    for position, (column, name) in enumerate(
        (("objective", "objective (nats), mean over the epoch"), ("norm", "length ‖ε‖"))
    ):
        axes = picture.add_subplot(1, 2, position + 1)
        for number, rows in history.groupby("direction"):
            axes.plot(rows["epoch"], rows[column], label=f"direction {number}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        if history["direction"].nunique() > 1:
            axes.legend()
    picture.suptitle(title, fontsize=9)
    return picture


_ANGLE_NAMES = {
    "gaussian_gradient": "Gaussian and batch gradient",
    "gaussian_checkpoint": "Gaussian and difference to the last checkpoint",
    "gradient_checkpoint": "batch gradient and difference to the last checkpoint",
}


def draw_angles(picture: FigureBase, path: Path, *, title: str = "") -> None:
    """Draw the distributions of an ``angles.npz`` into a figure; Xu et al. (2024), Fig. 5."""
    arrays = read_arrays(path)
    for position, (key, name) in enumerate(_ANGLE_NAMES.items()):
        axes = picture.add_subplot(1, 3, position + 1)
        angles = arrays[key]
        axes.hist(angles, bins=20)
        axes.axvline(90, color="black", linestyle=":", linewidth=1)
        axes.set_title(f"{name}\n[{angles.min():.2f}°, {angles.max():.2f}°]", fontsize=8)
        axes.set_xlabel("angle (degrees)", fontsize=8)
        axes.set_ylabel("draws", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(useOffset=False)
    picture.suptitle(f"{title}: {len(angles)} draws", fontsize=9)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as a plain-text table, one column per key."""
    return pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.4g}")
