"""Pictures of the curvature of layers: spectra, and numbers over a training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mining.curvature import SpectralDensity
from mining.plotting.layout import explain

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


def draw_layer_history(table: Path, layers: Path, *, title: str = "") -> Figure:
    """Draw the curvature of every layer over the epochs, from the tables of a ``Monitor``.

    Args:
        table: That of the network.
        layers: That of the layers.
        title: Of the picture.
    """
    whole, parts = pd.read_csv(table), pd.read_csv(layers)
    picture = Figure(figsize=(8, 3.6), layout="constrained")
    panels = list(picture.subplots(1, 2))
    names = {"lambda_max": "largest eigenvalue", "trace": "trace"}
    for axes, (column, name) in zip(panels, names.items(), strict=True):
        draw_layer_lines(axes, parts, whole, column)
        axes.set_ylabel(name, fontsize=8)
    add_places(picture, panels)
    explain(picture, panels, "Blocks of the Hessian that belong to one layer each.")
    picture.suptitle(title, fontsize=9)
    return picture


def draw_layer_lines(
    axes: Axes, layers: pd.DataFrame, whole: pd.DataFrame, column: str, label: str = "network"
) -> None:
    """Draw a column over the epochs, a line for each layer and one for the network.

    Args:
        axes: Where to draw.
        layers: ``epoch``, ``place`` and the column, of one training.
        whole: ``epoch`` and the column.
        column: Its name; the axis is logarithmic if all its values are positive.
        label: Of the line of the network.
    """
    colors = matplotlib.colormaps["viridis"]
    for place, rows in layers.groupby("place"):
        axes.plot(rows["epoch"], rows[column], ".-", color=colors(float(str(place))), linewidth=0.9)
    axes.plot(whole["epoch"], whole[column], ".-", color="black", linewidth=1.6, label=label)
    if (layers[column].dropna() > 0).all() and (whole[column].dropna() > 0).all():
        axes.set_yscale("log")
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8, which="both")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def add_places(picture: Figure, panels: list[Axes]) -> None:
    """Put the scale of the colours of layers beside panels."""
    scale = picture.colorbar(ScalarMappable(cmap="viridis"), ax=panels)
    scale.set_label("place of the layer, (l - ½) / L", fontsize=8)
    scale.ax.tick_params(labelsize=7)


def draw_clusters(
    points: np.ndarray, layers: Sequence[str], silhouettes: Sequence[float]
) -> tuple[Figure, list[Axes]]:
    """Draw embedded class means, a panel for each layer; Sankar et al. (2021), Fig. 2.

    Args:
        points: Shape ``(L, C (C - 1), 2)``, those of one class together.
        layers: Names of the layers.
        silhouettes: Of the clusters of each layer; nan where there is none.
    """
    num_classes = round((1 + math.sqrt(1 + 4 * points.shape[1])) / 2)
    rows, columns = -(-len(layers) // _COLUMNS), min(_COLUMNS, len(layers))
    picture = Figure(figsize=(2.6 * columns, 2.5 * rows + 0.5), layout="constrained")
    colors = matplotlib.colormaps["tab10" if num_classes <= 10 else "turbo"]
    drawn = []
    for number, (own, layer, silhouette) in enumerate(
        zip(points, layers, silhouettes, strict=True)
    ):
        axes = picture.add_subplot(rows, columns, number + 1)
        for label, cluster in enumerate(own.reshape(num_classes, num_classes - 1, 2)):
            color = colors(label if num_classes <= 10 else label / (num_classes - 1))
            axes.plot(*cluster.T, ".", color=color, markersize=3, label=f"class {label}")
            axes.plot(*cluster.mean(0), "o", color=color, markersize=6, alpha=0.5)
        axes.set_title(f"{layer}: silhouette {silhouette:.2f}", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        drawn.append(axes)
    return picture, drawn
