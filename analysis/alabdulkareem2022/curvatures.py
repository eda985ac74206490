"""Curvature, loss and accuracy over the epochs: Figs. 1, 2 and 6 of Alabdulkareem (2022)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.alabdulkareem2022.drops import find_drop, find_plateau
from analysis.alabdulkareem2022.series import SWEEP, epochs_of
from analysis.archive import kept_or_finished
from analysis.scripts import Drawing
from mining import sample_size
from mining.curvature.sample_size import Bound
from mining.plotting import explain, table

#: Epochs of the running mean and of the running standard deviation; those of the paper.
_WINDOW = 5
#: Largest relative error and confidence of Fig. 2; the absolute error is 1.
_GOALS = ((0.1, 0.95), (0.2, 0.9))
_BOUNDS: tuple[Bound, ...] = ("alabdulkareem2022", "chebyshev")
#: What Fig. 1 shows, and how its axes are called.
_SHOWN = {
    "train_loss": "training loss (nats)",
    "validation": "validation accuracy (%)",
    "lambda_max": "λ max",
}
#: Trainings of Fig. 6.
_PANELS = 12


def read(overrides: Sequence[str]) -> pd.DataFrame:
    """Read the epochs of the sweep, of kept records or finished runs."""
    return epochs_of(kept_or_finished(SWEEP, overrides))


def draw_groups(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw training loss, validation accuracy and λmax by learning rate and by batch size."""
    epochs = read(overrides)
    sgd = epochs[epochs["optimizer"] == "sgd"]
    picture = Figure(figsize=(11, 6.4), layout="constrained")
    panels = picture.subplots(2, len(_SHOWN))
    names = {"lr": "learning rate", "batch_size": "batch size"}
    for number, (row, (key, name)) in enumerate(zip(panels, names.items(), strict=True)):
        # Of the other hyperparameters the smallest value: the colours differ in one only.
        others = [other for other in ("lr", "batch_size", "weight_decay") if other != key]
        chosen = sgd[(sgd[others] == sgd[others].min()).all(axis=1)]
        for axes, (column, label) in zip(row, _SHOWN.items(), strict=True):
            _draw_bands(axes, chosen, key, name, column, first_color=2 * number)
            axes.set_xlabel("epoch", fontsize=8)
            axes.set_title(f"{label}, by {name}", fontsize=8)
            if column == "lambda_max" and (chosen[column] > 0).all():
                axes.set_yscale("log")
    about = (
        f"Running mean and standard deviation over {_WINDOW} epochs; a line for each seed. A band "
        "that reaches zero goes down to the edge of a logarithmic axis."
    )
    explain(picture, list(panels.flatten()), about)
    rows = [
        {
            "learning rate": lr,
            "batch size": size,
            "trainings": len(first),
            "λmax after epoch 1": first["lambda_max"].mean(),
            "standard deviation": first["lambda_max"].std(),
        }
        for (lr, size), first in sgd[sgd["epoch"] == 1].groupby(["lr", "batch_size"])
    ]
    return Drawing(picture, table(rows), sgd)


def _draw_bands(
    axes: Axes, chosen: pd.DataFrame, key: str, name: str, column: str, *, first_color: int
) -> None:
    """Draw a column of every training over the epochs, a colour for each value of ``key``."""
    for color, (value, trainings) in enumerate(chosen.groupby(key), start=first_color):
        for _, rows in trainings.groupby("run"):
            line = rows.sort_values("epoch")
            smooth = line[column].rolling(_WINDOW, min_periods=1)
            epochs, middle = line["epoch"].to_numpy(), smooth.mean().to_numpy()
            spread = smooth.std().fillna(0).to_numpy()
            axes.plot(epochs, middle, color=f"C{color}", label=f"{name} {value:g}")
            low, high = middle - spread, middle + spread
            axes.fill_between(epochs, low, high, color=f"C{color}", alpha=0.15, linewidth=0)


def sizes_of(epochs: pd.DataFrame, relative_error: float, confidence: float) -> pd.DataFrame:
    """Give for every epoch the number of random vectors that its trace needs, by both bounds."""
    deviations = epochs["trace_standard_error"] * np.sqrt(epochs["probes"])
    found = {
        bound: [
            sample_size(
                deviation,
                mean,
                relative_error=relative_error,
                absolute_error=1.0,
                confidence=confidence,
                bound=bound,
            )
            for deviation, mean in zip(deviations, epochs["trace"], strict=True)
        ]
        for bound in _BOUNDS
    }
    return epochs[["run", "seed", "epoch"]].assign(
        relative_error=relative_error, confidence=confidence, **found
    )


