"""How many eigenvalues stand apart from the bulk of a spectrum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mining import InputError

#: Smallest ratio of two neighbours that passes for a gap.
_LEAST = 1.5


@dataclass(frozen=True)
class Outliers:
    """Large eigenvalues above a gap."""

    count: int | None  # None where errors of eigenvalues are as large as the gap
    gap: float  # ratio of the smallest outlier to the bulk's edge; 1 without outliers
    edge: float  # the largest eigenvalue of the bulk, among those given


def count_outliers(
    eigenvalues: Tensor, residuals: Tensor, *, zero: float = 0.0, least: float = _LEAST
) -> Outliers:
    """Count the eigenvalues above the widest gap among the largest ones.

    Of eigenvalues λ_1 ≥ … ≥ λ_K the widest gap is the largest ratio λ_k / λ_{k+1} of two that
    follow each other, where what passes for zero counts as ``zero``. λ_{k+1} is taken as the edge
    of the bulk, and the k eigenvalues above it are the outliers. There are none if the ratio is
    below ``least``, since the edge of a continuous bulk has small gaps too. The answer depends on
    K: it is at most K - 1, so K should exceed the number that is expected.

    Args:
        eigenvalues: The largest ones in descending order, shape ``(K,)``, K at least 2.
        residuals: The error ‖Hv - λv‖ of each, shape ``(K,)``.
        zero: Magnitude up to which an eigenvalue passes for zero.
        least: Smallest ratio that passes for a gap.

    Raises:
        InputError: If there are fewer than two, or they are not in descending order.
    """
    values, errors = eigenvalues.double().cpu(), residuals.double().cpu()
    if values.dim() != 1 or len(values) < 2 or bool((values.diff() > 0).any()):
        raise InputError(
            f"eigenvalues must be at least two in descending order, got {values.tolist()}."
        )
    smallest = max(zero, float(torch.finfo(values.dtype).tiny))
    floored = values.clamp(min=smallest)
    ratios = floored[:-1] / floored[1:]
    place = int(ratios.argmax())
    gap, edge = float(ratios[place]), float(values[place + 1])
    if gap < least:
        return Outliers(0, 1.0, float(values[0]))
    apart = values[place] - errors[: place + 1].max() > edge + errors[place + 1]
    return Outliers(place + 1 if bool(apart) else None, gap, edge)
