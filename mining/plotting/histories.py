"""Pictures of trainings, of minings and of angles."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from mining.plotting.layout import explain
from mining.storage.files import read_arrays


def draw_history(path: Path, *, title: str = "", log_scale: bool = False) -> Figure:
    """Draw loss and accuracy per epoch from the ``history.csv`` of a training."""
    history = pd.read_csv(path)
    picture = Figure(figsize=(8, 3.4), layout="constrained")
    names = {"train": "training examples", "test": "test examples"}
    for position, quantity in enumerate(("loss", "accuracy")):
        axes = picture.add_subplot(1, 2, position + 1)
        for split, name in names.items():
            column = f"{split}_{quantity}"
            if column in history:
                axes.plot(history["epoch"], history[column], label=name)
        _label(axes, "epoch", "loss (nats)" if quantity == "loss" else "accuracy")
        if log_scale and quantity == "loss":
            axes.set_yscale("log")
    explain(picture, picture.axes)
    last = history.iloc[-1]
    accuracy = f", test accuracy {last['test_accuracy']:.2%}" if "test_accuracy" in last else ""
    picture.suptitle(
        f"{title or path.parent.parent.name}: {len(history)} epochs{accuracy}", fontsize=9
    )
    return picture


def draw_monitor(path: Path, *, title: str = "") -> Figure:
    """Draw the curvature over the epochs from the table of a ``Monitor``."""
    table = pd.read_csv(path)
    picture = Figure(figsize=(8, 5.6), layout="constrained")
    (largest, trace), (stability, gradient) = picture.subplots(2, 2)
    _error_bars(largest, table, "lambda_max", "lambda_max_sampling_error", "on the share")
    if table["lambda_max_elsewhere"].notna().any():
        elsewhere = "its vector on other examples"
        largest.plot(table["epoch"], table["lambda_max_elsewhere"], ".--", label=elsewhere)
    _error_bars(trace, table, "trace", "trace_standard_error", "over random vectors")
    stability.plot(table["epoch"], table["stability"], marker=".", label="curvature over the limit")
    stability.axhline(1, color="0.5", linewidth=0.8, label="steps on a quadratic diverge above")
    gradient.plot(table["epoch"], table["gradient_norm"], marker=".", label="norm")
    gradient.plot(table["epoch"], table["gradient_noise"], ".--", label="noise alone")
    names = ("largest eigenvalue", "trace of the Hessian", "stability", "gradient")
    for axes, name in zip((largest, trace, stability, gradient), names, strict=True):
        _label(axes, "epoch", name)
        axes.legend(fontsize=7)
    bars = "Bars are two standard errors, of the share of examples (λ max) or of random vectors."
    explain(picture, [], bars)
    picture.suptitle(title, fontsize=9)
    return picture


def _error_bars(axes: Axes, table: pd.DataFrame, value: str, error: str, label: str) -> None:
    bars = 2 * pd.to_numeric(table[error]).fillna(0)
    axes.errorbar(table["epoch"], table[value], bars, marker=".", capsize=2, label=label)


def draw_mining(path: Path, *, title: str = "") -> Figure:
    """Draw objective and norm per epoch from the ``history.csv`` of mined directions."""
    history = pd.read_csv(path)
    several = history["direction"].nunique() > 1
    picture = Figure(figsize=(8, 3.4), layout="constrained")
    names = {"objective": "objective (nats), mean over the epoch", "norm": "length ‖ε‖"}
    for position, (column, name) in enumerate(names.items()):
        axes = picture.add_subplot(1, 2, position + 1)
        for number, rows in history.groupby("direction"):
            axes.plot(rows["epoch"], rows[column], label=f"direction {number}" if several else None)
        _label(axes, "epoch of the optimization", name)
    explain(picture, picture.axes, "ε: the direction that is mined by minimizing the objective.")
    picture.suptitle(title, fontsize=9)
    return picture


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


_ANGLE_NAMES = {
    "gaussian_gradient": "Gaussian and negative batch gradient",
    "gaussian_checkpoint": "Gaussian and way to the last checkpoint",
    "gradient_checkpoint": "negative batch gradient and way to the last checkpoint",
}


def draw_angles(picture: FigureBase, path: Path, *, title: str = "") -> list[Axes]:
    """Draw the distributions of an ``angles.npz`` into a figure; Xu et al. (2024), Fig. 5.

    Returns:
        The panels, for ``explain``.
    """
    drawn = []
    arrays = read_arrays(path)
    for position, (key, name) in enumerate(_ANGLE_NAMES.items()):
        axes = picture.add_subplot(1, 3, position + 1)
        angles = arrays[key]
        axes.hist(angles, bins=20)
        axes.axvline(90, color="black", linestyle=":", linewidth=1, label="90° (orthogonal)")
        axes.set_title(f"{name}\n[{angles.min():.2f}°, {angles.max():.2f}°]", fontsize=8)
        axes.set_xlabel("angle (degrees)", fontsize=8)
        axes.set_ylabel("number of draws", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(useOffset=False)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        drawn.append(axes)
    picture.suptitle(f"{title}: angles of {len(angles)} draws", fontsize=9)
    return drawn
