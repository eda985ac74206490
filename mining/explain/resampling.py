"""Sampling errors of numbers that come from examples, and of differences between them."""

import math

import torch
from torch import Tensor

from mining import InputError

_CONFIDENCE = 0.95


def resampled_sums(columns: Tensor, generator: torch.Generator, resamples: int = 1000) -> Tensor:
    """Sum rows that are drawn with replacement, as often as there are rows (bootstrap).

    The same seed draws the same rows of equally many: what is computed of two networks on the
    same examples can be paired.

    Args:
        columns: A row for each of n examples, shape ``(n, C)``.
        generator: On the CPU.
        resamples: Number R of samples.

    Returns:
        Shape ``(R, C)``, float64.

    Raises:
        InputError: If there are fewer than 100 samples, of which no interval can be taken.
    """
    if resamples < 100:
        raise InputError(f"resamples must be at least 100, got {resamples}.")
    columns, num = columns.double().cpu(), len(columns)
    sums = torch.empty(resamples, columns.shape[1], dtype=torch.float64)
    for sample in sums:
        counts = torch.bincount(torch.randint(num, (num,), generator=generator), minlength=num)
        torch.mv(columns.T, counts.double(), out=sample)
    return sums


def interval_of(value: float, replicates: Tensor) -> tuple[float, float]:
    """Give the 95 % interval of a value from what resampling makes of it (basic bootstrap).

    Resampling shifts a biased value as sampling did: the interval is reflected about the value.
    """
    tail = (1 - _CONFIDENCE) / 2
    low, high = (float(replicates.quantile(q)) for q in (tail, 1 - tail))
    return 2 * value - high, 2 * value - low


def spread_of_replicates(replicates: Tensor) -> Tensor:
    """Scale resampled values, shape ``(R,)``, to a vector whose norm is the standard error."""
    return (replicates - replicates.mean()) / math.sqrt(max(len(replicates) - 1, 1))


def spread_of_groups(values: Tensor, shares: Tensor) -> Tensor:
    """Scale values of K groups of examples to a vector whose norm is the error of their mean.

    The variance of a group goes as one over its share of the examples. Of two means over the same
    groups, the norm of the difference of the vectors is the error of the difference.

    Args:
        values: Shape ``(K,)``, K at least 2.
        shares: They sum to one, shape ``(K,)``.
    """
    values, shares = values.double().cpu(), shares.double().cpu()
    centred = values - shares @ values
    return shares.sqrt() * centred / math.sqrt(len(values) - 1)
