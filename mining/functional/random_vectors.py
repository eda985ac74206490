"""Random vectors in parameter space, the same on every device."""

import zlib
from typing import Literal, get_args

import torch
from torch import Tensor

from mining import InputError

Distribution = Literal["rademacher", "gaussian"]


def standard_normal(size: int, generator: torch.Generator) -> Tensor:
    """Draw independent standard normal entries, shape ``(size,)``, float32, on the CPU.

    The generator only seeds the stream they are drawn from. Drawn from it directly, they would
    repeat the random numbers of a network that was initialized from the same seed: the first
    Gaussian stood at 86.8° to the way that a 395,000-parameter MLP took in training, not at 90.0°
    ± 0.1°.
    """
    return torch.randn(size, generator=stream(generator))


def rademacher(size: int, generator: torch.Generator) -> Tensor:
    """Draw independent entries of ±1, shape ``(size,)``, float32, on the CPU."""
    return torch.randint(2, (size,), generator=stream(generator)).mul_(2).sub_(1).float()


def uniform(size: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw independent entries of [low, high), shape ``(size,)``, float32, on the CPU."""
    return torch.rand(size, generator=stream(generator)).mul_(high - low).add_(low)


def random_vector(size: int, distribution: Distribution, generator: torch.Generator) -> Tensor:
    """Draw from one of the two distributions, shape ``(size,)``, float32, on the CPU.

    Raises:
        InputError: If ``distribution`` is neither.
    """
    if distribution not in get_args(Distribution):
        raise InputError(
            f"distribution must be one of {get_args(Distribution)}, got {distribution!r}."
        )
    draw = standard_normal if distribution == "gaussian" else rademacher
    return draw(size, generator)


def stream(generator: torch.Generator, purpose: str = "") -> torch.Generator:
    """Start a generator of its own, on the CPU, from the next number of ``generator``.

    Generators of different purposes are independent even where both are seeded alike.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator().manual_seed(seed ^ zlib.crc32(purpose.encode()))
