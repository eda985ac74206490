"""What pictures of curves and of surfaces have in common: range and colours of the losses."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mining.evaluation.curves import CEILING, EXPLODED

Array = NDArray[np.float64]

#: The chance level is drawn unless its distance from the lowest loss exceeds this multiple of the
#: range of the curves.
_CHANCE_STRETCH = 3

#: Colormaps of fewer colours are lists of colours that differ, others are ramps.
_FEW_COLORS = 64


def draw_chance_level(axes: Axes, losses: Array, chance: float | None) -> None:
    """Mark the chance-level loss by a dotted line, unless all losses are far below it."""
    lowest, highest = extent(losses)
    if chance is not None and chance - lowest < _CHANCE_STRETCH * (highest - lowest):
        label = "chance-level loss log C (horizontal)"
        axes.axhline(chance, color="black", linestyle=":", linewidth=1, label=label)


def mark_theta(axes: Axes) -> None:
    """Mark α = 0 by a dotted line."""
    axes.axvline(0, color="black", linestyle=":", linewidth=1, label="θ (vertical)")


def extent(losses: Array) -> tuple[float, float]:
    """Find the lowest and the highest finite loss, 0 and 0 if there is none."""
    finite = losses[np.isfinite(losses)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def cap(
    losses: Array, chance: float | None, *, log_scale: bool, loss_cap: float | None
) -> float | None:
    """Choose the loss at which to clip a picture; ``None`` if all losses are below it."""
    _, highest = extent(losses)
    if loss_cap is None and chance is not None and not log_scale and highest > EXPLODED * chance:
        loss_cap = CEILING * chance
    return loss_cap if loss_cap is not None and highest > loss_cap else None


def line_colors(colormap: str, num: int) -> Array:
    """Choose the colours of ``num`` lines, shape ``(num, 4)``: RGBA between 0 and 1.

    Args:
        colormap: The name of one of matplotlib. One of few colours (tab10) gives them in their
            order; of any other the lightest tenth is left out, which is hard to see on paper.
        num: Of lines.
    """
    found = colormaps[colormap]
    if found.N < _FEW_COLORS:
        return np.asarray(found(np.arange(num) % found.N), dtype=np.float64)
    return np.asarray(found(np.linspace(0, 0.9, num)), dtype=np.float64)
