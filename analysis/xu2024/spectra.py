"""Spectral densities and loss changes under Gaussian noise: Fig. 13 of Xu et al. (2024)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.records import describe, experiment_runs
from analysis.scripts import Drawing
from mining.curvature import SpectralDensity
from mining.explain.second_order import Perturbations
from mining.plotting import draw_density, draw_perturbations, explain, table
from mining.storage.records import load_record

#: What both runs of a row must have in common.
_POINT = ("model", "data", "seed", "epoch", "checkpoint", "train", "split", "batchnorm")


def points(runs: pd.DataFrame) -> list[tuple[str, Any, Any]]:
    """Pair the spectrum and the perturbation run of every θ, in the order of the runs."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs.itertuples():
        point = str([run.config[key] for key in _POINT])
        found.setdefault(point, {})[run.pipeline] = run
    return [
        (describe(pair["spectrum"]), pair["spectrum"], pair["perturbation"])
        for pair in found.values()
        if len(pair) == 2
    ]


def spectrum_row(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Collect what describes a spectrum."""
    largest, smallest = metrics["eigenvalues_largest"], metrics["eigenvalues_smallest"]
    return {
        "point": name,
        "loss": metrics["loss_at_theta"],
        "largest": largest[0] if largest else None,
        "smallest": smallest[0] if smallest else None,
        "trace": metrics["trace"],
        "±": metrics["trace_standard_error"],
        "trace by density": metrics["density_trace"]["mean"],
        "± ": metrics["density_trace"]["standard_error"],
        "not converged": sum(
            not c for end in ("largest", "smallest") for c in metrics[f"converged_{end}"]
        ),
    }


def perturbation_rows(name: str, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Collect, for every λ, how the loss changes and what was predicted."""
    columns = {
        "λ": "scales",
        "mean": "mean",
        "predicted mean": "predicted_mean",
        "deviation": "deviation",
        "second order": "second_order_deviation",
        "predicted": "predicted_deviation",
        "as Eq. 4 prints": "printed_deviation",
        "rising": "share_rising",
    }
    return [
        {"point": name, **{column: metrics[key][index] for column, key in columns.items()}}
        for index in range(len(metrics["scales"]))
    ]


def density_columns(density: SpectralDensity) -> dict[str, Any]:
    """Give the drawn line at 500 points."""
    points = density.grid(500)
    return {"eigenvalue": points, "density": density.evaluate(points).mean(0)}


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw a row of a spectrum and of loss changes for every θ, and list both."""
    pairs = points(experiment_runs(experiment, overrides))
    if not pairs:
        raise FileNotFoundError("No point has both a spectrum and a perturbation run yet.")
    picture = Figure(figsize=(14, 3.4 * len(pairs)), layout="constrained")
    lines = picture.subfigures(len(pairs), squeeze=False)[:, 0]
    changes, densities, panels = [], [], list[Axes]()
    for (name, spectrum, perturbation), line in zip(pairs, lines, strict=True):
        left, right = line.subfigures(1, 2, width_ratios=[1, 2])
        axes = left.add_subplot()
        largest = spectrum.metrics["eigenvalues_largest"]
        smallest = spectrum.metrics["eigenvalues_smallest"]
        density = load_record(Path(spectrum.directory) / "density.npz", SpectralDensity)
        densities.append(pd.DataFrame({"point": name, **density_columns(density)}))
        draw_density(axes, density, (smallest[0], largest[0]) if smallest else None)
        axes.set_title(f"{name}\n{axes.get_title()}", fontsize=8)
        record = Path(perturbation.directory) / "perturbations.npz"
        panels += [axes, *draw_perturbations(right, load_record(record, Perturbations), title=name)]
        changes += perturbation_rows(name, perturbation.metrics)
    explain(picture, panels, "E: epoch of θ.")
    spectra = table([spectrum_row(name, spectrum.metrics) for name, spectrum, _ in pairs])
    tables = f"{spectra}\n\nChange of the loss at θ + λε (nats):\n{table(changes)}"
    return Drawing(picture, tables, pd.concat([*densities, pd.DataFrame(changes)]))
