"""Figures of many panels: a curve run each, or a surface run each."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from analysis.records import describe, experiment_runs, losses_drawn, tell_apart, window
from analysis.scripts import Drawing
from mining.directions.storage import read_directions
from mining.evaluation.curves import Curve, Surface
from mining.evaluation.storage import load_curves, load_surface
from mining.explain.curve_shape import describe_depths
from mining.plotting import (
    STATIONARY,
    add_scale,
    draw_contours,
    draw_curves,
    draw_relief,
    explain,
    table,
)
from mining.plotting.losses import cap

_EPOCHS = "E: epoch of θ; E': epoch of an independent training."
_COLORS = "1, 2, …: the directions, and their factors, in the order in which titles name them."


def draw_panels(experiment: str, overrides: Sequence[str], columns: int = 4) -> Drawing:
    """Draw a panel for every run of an experiment, and list its curves and surfaces.

    Args:
        experiment: Its name, ``xu2024/fig02`` for instance.
        overrides: What it was run with besides.
        columns: Panels of curves in a row; half as many of surfaces.
    """
    runs = experiment_runs(experiment, overrides)
    curves = list(runs[runs.pipeline == "curve"].itertuples())
    surfaces = list(runs[runs.pipeline == "surface"].itertuples())
    lines = math.ceil(len(curves) / columns), math.ceil(2 * len(surfaces) / columns)
    picture = Figure(figsize=(3.6 * columns, 3.1 * sum(lines) + 0.4), layout="constrained")
    parts = picture.subfigures(2, 1, height_ratios=[max(n, 1e-3) for n in lines])
    drawn = draw_curve_runs(parts[0], curves, lines[0], columns)
    drawn += draw_surface_runs(parts[1], surfaces, lines[1], columns)
    unit = "α: in units of the direction's length × its factor, if any."
    explain(picture, drawn, f"{unit} {explanation(curves, surfaces)}")
    tables = [table([row for run in curves for row in curve_rows(run)])] if curves else []
    tables += [table([surface_row(run) for run in surfaces])] if surfaces else []
    plotted = pd.concat([numbers(run) for run in curves + surfaces])
    return Drawing(picture, "\n".join(tables), plotted)


def draw_curve_runs(
    picture: Figure | SubFigure, runs: Sequence[Any], lines: int, columns: int
) -> list[Axes]:
    """Draw a panel for each curve run, which says all in which the runs differ."""
    drawn = []
    for position, (run, about) in enumerate(zip(runs, tell_apart(runs), strict=True), start=1):
        axes = picture.add_subplot(lines, columns, position)
        curves = curves_of(run)
        draw_curves(axes, curves, legend=False, **losses_drawn(run.config))
        number_curves(axes, curves)
        names = sources(curves) + told_unconverged(run)
        title = f"{about}\n{names}\n{axes.get_title()}"
        axes.set_title(title, fontsize=7)
        drawn.append(axes)
        axes.set_xlabel("α", fontsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    return drawn


def number_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Name the curves of a panel by their numbers, which are the same in all panels."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "."]
    for number, line in enumerate(lines, start=1):
        line.set_label(f"{number}" if len(curves) > 1 else "_nolegend_")


def explanation(curves: Sequence[Any], surfaces: Sequence[Any]) -> str:
    """Say what a reader of the panels of these runs must know besides the legend."""
    several = any(len(run.metrics["directions"]) > 1 for run in curves)
    parts = [_EPOCHS]
    parts += [STATIONARY] if curves else []
    parts += [_COLORS] if several else []
    parts += ["Surfaces: colour and height are the loss (nats)."] if surfaces else []
    return " ".join(parts)


def draw_surface_runs(
    picture: Figure | SubFigure, runs: Sequence[Any], lines: int, columns: int
) -> list[Axes]:
    """Draw contours and relief of each surface run side by side."""
    drawn = []
    for position, (run, about) in enumerate(zip(runs, tell_apart(runs), strict=True)):
        surface = load_surface(Path(run.directory) / "surface.npz")
        flat = picture.add_subplot(lines, columns, 2 * position + 1)
        relief = picture.add_subplot(lines, columns, 2 * position + 2, projection="3d")
        filled = draw_contours(flat, surface, **losses_drawn(run.config))
        draw_relief(relief, surface, **losses_drawn(run.config))
        if filled is not None:
            add_scale(picture, flat, filled)
        for axes in (flat, relief):
            axes.set_xlabel(surface.names[0], fontsize=7)
            axes.set_ylabel(surface.names[1], fontsize=7)
            axes.tick_params(labelsize=6)
        kind = f"θ: {run.metrics['critical_point']}{told_unconverged(run)}{_told_cap(run, surface)}"
        flat.set_title(f"{about}\n{kind}", fontsize=7)
        drawn.append(flat)
    return drawn


def _told_cap(run: Any, surface: Surface) -> str:
    """Say at which loss the picture of a surface run is cut off, if it is."""
    options = losses_drawn(run.config)
    limit = cap(
        surface.loss.numpy(),
        surface.chance_loss,
        log_scale=options["log_scale"],
        loss_cap=options["loss_cap"],
    )
    highest = float(surface.loss[surface.loss.isfinite()].max()) if limit is not None else 0.0
    return "" if limit is None else f", cut off at {limit:.3g} of {highest:.3g}"


def curves_of(run: Any) -> list[Curve]:
    """Read the curves of a run."""
    return load_curves(Path(run.directory) / "curves.npz")


def sources(curves: Sequence[Curve]) -> str:
    """Name the directions of several curves, and their factors."""
    name = curves[0].name if len(curves) == 1 else f"{curves[0].name} to {curves[-1].name}"
    factors = [f"{c.scale:.2g}" for c in curves if c.scale is not None]
    return name + (f" × {', '.join(factors)}" if factors else "")


def unconverged(run: Any) -> list[str]:
    """List the eigenvectors among the directions of a run that did not converge."""
    return [name for name, reached in _eigenvectors(run).items() if not reached]


def told_unconverged(run: Any) -> str:
    """Say in brackets which eigenvectors of a run did not converge, if any."""
    names, num = unconverged(run), len(_eigenvectors(run))
    if not names:
        return ""
    if 1 < len(names) == num:
        return " (none converged)"
    return f" (not converged: {', '.join(names)})"


def _eigenvectors(run: Any) -> dict[str, bool]:
    """Say of each eigenvector among the directions of a run whether it converged."""
    content = read_directions(Path(run.directory) / "directions.pt")
    pairs = zip(content["sources"], content["metadata"], strict=True)
    return {
        source: bool(metadata["converged"]) for source, metadata in pairs if "converged" in metadata
    }


def curve_rows(run: Any) -> list[dict[str, Any]]:
    """Describe each curve of a run."""
    metrics = run.metrics
    return [
        {
            "run": describe(run),
            "direction": direction,
            "window": window(run).removeprefix("α in "),
            "scale": metadata.get("scale", 1.0),
            **({"converged": bool(metadata["converged"])} if "converged" in metadata else {}),
            "shape": label,
            "valleys": len(features["valleys"]),
            "depths": _depths(features),
            "stationary points": points,
            "lowest at α": lowest,
            "loss at θ": metrics["loss_at_theta"],
        }
        for direction, label, points, lowest, features, metadata in zip(
            metrics["directions"],
            metrics["labels"],
            metrics["stationary_points"],
            metrics.get("minimum_alpha", [None] * len(metrics["labels"])),  # not of early runs
            metrics["features"],
            metrics["metadata"],
            strict=True,
        )
    ]


def _depths(features: dict[str, Any]) -> str:
    depths = features["depths"]
    return describe_depths(depths, features.get("depth_errors", [0.0] * len(depths)))


def surface_row(run: Any) -> dict[str, Any]:
    """Describe a surface run."""
    x, y = run.metrics["directions"]
    return {
        "run": describe(run),
        "x": x,
        "y": y,
        "angle": run.metrics["angle"],
        "critical_point": run.metrics["critical_point"],
        "not converged": ", ".join(unconverged(run)),
        **{f"along {line}": label for line, label in run.metrics["labels"].items()},
        "loss at θ": run.metrics["loss_at_theta"],
    }


def numbers(run: Any) -> pd.DataFrame:
    """List the plotted numbers of a run, one row per point."""
    about = {"run": describe(run), "window": window(run).removeprefix("α in ")}
    if run.pipeline == "surface":
        surface: Surface = load_surface(Path(run.directory) / "surface.npz")
        rows, columns = surface.loss.shape
        return pd.DataFrame(
            {
                **about,
                "direction": " × ".join(surface.names),
                "alpha": surface.alphas.repeat_interleave(columns),
                "beta": surface.betas.repeat(rows),
                "loss": surface.loss.flatten(),
            }
        )
    return pd.concat(
        pd.DataFrame(
            {
                **about,
                "direction": curve.name,
                "scale": 1.0 if curve.scale is None else curve.scale,
                "alpha": curve.alphas,
                "loss": curve.loss,
            }
        )
        for curve in curves_of(run)
    )
