"""How power iteration converges at a checkpoint, beside the ratio that decides how fast."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from mining import InputError
from mining.curvature import eigenpairs
from mining.curvature.power_iteration import power_iteration
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import explain
from mining.storage.files import read_arrays, save_arrays

_ARRAYS = "power_iteration.npz"


@dataclass(frozen=True)
class PowerIterationSettings:
    """What ``pipeline=power_iteration`` computes; see ``conf/config.yaml``.

    Raises:
        InputError: If a value is out of its range.
    """

    iterations: int = 10
    starts: int = 10

    def __post_init__(self) -> None:
        for name in ("iterations", "starts"):
            if getattr(self, name) < 1:
                raise InputError(f"power.{name} must be at least 1, got {getattr(self, name)}.")


def run(problem: Problem) -> None:
    """Iterate from several random vectors, and compute the two leading eigenvalues by Lanczos."""
    settings = problem.settings.power.make(PowerIterationSettings)
    landscape = problem.landscape
    operator = landscape.hessian()
    found = [
        power_iteration(operator, settings.iterations, generator=problem.generator)
        for _ in range(settings.starts)
    ]
    # The two of largest magnitude are among the two at either end.
    pairs = eigenpairs(operator, 2, "both", generator=problem.generator)
    order = pairs.values.abs().argsort(descending=True)[:2]
    leading, residuals = pairs.values[order], pairs.residuals[order]
    values = torch.stack([one.values for one in found])
    arrays = {
        "values": values,  # (starts, iterations)
        "residuals": torch.stack([one.residuals for one in found]),
        "eigenvalues": leading,
        "eigenvalue_residuals": residuals,
    }
    save_arrays(problem.run.directory / _ARRAYS, arrays)
    draw(problem)
    first, second = (float(value) for value in (*leading, 0.0)[:2])
    problem.run.finish(
        {
            "eigenvalues_leading": leading.tolist(),
            "residuals_leading": residuals.tolist(),
            "converged_leading": bool(pairs.converged[order].all()),
            "ratio": abs(second / first) if first else None,
            "power_values": values[:, -1].tolist(),
            "power_errors": ((values[:, -1] - first) / first).tolist() if first else None,
            "products": operator.products,
            **problem.record(),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw the Rayleigh quotients, and their errors beside the predicted fall."""
    directory = problem.run.directory
    arrays = read_arrays(directory / _ARRAYS)
    values, leading = arrays["values"], arrays["eigenvalues"]
    places = np.arange(1, values.shape[1] + 1)
    picture = Figure(figsize=(9, 3.6), layout="constrained")
    quotients, errors = picture.subplots(1, 2)
    quotients.plot(places, values.T, color="C0", alpha=0.5)
    quotients.axhline(leading[0], color="0.3", linewidth=0.8, label="by Lanczos")
    quotients.set_title("vᵀHv", fontsize=8)
    if leading[0]:
        relative = np.abs(values / leading[0] - 1)
        errors.plot(places, relative.T, color="C0", alpha=0.5)
        fall = np.abs(leading[1:2] / leading[0]) ** (2 * (places - 1))
        if fall.any():
            errors.plot(places, fall, "--", color="0.3", label="|λ₂ / λ₁| to the power 2k")
        errors.set_yscale("log")
    errors.set_title("error relative to the eigenvalue", fontsize=8)
    for axes in (quotients, errors):
        axes.set_xlabel("iteration", fontsize=8)
    picture.suptitle(f"{directory.parent.name}, {describe_point(problem.settings)}", fontsize=9)
    explain(picture, [quotients, errors], f"A line for each random vector. {EPOCH}")
    save_picture(problem, picture, "power_iteration")
