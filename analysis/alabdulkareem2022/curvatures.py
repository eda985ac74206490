"""Curvature, loss and accuracy over the epochs: Figs. 1, 2 and 6 of Alabdulkareem (2022)."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
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
#: Trainings of Fig. 6.
_PANELS = 12


def read(overrides: Sequence[str]) -> pd.DataFrame:
    """Read the epochs of the sweep, of kept records or finished runs."""
    return epochs_of(kept_or_finished(SWEEP, overrides))


def draw_groups(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw λmax, training loss and validation accuracy by learning rate and by batch size."""
    epochs = read(overrides)
    sgd = epochs[epochs["optimizer"] == "sgd"]
    shown = {
        "train_loss": "training loss (nats)",
        "validation": "validation accuracy (%)",
        "lambda_max": "λ max",
    }
    picture = Figure(figsize=(11, 6.4), layout="constrained")
    panels = picture.subplots(2, 3)
    for row, (key, name) in zip(
        panels, {"lr": "learning rate", "batch_size": "batch size"}.items(), strict=True
    ):
        # The other hyperparameter at its first value: four trainings a colour in the paper.
        other = "batch_size" if key == "lr" else "lr"
        chosen = sgd[
            (sgd[other] == sgd[other].min()) & (sgd["weight_decay"] == sgd["weight_decay"].min())
        ]
        for axes, (column, label) in zip(row, shown.items(), strict=True):
            for (value, _run), rows in chosen.groupby([key, "run"]):
                line = rows.sort_values("epoch").set_index("epoch")[column]
                smooth = line.rolling(_WINDOW, min_periods=1)
                color = f"C{sorted(chosen[key].unique()).index(value)}"
                known = f"{name} {value:g}"
                middle = smooth.mean().to_numpy()
                spread = smooth.std().fillna(0).to_numpy()
                places = line.index.to_numpy()
                axes.plot(places, middle, color=color, label=known)
                axes.fill_between(
                    places, middle - spread, middle + spread, color=color, alpha=0.15, linewidth=0
                )
            axes.set_xlabel("epoch", fontsize=8)
            axes.set_title(label, fontsize=8)
            if column == "lambda_max" and (chosen[column] > 0).all():
                axes.set_yscale("log")
    about = f"Running mean and standard deviation over {_WINDOW} epochs; a line for each seed."
    explain(picture, list(panels.flatten()), about)
    first = sgd[sgd["epoch"] == 1].groupby(["lr", "batch_size"])["lambda_max"]
    rows = [
        {"learning rate": key[0], "batch size": key[1], "trainings": len(values),  # type: ignore[index]
         "λmax after epoch 1": values.mean(), "standard deviation": values.std()}
        for key, values in first
    ]  # fmt: skip
    return Drawing(picture, table(rows), sgd)


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
    epochs = read(overrides)
    runs = list(epochs.groupby("run"))
    rows = []
    shown = runs[:: max(1, len(runs) // _PANELS)][:_PANELS]
    columns = min(4, len(shown))
    lines = math.ceil(len(shown) / columns)
    picture = Figure(figsize=(3.4 * columns, 2.6 * lines + 0.5), layout="constrained")
    panels = picture.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels[len(shown) :]:
        axes.remove()
    places = {}
    for number, group in runs:
        ordered = group.sort_values("epoch").reset_index(drop=True)
        drop = find_drop(ordered["trace"].to_numpy())
        plateau = find_plateau(ordered["validation"].to_numpy())
        first = ordered.iloc[0]
        row = {"run": number, **{k: first[k] for k in ("optimizer", "lr", "batch_size", "seed")}}
        row["drop after epoch"] = None if drop is None else ordered["epoch"][drop.place - 1]
        row["left of the trace"] = None if drop is None else drop.after / drop.before
        row["sharp"] = drop is not None and drop.sharp
        row["plateau from epoch"] = None if plateau is None else ordered["epoch"][plateau]
        rows.append(row)
        places[number] = row
    for axes, (number, group) in zip(panels, shown, strict=False):
        ordered, row = group.sort_values("epoch"), places[number]
        axes.plot(ordered["epoch"], ordered["validation"], label="validation accuracy (%)")
        other = axes.twinx()
        other.plot(ordered["epoch"], ordered["trace"], "--", color="C3", label="trace")
        other.tick_params(labelsize=6)
        if row["sharp"]:
            axes.axvline(row["drop after epoch"] + 0.5, color="0.3", label="drop of the trace")
        if row["plateau from epoch"] is not None:
            axes.axvline(
                row["plateau from epoch"],
                color="C0",
                linestyle=":",
                label="plateau of the accuracy",
            )
        axes.plot([], [], "--", color="C3", label="trace (right axis)")
        axes.set_title(
            f"{row['optimizer']}, η={row['lr']:g}, batches of {row['batch_size']}, seed "
            f"{row['seed']}", fontsize=7,
        )  # fmt: skip
        axes.tick_params(labelsize=6)
        axes.set_xlabel("epoch", fontsize=7)
    explain(picture, list(panels[: len(shown)]))
    return Drawing(picture, table(rows), pd.DataFrame(rows))