def draw_sizes(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw a box for each training with the numbers of random vectors of its epochs."""
    epochs = read(overrides)
    picture = Figure(
        figsize=(max(7.0, 0.16 * epochs["run"].nunique() + 2), 7), layout="constrained"
    )
    tables, rows = [], []
    panels = picture.subplots(len(_GOALS), len(_BOUNDS), squeeze=False)
    for line, goal in zip(panels, _GOALS, strict=True):
        found = sizes_of(epochs, *goal)
        tables.append(found)
        for axes, bound in zip(line, _BOUNDS, strict=True):
            axes.boxplot([group[bound] for _, group in found.groupby("run")], widths=0.6)
            mean = float(found[bound].mean())
            axes.axhline(mean, color="0.4", linewidth=0.8, label="mean of all epochs")
            axes.set_yscale("log")
            axes.tick_params(labelbottom=False)
            axes.set_ylabel("random vectors", fontsize=8)
            axes.set_title(
                f"{bound}: error {goal[0]:.0%} or 1, {goal[1]:.0%}, mean {mean:.3g}", fontsize=8
            )
            rows.append(
                {"bound": bound, "error": goal[0], "confidence": goal[1], "mean": mean,
                 "median": found[bound].median(), "largest": found[bound].max()}
            )  # fmt: skip
    explain(picture, list(panels.flatten()), "A box for each training; its points are the epochs.")
    return Drawing(picture, table(rows), pd.concat(tables))


def draw_drops(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw trace and validation accuracy of twelve trainings, with the drop and the plateau."""
    runs = [rows.sort_values("epoch") for _, rows in read(overrides).groupby("run")]
    rows = [drop_row(run) for run in runs]
    step = max(1, len(runs) // _PANELS)
    shown = list(zip(runs, rows, strict=True))[::step][:_PANELS]
    columns = min(4, len(shown))
    lines = math.ceil(len(shown) / columns)
    picture = Figure(figsize=(3.4 * columns, 2.6 * lines + 0.5), layout="constrained")
    panels = [picture.add_subplot(lines, columns, place + 1) for place in range(len(shown))]
    for axes, (run, row) in zip(panels, shown, strict=True):
        _draw_drop(axes, run, row)
    explain(picture, panels)
    return Drawing(picture, table(rows), pd.DataFrame(rows))


def drop_row(run: pd.DataFrame) -> dict[str, Any]:
    """Say where the trace of a training drops and where its accuracy levels off.

    Args:
        run: Its rows, in the order of the epochs.
    """
    epochs = run["epoch"].to_numpy()
    drop, plateau = find_drop(run["trace"].to_numpy()), find_plateau(run["validation"].to_numpy())
    return {
        **{key: run[key].iloc[0] for key in ("run", "optimizer", "lr", "batch_size")},
        **{key: run[key].iloc[0] for key in ("weight_decay", "seed")},
        "drop after epoch": None if drop is None else epochs[drop.place - 1],
        "left of the trace": drop.after / drop.before if drop and drop.before > 0 else None,
        "sharp": drop is not None and drop.sharp,
        "plateau from epoch": None if plateau is None else epochs[plateau],
    }


def _draw_drop(axes: Axes, run: pd.DataFrame, row: dict[str, Any]) -> None:
    axes.plot(run["epoch"], run["validation"], label="validation accuracy (%)")
    other = axes.twinx()
    other.plot(run["epoch"], run["trace"], "--", color="C3")
    other.tick_params(labelsize=6)
    axes.plot([], [], "--", color="C3", label="trace (right axis)")  # for the legend
    if row["sharp"]:
        axes.axvline(row["drop after epoch"] + 0.5, color="0.3", label="drop of the trace")
    if row["plateau from epoch"] is not None:
        label = "plateau of the accuracy"
        axes.axvline(row["plateau from epoch"], color="C0", linestyle=":", label=label)
    title = f"{row['optimizer']}, η={row['lr']:g}, batches of {row['batch_size']}"
    axes.set_title(f"{title}, decay {row['weight_decay']:g}, seed {row['seed']}", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.set_xlabel("epoch", fontsize=7)
