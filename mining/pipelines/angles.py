"""Measure the angles between random, gradient and checkpoint directions."""

import math

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from mining import InputError
from mining.directions import CheckpointDelta, Gaussian, Gradient, cosine
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, name_seed
from mining.plotting import draw_angles, explain
from mining.storage.files import save_arrays
from mining.training import TrainingSettings


def run(problem: Problem) -> None:
    """Measure the angles of Xu et al. (2024), Fig. 5.

    Gaussian directions against the negative gradient of a random batch and against the way to
    the last checkpoint, and those two against each other; ``num_directions`` of each, each with
    its own batch of ``train.batch_size`` examples.
    """
    settings, directory = problem.settings, problem.run.directory
    if settings.checkpoint is not None:
        raise InputError("pipeline=angles needs a later checkpoint: set epoch, not checkpoint.")
    landscape, num, generator = problem.landscape, settings.num_directions, problem.generator
    other = problem.checkpoints.at(None)
    (delta,) = CheckpointDelta(other).directions(landscape, 1, generator=generator)
    angles: dict[str, list[float]] = {
        "gaussian_gradient": [],
        "gaussian_checkpoint": [],
        "gradient_checkpoint": [],
    }
    norms = []
    recipe = settings.train.make(TrainingSettings)
    descent = Gradient(batch_size=min(recipe.batch_size, landscape.num_examples))
    for _ in tqdm(range(num), desc="angles", disable=not settings.progress, dynamic_ncols=True):
        (gaussian,) = Gaussian("none").directions(landscape, 1, generator=generator)
        (gradient,) = descent.directions(landscape, 1, generator=generator)
        angles["gaussian_gradient"].append(_angle(gaussian.vector, gradient.vector))
        angles["gaussian_checkpoint"].append(_angle(gaussian.vector, delta.vector))
        angles["gradient_checkpoint"].append(_angle(gradient.vector, delta.vector))
        norms.append(gradient.metadata["gradient_norm"])
    save_arrays(directory / "angles.npz", angles)
    draw(problem)
    size = landscape.space.size
    gradient_norm = float(landscape.gradient().norm())
    problem.run.finish(
        {
            "angles": {
                key: {"min": min(v), "mean": float(np.mean(v)), "max": max(v)}
                for key, v in angles.items()
            },
            **problem.record(),
            "gradient_norm": gradient_norm,
            "batch_gradient_norm": float(np.mean(norms)),
            # log density of a standard normal vector at the gradient: Sec. 2.3
            "log_probability": -0.5 * gradient_norm**2 - 0.5 * size * math.log(2 * math.pi),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw the distributions of ``angles.npz``."""
    settings, directory = problem.settings, problem.run.directory
    title = ", ".join([directory.parent.name, f"E={settings.epoch}", *name_seed(settings)])
    picture = Figure(figsize=(10, 3), layout="constrained")
    explain(picture, draw_angles(picture, directory / "angles.npz", title=title), EPOCH)
    save_picture(problem, picture, "angles")


def _angle(a: Tensor, b: Tensor) -> float:
    return math.degrees(math.acos(cosine(a, b)))
