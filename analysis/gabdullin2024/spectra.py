"""Spectral densities with their criteria: Figs. 5 to 9, Tables 2 and 4 of Gabdullin (2024)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.records import experiment_runs, point_name
from analysis.scripts import Drawing
from mining.curvature import SpectralDensity
from mining.plotting import draw_density, explain, table
from mining.storage.records import load_record

_COLUMNS = 3
#: What each mode of batch norm is called in the paper.
_MODES = {"batch": "train mode", "frozen": "eval mode", "recalibrate": "recalibrated"}
CRITERIA = ("k_h1", "k_h05", "r_e", "c_t")


def name_of(run: Any) -> str:
    """Say which network a run is of, at which point, and how batch norm is evaluated."""
    model = run.config["model"]
    if model.get("weights") is not None or model.get("pretrained"):
        point = "trained"
    else:
        point = "untrained" if run.config["epoch"] == 0 else point_name(run.config)
    mode = _MODES[run.config["batchnorm"]["mode"]]
    seed = f", seed {run.config['seed']}" if run.config["seed"] else ""
    return f"{run.model}-{run.data}, {point}, {mode}{seed}"


def told(measured: dict[str, Any]) -> str:
    """Write a measurement: in brackets if it does not apply."""
    if measured["value"] is None:
        return f"none: {measured['why']}"
    error = "" if measured["error"] is None else f" ± {measured['error']:.2g}"
    text = f"{measured['value']:.3g}{error}"
    return text if measured["applies"] else f"({text})"


def row(run: Any) -> dict[str, Any]:
    """Collect the criteria of a run, beside its loss and accuracy."""
    metrics = run.metrics
    return {
        "network": name_of(run),
        **{name: told(metrics[name]) for name in CRITERIA},
        "spectrum": metrics["spectrum_type"],
        "accuracy": metrics["accuracy_at_theta"],
        "loss": metrics["loss_at_theta"],
        "images": metrics["num_examples"],
    }


def numbers(run: Any, density: SpectralDensity) -> pd.DataFrame:
    """List the drawn line at 500 points, and the criteria in every row."""
    points = density.grid(500)
    values = {name: run.metrics[name]["value"] for name in CRITERIA}
    errors = {f"{name}_error": run.metrics[name]["error"] for name in CRITERIA}
    about = {"network": name_of(run), **values, **errors}
    about |= {"accuracy": run.metrics["accuracy_at_theta"], "loss": run.metrics["loss_at_theta"]}
    return pd.DataFrame(
        {**about, "eigenvalue": points, "density": density.evaluate(points).mean(0)}
    )


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the spectral density of every run, and list the criteria."""
    runs = list(experiment_runs(experiment, overrides).itertuples())
    lines = math.ceil(len(runs) / _COLUMNS)
    columns = min(_COLUMNS, len(runs))
    picture = Figure(figsize=(4.8 * columns, 3.6 * lines), layout="constrained")
    panels, plotted = list[Axes](), []
    for position, run in enumerate(runs, start=1):
        axes = picture.add_subplot(lines, columns, position)
        density = load_record(Path(run.directory) / "density.npz", SpectralDensity)
        largest, smallest = (run.metrics[f"eigenvalues_{end}"] for end in ("largest", "smallest"))
        draw_density(axes, density, (smallest[0], largest[0]) if smallest else None, density.zero)
        about = ", ".join(f"{name} {told(run.metrics[name])}" for name in ("k_h05", "r_e"))
        axes.set_title(f"{name_of(run)}\n{about}\n{axes.get_title()}", fontsize=7)
        panels.append(axes)
        plotted.append(numbers(run, density))
    explain(picture, panels, "± is the error; a value in brackets does not apply.")
    return Drawing(picture, table([row(run) for run in runs]), pd.concat(plotted))
