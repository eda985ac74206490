"""Eigenpairs, trace and spectral density of the curvature at a checkpoint."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from mining import ranks
from mining.curvature import (
    CurvatureOperator,
    Eigenpairs,
    SpectralDensity,
    eigenpairs,
    spectral_density,
    trace,
)
from mining.directions import Direction
from mining.directions.eigenvectors import eigenvector_names, rounding_of
from mining.directions.storage import read_directions, save_directions
from mining.explain.spectral_criteria import spectral_criteria
from mining.landscape import Landscape
from mining.pipelines.forecast import (
    FIRST_LOOK,
    look_first,
    measure_seconds,
    products_of_pairs,
    read_first_look,
    say_what_it_takes,
)
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.spectrum_settings import SpectrumSettings
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_density, draw_eigenvalues, explain
from mining.storage.files import drop_if_damaged, read_arrays, save_arrays
from mining.storage.records import load_record, save_record


def run(problem: Problem) -> None:
    """Compute eigenpairs, trace and density.

    Each part is written when it is done, so an interrupted run goes on with the next.
    """
    settings = problem.settings.spectrum.make(SpectrumSettings)
    landscape, directory = problem.landscape, problem.run.directory
    _look_first(problem, settings)
    operator: CurvatureOperator = getattr(landscape, settings.operator)(
        parameters=settings.parameters, micro_batch=settings.micro_batch
    )
    parts: list[tuple[str, int, Callable[..., None]]] = [
        ("eigenpairs", settings.num_eigenvalues, _eigenpairs),
        ("trace", settings.trace_products, _trace),
        ("density", settings.density_probes, _density),
    ]
    to_do = [
        (number, directory / f"{name}.npz", compute)
        for number, (name, wanted, compute) in enumerate(parts)
        if wanted and not ranks.current().from_first(partial(_is_done, directory / f"{name}.npz"))
    ]
    if to_do:
        say_what_it_takes(operator, _planned(settings))
    for number, path, compute in to_do:
        # Each part has random numbers of its own: they do not depend on what was done before.
        generator = torch.Generator().manual_seed(1000 * problem.settings.seed + number)
        compute(settings, operator, landscape, generator, path)
    measured = measure_seconds(operator, landscape) | {
        "gradient_norm": float(landscape.gradient().norm())
    }
    ranks.on_first(partial(_finish, problem, operator.shape[0], measured))


def _look_first(problem: Problem, settings: SpectrumSettings) -> None:
    """Say what samples tell of the Hessian, before the graphs of all examples are built."""
    whole = settings.operator == "hessian" and settings.parameters is None
    if whole and ranks.current().size == 1:  # a sample is no work for several
        path = problem.run.directory / FIRST_LOOK
        look_first(problem.landscape, problem.settings.seed, path)


def _planned(settings: SpectrumSettings) -> dict[str, int]:
    """Count the products of each part, at most."""
    return {
        "eigenpairs some": products_of_pairs(settings.num_eigenvalues, settings.max_products),
        "trace up to": settings.trace_products,
        "density": settings.density_probes * settings.density_steps,
    }


def _finish(problem: Problem, num_differentiated: int, measured: Mapping[str, float]) -> None:
    """Draw the parts, and record all numbers."""
    landscape = problem.landscape
    metrics = _metrics(problem.run.directory)
    draw(problem)
    evaluated = landscape.evaluate(landscape.theta)
    problem.run.finish(
        {
            **metrics,
            **problem.record(),
            **measured,
            "num_differentiated": num_differentiated,
            "first_look": read_first_look(problem.run.directory / FIRST_LOOK),
            "loss_at_theta": float(evaluated.loss),
            "accuracy_at_theta": None if evaluated.accuracy is None else float(evaluated.accuracy),
            "parameter_norm": float(landscape.theta.norm()),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw density and extreme eigenvalues side by side."""
    directory = problem.run.directory
    pairs, traced = (_load(directory / f"{name}.npz") for name in ("eigenpairs", "trace"))
    density = directory / "density.npz"
    panels = 1 + (pairs is not None and density.exists())
    picture = Figure(figsize=(5.6 * panels, 4), layout="constrained")
    drawn = [picture.add_subplot(1, panels, number + 1) for number in range(panels)]
    largest, smallest = _ends(pairs, "eigenvalues")
    values = [*largest, *smallest]
    # Runs of an earlier version did not write down what rounding leaves.
    rounding = float((pairs or {}).get("rounding", 1e-6 * np.abs(values).max(initial=0)))
    if density.exists():
        extremes = (smallest[0], largest[0]) if largest and smallest else None
        record = load_record(density, SpectralDensity)
        draw_density(drawn[0], record, extremes, rounding if values else None)
    if pairs and largest:
        names = eigenvector_names(values, len(largest), rounding)
        draw_eigenvalues(drawn[-1], names, values, pairs["residuals"].tolist())
    settings = problem.settings.spectrum.make(SpectrumSettings)
    of = "" if settings.parameters is None else f" of {settings.parameters}"
    title = f"{directory.parent.name}, {settings.operator.replace('_', '-').title()}{of}, "
    title += describe_point(problem.settings)
    if traced:
        title += f", trace {traced['mean']:.4g} ± {traced['standard_error']:.2g} (standard error)"
    picture.suptitle(title, fontsize=9)
    explain(picture, drawn, EPOCH)
    save_picture(problem, picture, "spectrum")


