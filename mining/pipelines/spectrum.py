"""Eigenpairs, trace and spectral density of the curvature at a checkpoint."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from matplotlib.figure import Figure

from mining import InputError, ranks
from mining.curvature import (
    CurvatureOperator,
    Eigenpairs,
    SpectralDensity,
    eigenpairs,
    spectral_density,
    trace,
)
from mining.curvature.eigen import Method as EigenMethod
from mining.curvature.trace import Method as TraceMethod
from mining.directions import Direction
from mining.directions.eigenvectors import eigenvector_names, rounding_of
from mining.directions.storage import read_directions, save_directions
from mining.explain.spectral_criteria import spectral_criteria
from mining.landscape import Landscape
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_density, draw_eigenvalues, explain
from mining.storage.files import drop_if_damaged, read_arrays, save_arrays
from mining.storage.records import load_record, save_record

Kind = Literal["hessian", "gauss_newton", "residual"]


@dataclass(frozen=True)
class SpectrumSettings:
    """What ``pipeline=spectrum`` computes, and how exactly; see ``conf/config.yaml``.

    Raises:
        InputError: If a value is out of its range.
    """

    operator: Kind = "hessian"
    parameters: str | Sequence[str] | None = None
    num_eigenvalues: int = 10
    method: EigenMethod = "lanczos"
    tol: float = 1e-3
    max_products: int | None = None
    trace_method: TraceMethod = "xtrace"
    trace_error: float | None = 0.05
    trace_products: int = 400
    density_steps: int = 60
    density_probes: int = 8
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if self.operator not in get_args(Kind):
            raise InputError(
                f"spectrum.operator must be one of {get_args(Kind)}, got {self.operator!r}."
            )
        for name in ("num_eigenvalues", "trace_products", "density_probes"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"spectrum.{name} must be 0, which leaves it out, or more, got "
                    f"{getattr(self, name)}."
                )
        if not (self.num_eigenvalues or self.trace_products or self.density_probes):
            raise InputError(
                "spectrum.num_eigenvalues, trace_products and density_probes are all 0: nothing "
                "is left to compute."
            )
        if self.density_probes == 1:
            raise InputError("spectrum.density_probes must be 0 or at least 2, got 1.")
        if self.density_steps < 1:
            raise InputError(
                f"spectrum.density_steps must be at least 1, got {self.density_steps}."
            )
        if 0 < self.trace_products < 6:
            raise InputError(
                f"spectrum.trace_products must be 0 or at least 6, got {self.trace_products}."
            )
        if not 0 < self.tol < 1:
            raise InputError(f"spectrum.tol must be between 0 and 1, got {self.tol}.")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"spectrum.micro_batch must be at least 1, got {self.micro_batch}.")


def run(problem: Problem) -> None:
    """Compute eigenpairs, trace and density.

    Each part is written when it is done, so an interrupted run goes on with the next.
    """
    settings = problem.settings.spectrum.make(SpectrumSettings)
    landscape, directory = problem.landscape, problem.run.directory
    operator: CurvatureOperator = getattr(landscape, settings.operator)(
        parameters=settings.parameters, micro_batch=settings.micro_batch
    )
    parts: list[tuple[str, int, Callable[..., None]]] = [
        ("eigenpairs", settings.num_eigenvalues, _eigenpairs),
        ("trace", settings.trace_products, _trace),
        ("density", settings.density_probes, _density),
    ]
    group = ranks.current()
    for number, (name, wanted, compute) in enumerate(parts):
        path = directory / f"{name}.npz"
        if wanted and not group.from_first(partial(_is_done, path)):
            # Each part has random numbers of its own: they do not depend on what was done before.
            generator = torch.Generator().manual_seed(1000 * problem.settings.seed + number)
            compute(settings, operator, landscape, generator, path)
    measured = _seconds(operator, landscape) | {"gradient_norm": float(landscape.gradient().norm())}
    ranks.on_first(partial(_finish, problem, operator.shape[0], measured))


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


def _seconds(operator: CurvatureOperator, landscape: Landscape) -> dict[str, float]:
    """Time products and gradients of the same examples, one after the other: medians of five."""
    vector = landscape.theta.new_ones(operator.shape[0])
    fixed = landscape.statistics(landscape.theta)  # as the operator has them
    operator @ vector  # builds what is kept between products
    times: dict[str, list[float]] = {"seconds_per_product": [], "seconds_per_gradient": []}
    for _ in range(5):
        start = time.perf_counter()
        operator @ vector
        times["seconds_per_product"].append(time.perf_counter() - start)
        start = time.perf_counter()
        landscape.gradient(statistics=fixed).norm().item()  # waits for the device
        times["seconds_per_gradient"].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


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
