"""Distances between the spectral densities of two operators."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from mining import InputError
from mining.curvature.density import SpectralDensity

#: Points of the grid on which smooth densities are compared.
_POINTS = 8000


@dataclass(frozen=True)
class SpectralDistances:
    """How far the density of one operator is from that of another."""

    wasserstein: float  # in the units of the eigenvalues
    normalized_wasserstein: float  # of eigenvalues divided by the largest magnitude of each
    jensen_shannon: float  # nats, between 0 and log 2
    kullback_leibler: float  # of the first from the second, nats; inf if it has mass elsewhere


def spectral_distances(
    density: SpectralDensity, reference: SpectralDensity, width: float | None = None
) -> SpectralDistances:
    """Compare two spectral densities.

    The Wasserstein distance ∫|F - G| is that of the quadratures themselves, averaged over the
    random vectors. It is normalized as the paper has it: each spectrum is divided by its largest
    magnitude, so that only the shapes are compared, and the distance is at most 2. The divergences
    need densities, and depend on how much each node is broadened. Sankar et al. (2021), Figs. 3
    and 12; the paper states neither its normalization nor its width.

    Args:
        density: Of the one operator.
        reference: Of the other.
        width: Standard deviation of the broadening in the divergences, in the units of the
            eigenvalues divided by their largest magnitude; ``None``: 1/200 of the larger extent.

    Raises:
        InputError: If ``width`` is not positive.
    """
    (nodes, weights), (others, shares) = (_flat(d) for d in (density, reference))
    scales = [max(float(values.abs().max()), math.ulp(0.0)) for values in (nodes, others)]
    scaled = nodes / scales[0], others / scales[1]
    extents = [float(values.max() - values.min()) for values in scaled]
    width = (max(*extents) or 1.0) / 200 if width is None else width
    if not width > 0:
        raise InputError(f"width must be positive, got {width}.")
    first, second, step = _on_a_grid((scaled[0], weights), (scaled[1], shares), width)
    middle = (first + second) / 2
    return SpectralDistances(
        _wasserstein((nodes, weights), (others, shares)),
        _wasserstein((scaled[0], weights), (scaled[1], shares)),
        (_divergence(first, middle) + _divergence(second, middle)) / 2 * step,
        _divergence(first, second) * step,
    )


_Measure = tuple[Tensor, Tensor]


def _flat(density: SpectralDensity) -> _Measure:
    """Give all nodes and their weights, which sum to one."""
    return density.nodes.flatten(), (density.weights / len(density.weights)).flatten()


def _wasserstein(first: _Measure, second: _Measure) -> float:
    arrays = [part.numpy() for part in (first[0], second[0], first[1], second[1])]
    return float(wasserstein_distance(*arrays))


def _on_a_grid(
    first: _Measure, second: _Measure, width: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Evaluate both broadened densities on points of one grid."""
    reach = 8 * width
    low = min(float(first[0].min()), float(second[0].min())) - reach
    high = max(float(first[0].max()), float(second[0].max())) + reach
    points = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    found = []
    for nodes, weights in (first, second):
        total = torch.zeros_like(points)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            total += weight * torch.exp(-0.5 * ((points - node) / width) ** 2)
        found.append((total / (width * math.sqrt(2 * math.pi))).numpy())
    return found[0], found[1], float(points[1] - points[0])


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Sum p log(p / q), where p is positive."""
    inside = first > 0
    p, q = first[inside], second[inside]
    with np.errstate(divide="ignore"):
        return float((p * (np.log(p) - np.log(q))).sum())
