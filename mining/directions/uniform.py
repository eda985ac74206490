"""Uniform random directions."""

import math
from dataclasses import dataclass

import torch

from mining import InputError
from mining.directions.base import Direction, DirectionSource, as_normalization, check_num
from mining.directions.normalization import Name, Normalization
from mining.functional.random_vectors import uniform
from mining.landscape import Landscape


@dataclass(frozen=True)
class Uniform(DirectionSource):
    """Directions with independent entries that are uniform on an interval, then normalized.

    The default interval has mean zero, so that directions are nearly orthogonal to each other.
    Gabdullin (2024), Sec. 2, draws from [0, 1) instead: all entries are positive, and the cosine of
    two such directions is about 0.75.

    Args:
        low: Smallest entry before normalization.
        high: Largest entry before normalization.
        normalization: A normalization or its name; by default ‖ε‖ = ‖θ‖.

    Raises:
        InputError: If ``low`` is not below ``high``, or one is not finite.
    """

    low: float = -1.0
    high: float = 1.0
    normalization: Normalization | Name = "model"

    def __post_init__(self) -> None:
        as_normalization(self.normalization)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(
                f"direction.low must lie below direction.high, got {self.low} and {self.high}."
            )

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Draw ``num`` directions; see ``DirectionSource.directions``."""
        check_num(num)
        normalize = as_normalization(self.normalization)
        theta, space = landscape.theta, landscape.space
        found = []
        for index in range(num):
            entries = uniform(space.size, self.low, self.high, generator).to(theta)
            found.append(Direction(normalize(entries, theta, space), "uniform", index))
        return found
