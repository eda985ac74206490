"""What a spectrum will take, and what is known of it soon: both said before the long part."""

import logging
import statistics
import time
from pathlib import Path

import torch

from mining import ranks
from mining.curvature import CurvatureOperator
from mining.explain.first_look import sampled_curvature
from mining.landscape import Landscape
from mining.storage.files import drop_if_damaged, read_arrays, save_arrays

log = logging.getLogger(__name__)

FIRST_LOOK = "first_look.npz"
_MEASURED = ("lambda_max", "lambda_min", "trace")
#: Products of ``eigenpairs`` for k pairs of each end, about: what networks have taken.
_PRODUCTS_OF_PAIRS = (30, 5)


def look_first(landscape: Landscape, seed: int, path: Path) -> None:
    """Log the curvature of growing samples, and write it down; see ``sampled_curvature``."""
    drop_if_damaged(path, read_arrays)
    if path.exists():
        return
    columns: dict[str, list[float]] = {}
    for found in sampled_curvature(landscape, seed=seed):
        log.info("First look: %s", found)
        row: dict[str, float | None] = {"num_examples": found.num_examples}
        for name in _MEASURED:
            measured = getattr(found, name)
            row |= {name: measured.value, f"{name}_error": measured.error}
        row["seconds"] = found.seconds
        for name, value in row.items():
            columns.setdefault(name, []).append(float("nan") if value is None else value)
    if columns:
        save_arrays(path, {n: torch.tensor(c, dtype=torch.float64) for n, c in columns.items()})


def read_first_look(path: Path) -> list[dict[str, float]]:
    """Read what was known of each sample; nothing if there was none."""
    if not path.exists():
        return []
    columns = read_arrays(path)
    names = list(columns)
    return [
        dict(zip(names, row, strict=True))
        for row in zip(*(columns[name].tolist() for name in names), strict=True)
    ]


def say_what_it_takes(operator: CurvatureOperator, planned: dict[str, int]) -> None:
    """Time a product, and log how long all will take.

    Args:
        operator: Whose products they are.
        planned: Products of each part, at most; 0 of one that is left out.
    """
    vector = torch.ones(operator.shape[0], device=operator.device, dtype=operator.dtype)
    operator @ vector  # builds what is kept between products
    started = time.perf_counter()
    (operator @ vector).norm().item()  # waits for the device
    each = time.perf_counter() - started
    products = sum(planned.values())
    told = ", ".join(f"{name} {number}" for name, number in planned.items() if number)
    if ranks.current().first:
        log.info(
            "A product takes %.2g s, and %d of them %s (%s). Less with fewer examples "
            "(num_examples), vectors (spectrum.density_probes, density_steps) or eigenvalues "
            "(spectrum.num_eigenvalues), or a larger spectrum.trace_error.",
            each, products, _duration(each * products), told,
        )  # fmt: skip


def products_of_pairs(num_eigenvalues: int, max_products: int | None) -> int:
    """Say about how many products the eigenpairs of both ends take."""
    constant, slope = _PRODUCTS_OF_PAIRS
    expected = constant + slope * num_eigenvalues if num_eigenvalues else 0
    return expected if max_products is None else min(expected, max_products)


def measure_seconds(operator: CurvatureOperator, landscape: Landscape) -> dict[str, float]:
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


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"
