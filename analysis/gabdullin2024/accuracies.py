"""Criteria against accuracy on other images: Section 4 of Gabdullin (2024)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.gabdullin2024.spectra import told
from analysis.records import epoch_of, experiment_runs
from analysis.scripts import Drawing
from mining.plotting import explain, table
from mining.storage.identity import data_name

#: What is drawn against accuracy, and how its axis is called.
SHOWN = {
    "k_h05_printed": "K_H0.5 as printed",
    "k_h05": "K_H0.5 on the density",
    "k_h1": "K_H1",
    "r_e": "r_e",
}


def images_of(config: dict[str, Any]) -> str:
    """Name the images on which a run was evaluated: the data set, or how it was shifted."""
    other, shift = config.get("data_shifted"), config.get("shift")
    name = data_name(config["data"] if other is None else other)
    return name if shift is None else f"{name}, {shift}"


def row(run: Any) -> dict[str, Any]:
    """Collect criteria, accuracy and the simple predictors of a run."""
    metrics = run.metrics
    return {
        "network": f"{run.model}-{run.data}",
        "seed": run.config["seed"],
        "E": epoch_of(run.config),
        "images": images_of(run.config),
        "accuracy": metrics["accuracy_at_theta"],
        "loss": metrics["loss_at_theta"],
        **{name: told(metrics[name]) for name in SHOWN},
        "λmax": metrics["eigenvalues_largest"][0],
        "trace": metrics["density_trace"]["mean"],
        "norm of θ": metrics["parameter_norm"],
    }


def numbers(run: Any) -> dict[str, Any]:
    """Give the numbers of a row, with errors in columns of their own."""
    values = {name: run.metrics[name]["value"] for name in SHOWN}
    errors = {f"{name}_error": run.metrics[name]["error"] for name in SHOWN}
    return row(run) | values | errors


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw each criterion against the accuracy, a colour for each kind of images."""
    runs = list(experiment_runs(experiment, overrides).itertuples())
    found = pd.DataFrame([numbers(run) for run in runs])
    picture = Figure(figsize=(3.6 * len(SHOWN), 3.4), layout="constrained")
    panels = picture.subplots(1, len(SHOWN), squeeze=False)[0]
    for axes, (name, label) in zip(panels, SHOWN.items(), strict=True):
        for images, points in found.groupby("images", sort=False):
            errors = points[f"{name}_error"].fillna(0)
            axes.errorbar(points.accuracy, points[name], errors, fmt="o", label=str(images))
        values = found[name].dropna()
        if len(values) and (values > 0).all():
            axes.set_yscale("log")
            axes.set_ylim(0.5 * values.min(), 2 * values.max())
        axes.set_xlabel("accuracy", fontsize=8)
        axes.set_title(label, fontsize=8)
        axes.tick_params(which="both", labelsize=7)
    explain(picture, panels, "Error bars: of the random vectors and of the Lanczos steps.")
    return Drawing(picture, table([row(run) for run in runs]), found)


def draw_epochs(experiment: str, overrides: Sequence[str], shown: Sequence[str]) -> Drawing:
    """Draw numbers over the epochs, a panel each and a line for each kind of images.

    Args:
        experiment: Of ``gabdullin2024``.
        overrides: What it was run with besides.
        shown: The numbers: ``accuracy``, ``loss`` or names of criteria.
    """
    runs = list(experiment_runs(experiment, overrides).itertuples())
    found = pd.DataFrame([numbers(run) for run in runs])
    picture = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
    panels = picture.subplots(1, len(shown), squeeze=False)[0]
    labels = {"accuracy": "accuracy", "loss": "loss (nats)", **SHOWN}
    for axes, name in zip(panels, shown, strict=True):
        for key, points in found.groupby(["network", "seed", "images"], sort=False):
            network, seed, images = key  # type: ignore[misc]
            line = points.sort_values("E")
            known = f"{network} on {images}" + (f", seed {seed}" if seed else "")
            errors = line.get(f"{name}_error")
            axes.errorbar(line.E, line[name], errors, marker="o", capsize=2, label=known)
        if name != "accuracy" and np.nanmin(found[name].astype(float)) > 0:
            axes.set_yscale("log")
        axes.set_xlabel("epoch E of θ", fontsize=8)
        axes.set_title(labels[name], fontsize=8)
        axes.tick_params(which="both", labelsize=7)
    explain(picture, panels, "Error bars: of the random vectors and of the Lanczos steps.")
    return Drawing(picture, table([row(run) for run in runs]), found)
