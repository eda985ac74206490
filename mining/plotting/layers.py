"""Pictures of the spectra of layers."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mining.curvature import SpectralDensity

_COLUMNS = 4
_FLOOR = 1e-10
_STYLES = {"hessian": ("tab:blue", "-"), "gauss_newton": ("tab:orange", "--")}


def draw_layers(
    densities: Mapping[str, Mapping[str, SpectralDensity]],
) -> tuple[Figure, list[Axes]]:
    """Draw spectral densities on logarithmic axes, a panel for each layer.

    Sankar et al. (2021), Fig. 1. Lines are means over the random vectors.

    Args:
        densities: By layer and by operator (``hessian``, ``gauss_newton``, ``residual``).
    """
    rows = -(-len(densities) // _COLUMNS)
    columns = min(_COLUMNS, len(densities))
    picture = Figure(figsize=(3.4 * columns, 2.5 * rows + 0.5), layout="constrained")
    drawn = []
    for number, (layer, operators) in enumerate(densities.items()):
        axes = picture.add_subplot(rows, columns, number + 1)
        peaks = []
        for kind, density in operators.items():
            points = density.grid()
            found = density.evaluate(points).mean(0).clamp(min=_FLOOR)
            color, line = _STYLES.get(kind, ("tab:green", ":"))
            label = kind.replace("_", "-").title()
            axes.plot(points, found, color=color, linestyle=line, linewidth=1, label=label)
            # A single eigenvalue has weight 1/D: far below is the tail of the broadening kernel.
            lowest = 1e-2 / (density.size * density.width * math.sqrt(2 * math.pi))
            peaks.append((lowest, 3 * float(found.max())))
        axes.set_yscale("log")
        axes.set_ylim(max(_FLOOR, min(low for low, _ in peaks)), max(high for _, high in peaks))
        axes.set_title(f"{layer} ({next(iter(operators.values())).size} parameters)", fontsize=8)
        axes.tick_params(labelsize=7)
        if number >= len(densities) - columns:
            axes.set_xlabel("eigenvalue λ", fontsize=8)
        if number % columns == 0:
            axes.set_ylabel("density", fontsize=8)
        drawn.append(axes)
    return picture, drawn
