"""Pictures of trainings, of minings and of angles."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure, FigureBase

from mining.storage.files import read_arrays


def draw_history(path: Path, *, title: str = "", log_scale: bool = False) -> Figure:
    """Draw loss and accuracy per epoch from the ``history.csv`` of a training."""
    history = pd.read_csv(path)
    picture = Figure(figsize=(8, 3.4), layout="constrained")
    for position, quantity in enumerate(("loss", "accuracy")):
        axes = picture.add_subplot(1, 2, position + 1)
        for split in ("train", "test"):
            column = f"{split}_{quantity}"
            if column in history:
                axes.plot(history["epoch"], history[column], label=split)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss (nats)" if quantity == "loss" else "accuracy")
        if log_scale and quantity == "loss":
            axes.set_yscale("log")
        axes.legend()
    last = history.iloc[-1]
    accuracy = f", test accuracy {last['test_accuracy']:.2%}" if "test_accuracy" in last else ""
    picture.suptitle(
        f"{title or path.parent.parent.name}: {len(history)} epochs{accuracy}", fontsize=10
    )
    return picture


def draw_mining(path: Path, *, title: str = "") -> Figure:
    """Draw objective and norm per epoch from the ``history.csv`` of mined directions."""
    history = pd.read_csv(path)
    picture = Figure(figsize=(8, 3.4), layout="constrained")
    for position, (column, name) in enumerate(
        (("objective", "objective (nats), mean over the epoch"), ("norm", "length ‖ε‖"))
    ):
        axes = picture.add_subplot(1, 2, position + 1)
        for number, rows in history.groupby("direction"):
            axes.plot(rows["epoch"], rows[column], label=f"direction {number}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        if history["direction"].nunique() > 1:
            axes.legend()
    picture.suptitle(title, fontsize=9)
    return picture


_ANGLE_NAMES = {
    "gaussian_gradient": "Gaussian and batch gradient",
    "gaussian_checkpoint": "Gaussian and difference to the last checkpoint",
    "gradient_checkpoint": "batch gradient and difference to the last checkpoint",
}


def draw_angles(picture: FigureBase, path: Path, *, title: str = "") -> None:
    """Draw the distributions of an ``angles.npz`` into a figure; Xu et al. (2024), Fig. 5."""
    arrays = read_arrays(path)
    for position, (key, name) in enumerate(_ANGLE_NAMES.items()):
        axes = picture.add_subplot(1, 3, position + 1)
        angles = arrays[key]
        axes.hist(angles, bins=20)
        axes.axvline(90, color="black", linestyle=":", linewidth=1)
        axes.set_title(f"{name}\n[{angles.min():.2f}°, {angles.max():.2f}°]", fontsize=8)
        axes.set_xlabel("angle (degrees)", fontsize=8)
        axes.set_ylabel("draws", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(useOffset=False)
    picture.suptitle(f"{title}: {len(angles)} draws", fontsize=9)