def _eigenpairs(
    settings: SpectrumSettings,
    operator: CurvatureOperator,
    landscape: Landscape,
    generator: torch.Generator,
    path: Path,
) -> None:
    k = settings.num_eigenvalues
    start = time.perf_counter()
    found = eigenpairs(
        operator,
        k,
        "both",
        settings.method,
        settings.tol,
        generator=generator,
        max_products=settings.max_products,
    )
    seconds = time.perf_counter() - start
    num_largest = min(k, (len(found) + 1) // 2)
    vectors = path.with_name("eigenvectors.pt")
    ranks.on_first(partial(_save_vectors, vectors, found, num_largest, operator, landscape))
    arrays = {
        "eigenvalues": found.values,
        "residuals": found.residuals,
        "converged": found.converged,
        "num_largest": num_largest,
        "rounding": rounding_of(found),
        "verified": found.verified,
        "products": found.products,
        "seconds": seconds,
    }
    ranks.on_first(partial(save_arrays, path, arrays))


def _save_vectors(
    path: Path,
    found: Eigenpairs,
    num_largest: int,
    operator: CurvatureOperator,
    landscape: Landscape,
) -> None:
    """Write the eigenvectors as directions, so that ``direction=from_file`` takes them."""
    assert operator.space is not None
    directions = []
    values = found.values.tolist()
    names = eigenvector_names(values, num_largest, rounding_of(found))
    for name, value, vector in zip(names, values, found.vectors.T, strict=True):
        embedded = landscape.space.embed(vector, operator.space)
        directions.append(Direction(embedded, name, metadata={"eigenvalue": value}))
    save_directions(path, directions, landscape)


def _trace(
    settings: SpectrumSettings,
    operator: CurvatureOperator,
    landscape: Landscape,
    generator: torch.Generator,
    path: Path,
) -> None:
    start = time.perf_counter()
    found = trace(
        operator,
        settings.trace_method,
        generator=generator,
        num_products=settings.trace_products,
        relative_error=settings.trace_error,
    )
    arrays = {
        "samples": found.samples,
        "mean": found.mean,
        "standard_error": found.standard_error,
        "converged": found.converged,
        "layers": list(found.layers),
        "layer_means": [estimate.mean for estimate in found.layers.values()],
        "layer_standard_errors": [e.standard_error for e in found.layers.values()],
        "products": found.products,
        "seconds": time.perf_counter() - start,
    }
    ranks.on_first(partial(save_arrays, path, arrays))


def _density(
    settings: SpectrumSettings,
    operator: CurvatureOperator,
    landscape: Landscape,
    generator: torch.Generator,
    path: Path,
) -> None:
    start = time.perf_counter()
    found = spectral_density(
        operator, settings.density_steps, settings.density_probes, generator=generator
    )
    points = found.grid()
    more = {
        "points": points,
        "density": found.evaluate(points),
        "width": found.width,
        "seconds": time.perf_counter() - start,
    }
    ranks.on_first(partial(save_record, path, found, **more))


def _metrics(directory: Path) -> dict[str, Any]:
    """Collect the numbers of all parts: none of one that was left out."""
    pairs, traced, density = (
        _load(directory / f"{name}.npz") for name in ("eigenpairs", "trace", "density")
    )
    metrics: dict[str, Any] = {}
    for field in ("eigenvalues", "residuals", "converged"):
        largest, smallest = _ends(pairs, field)
        metrics[f"{field}_largest"], metrics[f"{field}_smallest"] = largest, smallest
    for name in ("mean", "standard_error", "converged"):
        key = "trace" if name == "mean" else f"trace_{name}"
        metrics[key] = traced[name].item() if traced else None
    metrics["layer_traces"] = (
        {}
        if traced is None
        else {
            str(layer): {"mean": mean, "standard_error": error}
            for layer, mean, error in zip(
                traced["layers"],
                traced["layer_means"].tolist(),
                traced["layer_standard_errors"].tolist(),
                strict=True,
            )
        }
    )
    if density:
        record = load_record(directory / "density.npz", SpectralDensity)
        moments = [record.moment(order)._asdict() for order in (1, 2)]
        metrics |= {"density_trace": moments[0], "density_trace_of_square": moments[1]}
        known = [torch.from_numpy(pairs[f]) for f in ("eigenvalues", "residuals")] if pairs else []
        metrics |= spectral_criteria(record, *known).record()
    done = {"eigenpairs": pairs, "trace": traced, "density": density}
    metrics["products_of"] = {n: int(part["products"]) for n, part in done.items() if part}
    metrics["seconds_of"] = {n: float(part["seconds"]) for n, part in done.items() if part}
    metrics["products"] = sum(metrics["products_of"].values())
    return metrics


def _ends(pairs: dict[str, np.ndarray] | None, field: str) -> tuple[list[Any], list[Any]]:
    """Divide an array of eigenpairs into those of the largest and the smallest eigenvalues."""
    if pairs is None:
        return [], []
    values, num = pairs[field].tolist(), int(pairs["num_largest"])
    return values[:num], values[num:]


def _load(path: Path) -> dict[str, np.ndarray] | None:
    return read_arrays(path) if path.exists() else None


def _is_done(path: Path) -> bool:
    """Whether an interrupted run wrote a part; a damaged one is set aside."""
    drop_if_damaged(path, read_arrays)
    if path.stem == "eigenpairs":
        drop_if_damaged(path.with_name("eigenvectors.pt"), read_directions)
        return path.exists() and path.with_name("eigenvectors.pt").exists()
    return path.exists()
