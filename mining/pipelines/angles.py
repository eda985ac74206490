"""Measure the angles between random, gradient and checkpoint directions."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from mining import InputError
from mining.directions import CheckpointDelta, Gaussian, Gradient, cosine
from mining.pipelines.building import Config
from mining.pipelines.setting import build_setting, name_seed
from mining.pipelines.train import find_checkpoint
from mining.plotting import draw_angles, save_figure
from mining.storage.files import save_arrays
from mining.storage.runs import Run


def run(config: Config, run: Run) -> None:
    """Measure the angles of Xu et al. (2024), Fig. 5, into ``run``.

    Gaussian directions against the negative gradient of a random batch and against the way to
    the last checkpoint, and those two against each other; ``num_directions`` of each, each with
    its own batch of ``train.batch_size`` examples.
    """
    if config["checkpoint"] is not None:
        raise InputError("pipeline=angles needs a later checkpoint: set epoch, not checkpoint.")
    setting = build_setting({**config, "split": "train"})
    landscape, num = setting.landscape, config["num_directions"]
    other = find_checkpoint(config)
    (delta,) = CheckpointDelta(other).directions(landscape, 1, generator=setting.generator)
    angles: dict[str, list[float]] = {
        "gaussian_gradient": [],
        "gaussian_checkpoint": [],
        "gradient_checkpoint": [],
    }
    norms = []
    descent = Gradient(batch_size=min(config["train"]["batch_size"], landscape.num_examples))
    for _ in tqdm(range(num), desc="angles", disable=not config["progress"], dynamic_ncols=True):
        (gaussian,) = Gaussian("none").directions(landscape, 1, generator=setting.generator)
        (gradient,) = descent.directions(landscape, 1, generator=setting.generator)
        angles["gaussian_gradient"].append(_angle(gaussian.vector, gradient.vector))
        angles["gaussian_checkpoint"].append(_angle(gaussian.vector, delta.vector))
        angles["gradient_checkpoint"].append(_angle(gradient.vector, delta.vector))
        norms.append(gradient.metadata["gradient_norm"])
    save_arrays(run.directory / "angles.npz", angles)
    draw(run.directory, config)
    size = landscape.space.size
    gradient_norm = float(landscape.gradient().norm())
    run.finish(
        {
            "angles": {
                key: {"min": min(v), "mean": float(np.mean(v)), "max": max(v)}
                for key, v in angles.items()
            },
            **setting.record(),
            "gradient_norm": gradient_norm,
            "batch_gradient_norm": float(np.mean(norms)),
            # log density of a standard normal vector at the gradient: Sec. 2.3
            "log_probability": -0.5 * gradient_norm**2 - 0.5 * size * math.log(2 * math.pi),
        },
        device=str(landscape.device),
    )


def draw(directory: Path, config: Config) -> None:
    """Draw the distributions of ``angles.npz``."""
    title = ", ".join([directory.parent.name, f"E={config['epoch']}", *name_seed(config)])
    picture = Figure(figsize=(10, 3), layout="constrained")
    draw_angles(picture, directory / "angles.npz", title=title)
    save_figure(picture, directory / "angles.png")


def _angle(a: Tensor, b: Tensor) -> float:
    return math.degrees(math.acos(cosine(a, b)))
