"""Curvature of few examples, then of more: what is known long before all have been seen."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mining.explain.groups import draw_groups
from mining.explain.measurement import Measurement
from mining.explain.stationarity import measure_extremes, measure_trace
from mining.landscape import Landscape

#: Examples of the first sample; each is four times as large as the one before.
_FIRST, _GROWTH = 256, 4
#: The largest sample is this share of the examples: all samples together cost little beside them.
_SHARE = 1 / 16
_GROUPS, _PRODUCTS, _PROBES = 8, 14, 4


@dataclass(frozen=True)
class SampledCurvature:
    """Extreme eigenvalues and trace of the Hessian over all examples, estimated from a sample."""

    num_examples: int
    lambda_max: Measurement
    lambda_min: Measurement
    trace: Measurement
    seconds: float  # since the beginning

    def __str__(self) -> str:
        """Write the numbers in one line."""
        names = (("λ max", "lambda_max"), ("λ min", "lambda_min"), ("trace", "trace"))
        told = ", ".join(f"{name} {_written(getattr(self, key))}" for name, key in names)
        return f"{told} (from {self.num_examples} examples, {self.seconds:.0f} s)"


def sampled_curvature(landscape: Landscape, *, seed: int = 0) -> Iterator[SampledCurvature]:
    """Estimate the curvature over all examples from growing random samples of them.

    The samples are nested: 256 examples, 1,024 and so on up to a sixteenth of all. The largest
    eigenvalue of a sample is above that of all on average, and the quotient vᵀHv of its
    eigenvector on as many other examples is below it; the value is the middle of this bracket,
    and half its width is part of the error, as in ``assess``. In a network that fits its examples
    a few of them have most of the curvature, and the error is as large as the value at first.

    Args:
        landscape: Of all examples, at least 4,096.
        seed: Of all random numbers.

    Yields:
        The estimates of each sample as soon as they are known; none if there are fewer examples.

    Raises:
        InputError: If the loss cannot be differentiated twice.
    """
    started, size = time.perf_counter(), _FIRST
    while size <= _SHARE * landscape.num_examples:
        order, vectors, probes = (torch.Generator().manual_seed(4 * seed + n) for n in range(3))
        sample, others = draw_groups(landscape, size, _GROUPS, order, size)
        hessian = sample.hessian()
        extremes = measure_extremes(hessian, sample, others, vectors, _PRODUCTS)
        trace = measure_trace(hessian, sample, _PROBES, probes)
        yield SampledCurvature(
            sample.num_examples,
            extremes.largest.measurement,
            extremes.smallest.measurement,
            trace.measurement,
            time.perf_counter() - started,
        )
        size *= _GROWTH


def _written(found: Measurement) -> str:
    if found.value is None:
        return f"unknown ({found.why})"
    return f"{found.value:.4g}" + ("" if found.error is None else f" ± {found.error:.2g}")
