"""Descent along the gradient and the best of 100 Gaussians: Fig. 6 of Xu et al. (2024)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.panels import numbers
from analysis.records import describe, experiment_runs
from analysis.scripts import Drawing
from mining.evaluation.curves import Curve
from mining.evaluation.storage import load_curves
from mining.plotting import explain, table
from mining.plotting.losses import mark_theta

_SCALES = (0.01, 0.1, 1.0)
#: How many times as far as the gradient the Gaussian is followed.
_FACTOR = 10
#: How far each direction is followed, in units of s.
_STRETCH = {"Gradient": 1, "BestOfNGaussians": _FACTOR}
#: What the curves of one picture must have in common.
_POINT = ("model", "data", "train", "seed", "split", "batchnorm")


def complete_groups(runs: pd.DataFrame) -> list[tuple[str, list[tuple[Curve, Curve]]]]:
    """Pair gradient and Gaussian curves at every θ that has both at every scale."""
    groups: dict[str, dict[str, dict[float, Curve]]] = {}
    for run in runs.itertuples():
        name = describe(run)
        point = json.dumps([name, *(run.config[key] for key in _POINT)], sort_keys=True)
        source = run.config["direction"]["_target_"].rpartition(".")[2]
        if source in _STRETCH:
            curves = groups.setdefault(point, {}).setdefault(source, {})
            scale = run.config["grid"]["high"] / _STRETCH[source]
            curves[round(scale, 9)] = load_curves(Path(run.directory) / "curves.npz")[0]
    # A list: trainings that differ in their recipe alone have the same name.
    return [
        (
            json.loads(point)[0],
            [(found["Gradient"][s], found["BestOfNGaussians"][s]) for s in _SCALES],
        )
        for point, found in groups.items()
        if all(set(_SCALES) <= set(found.get(source, {})) for source in _STRETCH)
    ]


def draw_panel(axes: Axes, gradient: Curve, gaussian: Curve) -> dict[str, Any]:
    """Draw both and return by how much each descends."""
    axes.plot(gradient.alphas, gradient.loss, label="negative gradient")
    axes.plot(
        gaussian.alphas / _FACTOR,
        gaussian.loss,
        label=f"best of 100 Gaussians, as long as the gradient; its α is {_FACTOR} times as large",
    )
    mark_theta(axes)
    axes.set_xlabel("α, in lengths of the gradient", fontsize=8)
    axes.set_ylabel("training loss (nats)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return {
        "loss at θ": gradient.loss[gradient.origin].item(),
        "drop along the gradient": (gradient.loss[gradient.origin] - gradient.loss.min()).item(),
        "drop along the best Gaussian": (
            gaussian.loss[gaussian.origin] - gaussian.loss.min()
        ).item(),
        "angle": gaussian.metadata["angle"],
    }


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw a row per checkpoint, and list how far each direction descends."""
    runs = experiment_runs(experiment, overrides)
    groups = complete_groups(runs)
    if not groups:
        raise FileNotFoundError("No point has a run at every s yet.")
    picture = Figure(figsize=(10, 3.0 * len(groups)), layout="constrained")
    rows, panels = [], list[Axes]()
    for line, (name, pairs) in enumerate(groups):
        for column, (scale, (gradient, gaussian)) in enumerate(zip(_SCALES, pairs, strict=True)):
            axes = picture.add_subplot(len(groups), 3, 3 * line + column + 1)
            drops = draw_panel(axes, gradient, gaussian)
            angle = f"Gaussian at {gaussian.metadata['angle']:.2f}° to the negative gradient"
            axes.set_title(f"{name}, s = {scale}\n{angle}", fontsize=8)
            panels.append(axes)
            rows.append({"point": name, "s": scale, **drops})
    about = "E: epoch of θ. s: how far the gradient is followed, in its own length."
    explain(picture, panels, about)
    plotted = pd.concat([numbers(run) for run in runs.itertuples()])
    return Drawing(picture, table(rows), plotted)
