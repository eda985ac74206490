"""Pictures of curves."""

import textwrap
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from mining.evaluation.curves import Curve
from mining.explain.curve_shape import classify
from mining.plotting.losses import cap, draw_chance_level, extent, line_colors, mark_theta

#: Letters that fit above a picture of one panel.
_WIDEST = 75

#: What a picture says of the numbers in its title.
STATIONARY = "[n]: number of stationary points (maxima and minima), mean over the curves."


def draw_curves(
    axes: Axes,
    curves: Sequence[Curve],
    *,
    log_scale: bool = False,
    loss_cap: float | None = None,
    template: Sequence[tuple[float, float]] | None = None,
    legend: bool = True,
    colormap: str | None = None,
) -> None:
    """Draw curves in the style of Xu et al. (2024).

    A dotted horizontal line marks the chance-level loss log C, unless the curves are so far below
    it that they would look flat. Dotted vertical lines mark θ (black) and, if the direction leads
    to one, the other checkpoint (red). Bands of estimated losses are two standard errors wide on
    both sides. The title has the labels and, in brackets, the average number of stationary points;
    the probability of a label is added if sampling errors could change it. Points whose loss is
    not finite leave a gap and are counted in the title. Dashed lines are the second set of
    examples.

    ``STATIONARY`` says what the brackets mean, for the explanation of a picture.

    Args:
        axes: Where to draw.
        curves: At least one.
        log_scale: Logarithmic loss axis.
        loss_cap: Loss above which the picture is clipped, nats; by default twice the chance level
            if a curve exceeds ten times the chance level.
        template: α and loss of the points of the template to which the curves were mined.
        legend: Whether to name the directions.
        colormap: The name of one of matplotlib, which gives the colours of the curves; by default
            its usual colours.
    """
    if colormap is not None:
        axes.set_prop_cycle(color=line_colors(colormap, len(curves)))
    shapes = [classify(curve) for curve in curves]
    names = [curve.name for curve in curves]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    for curve, name, shape in zip(curves, names, shapes, strict=True):
        scale = curve.scale
        factor = "" if scale is None else f" × {scale:.3g}"
        _draw_curve(axes, curve, f"{name}{factor}: {shape.description}")
    if template is not None:
        label = "template that the curve was mined to follow"
        axes.plot(*zip(*template, strict=True), color="grey", linewidth=1, label=label)
    losses, chance = torch.cat([curve.loss for curve in curves]).numpy(), curves[0].chance_loss
    lowest, highest = extent(losses)
    mark_theta(axes)
    for other in {curve.other_alpha for curve in curves if curve.other_alpha is not None}:
        label = "where the direction leads (vertical)"
        axes.axvline(other, color="red", linestyle=":", linewidth=1, label=label)
    draw_chance_level(axes, losses, chance)
    average = np.mean([shape.stationary_points for shape in shapes])
    labels = Counter(sorted(str(shape) for shape in shapes))
    listed = [f"{num} {label}" if len(labels) > 1 else label for label, num in labels.items()]
    notes = [f"{', '.join(listed)} [{average:.{int(len(curves) > 1)}f}]", *_curve_notes(curves)]
    uncertain = sum(not shape.certain for shape in shapes)
    if uncertain:
        notes.append(f"{uncertain} of {len(shapes)} labels uncertain")
    if log_scale:
        axes.set_yscale("log")
    loss_cap = cap(losses, chance, log_scale=log_scale, loss_cap=loss_cap)
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
        (dashed,) = axes.plot(curve.alphas, test, "--", linewidth=1.0, color=line.get_color())
        if "--" not in [other.get_linestyle() for other in axes.get_lines()[:-1]]:
            dashed.set_label("test examples")


def _curve_notes(curves: Sequence[Curve]) -> list[str]:
    """List what a reader of the picture must know: missing points, and standard errors."""
    nonfinite = sum(curve.nonfinite for curve in curves)
    notes = [f"{nonfinite} points not finite"] if nonfinite else []
    errors = [curve.relative_error for curve in curves if curve.relative_error is not None]
    if errors:
        notes.append(f"bands: 2 standard errors (up to {max(errors):.1%} of the loss)")
    return notes
