"""Spectra of the diagonal block of every layer, and of the whole matrix."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from mining import InputError
from mining.curvature import SpectralDensity, eigenpairs, spectral_density
from mining.curvature.distances import spectral_distances
from mining.curvature.loss_operators import GaussNewtonOperator, HessianOperator, ResidualOperator
from mining.curvature.outliers import count_outliers
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.spectrum_settings import Kind
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_layers, explain
from mining.storage.files import drop_if_damaged, finite, read_arrays, write_atomically
from mining.storage.records import load_record, save_record

#: What the whole matrix is called among the layers.
WHOLE = "(whole)"
_Operator = HessianOperator | GaussNewtonOperator | ResidualOperator


@dataclass(frozen=True)
class LayersSettings:
    """What ``pipeline=layers`` computes, and how exactly; see ``conf/config.yaml``.

    Raises:
        InputError: If a value is out of its range.
    """

    operators: Sequence[Kind] = ("hessian", "gauss_newton")
    density_steps: int = 60
    density_probes: int = 8
    num_eigenvalues: int | None = None
    tol: float = 1e-2
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if not self.operators or not set(self.operators) <= set(get_args(Kind)):
            raise InputError(
                f"layers.operators must be some of {get_args(Kind)}, got {list(self.operators)}."
            )
        least = {"density_steps": 1, "density_probes": 2, "num_eigenvalues": 2, "micro_batch": 1}
        for name, smallest in least.items():
            given = getattr(self, name)
            if given is not None and given < smallest:
                raise InputError(f"layers.{name} must be at least {smallest}, got {given}.")
        if not 0 < self.tol < 1:
            raise InputError(f"layers.tol must be between 0 and 1, got {self.tol}.")


def run(problem: Problem) -> None:
    """Compute the spectra of one block after the other.

    Each block is written when it is done, so an interrupted run goes on with the next.
    """
    settings = problem.settings.layers
    assert settings is not None
    options = settings.make(LayersSettings)
    landscape, directory = problem.landscape, problem.run.directory
    blocks = [*landscape.space.layers.items(), (WHOLE, landscape.space.names)]
    jobs = [(kind, number) for kind in options.operators for number in range(len(blocks))]
    operators: dict[str, _Operator] = {}  # the graphs of one kind serve all its blocks
    for index, (kind, number) in enumerate(
        tqdm(jobs, desc="layers", unit="block", disable=not problem.settings.progress)
    ):
        path = _path(directory, kind, number)
        drop_if_damaged(path, read_arrays)
        if path.exists():
            continue
        if kind not in operators:
            operators.clear()
            operators[kind] = getattr(landscape, kind)(micro_batch=options.micro_batch)
        # Each block has random numbers of its own: they do not depend on what was done before.
        generator = torch.Generator().manual_seed(1000 * problem.settings.seed + index)
        name, parameters = blocks[number]
        block = operators[kind] if name == WHOLE else operators[kind].block(parameters)
        num = options.num_eigenvalues or 2 * problem.data.num_classes + 2
        _measure(options, block, num, generator, path, name)
    rows = summarize(directory, options.operators)
    write_atomically(directory / "layers.csv", pd.DataFrame(rows).to_csv(index=False))
    draw(problem)
    evaluated = landscape.evaluate(landscape.theta)
    problem.run.finish(
        {
            "layers": rows,
            "num_layers": len(blocks) - 1,
            "num_classes": problem.data.num_classes,
            **problem.record(),
            "loss_at_theta": float(evaluated.loss),
            "accuracy_at_theta": None if evaluated.accuracy is None else float(evaluated.accuracy),
        },
        device=str(landscape.device),
    )


def _path(directory: Path, kind: str, number: int) -> Path:
    return directory / f"{kind}_{number:04d}.npz"


def _measure(
    options: LayersSettings,
    block: _Operator,
    num: int,
    generator: torch.Generator,
    path: Path,
    name: str,
) -> None:
    """Compute the density and the largest eigenvalues of one block, and write them."""
    start = time.perf_counter()
    density = spectral_density(
        block, options.density_steps, options.density_probes, generator=generator
    )
    found = eigenpairs(block, min(num, block.shape[0]), tol=options.tol, generator=generator)
    save_record(
        path,
        density,
        layer=name,
        eigenvalues=found.values,
        residuals=found.residuals,
        converged=found.converged,
        eigenvalue_products=found.products,
        seconds=time.perf_counter() - start,
    )


def summarize(directory: Path, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Make a row for each operator and layer, from the outermost to the whole."""
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        paths = sorted(directory.glob(f"{kind}_[0-9]*.npz"))
        whole = load_record(paths[-1], SpectralDensity)
        for number, path in enumerate(paths):
            arrays, density = read_arrays(path), load_record(path, SpectralDensity)
            name, traced = str(arrays["layer"]), density.moment(1)
            place = None if name == WHOLE else (number + 0.5) / (len(paths) - 1)
            row = {"operator": kind, "layer": name, "place": place, "size": density.size}
            row |= {"trace": traced.mean, "trace_standard_error": traced.standard_error}
            row |= _of_eigenvalues(arrays, density)
            row |= asdict(spectral_distances(density, whole))
            row["products"] = density.products + int(arrays["eigenvalue_products"])
            rows.append(row | {"seconds": float(arrays["seconds"])})
    found: list[dict[str, Any]] = finite(rows)  # an infinite divergence has no word in a record
    return found


def read_densities(directory: Path, kinds: Sequence[str]) -> dict[str, dict[str, SpectralDensity]]:
    """Read the densities of a run, by layer and by operator."""
    densities: dict[str, dict[str, SpectralDensity]] = {}
    for kind in kinds:
        for path in sorted(directory.glob(f"{kind}_[0-9]*.npz")):
            name = str(read_arrays(path)["layer"])
            densities.setdefault(name, {})[kind] = load_record(path, SpectralDensity)
    return densities


def _of_eigenvalues(arrays: dict[str, np.ndarray], density: SpectralDensity) -> dict[str, Any]:
    """Give the largest eigenvalue and the outliers among those that were computed."""
    values, residuals = (torch.from_numpy(arrays[n]) for n in ("eigenvalues", "residuals"))
    row: dict[str, Any] = {
        "lambda_max": float(values[0]),
        "lambda_max_residual": float(residuals[0]),
        **dict.fromkeys(("outliers", "gap", "edge")),
    }
    if len(values) > 1:
        found = count_outliers(values, residuals, zero=density.zero)
        row |= {"outliers": found.count, "gap": found.gap, "edge": found.edge}
    return row


def draw(problem: Problem) -> None:
    """Draw the densities of all blocks, one panel each."""
    settings, directory = problem.settings.layers, problem.run.directory
    assert settings is not None
    options = settings.make(LayersSettings)
    picture, drawn = draw_layers(read_densities(directory, options.operators))
    picture.suptitle(f"{directory.parent.name}, {describe_point(problem.settings)}", fontsize=9)
    explain(picture, drawn, EPOCH)
    save_picture(problem, picture, "layers")
