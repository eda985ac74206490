"""Random directions."""

from dataclasses import dataclass

import torch

from mining.directions.base import (
    Direction,
    DirectionSource,
    as_normalization,
    check_num,
)
from mining.directions.normalization import Name, Normalization
from mining.functional.random_vectors import standard_normal
from mining.landscape import Landscape


@dataclass(frozen=True)
class Gaussian(DirectionSource):
    """Directions with independent standard normal entries, then normalized.

    Xu et al. (2024), Sec. 2.2; by default ‖ε‖ = ‖θ‖ (the paper's Norm).
    """

    normalization: Normalization | Name = "model"

    def __post_init__(self) -> None:
        as_normalization(self.normalization)

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Draw ``num`` directions; see ``DirectionSource.directions``."""
        check_num(num)
        normalize = as_normalization(self.normalization)
        theta, space = landscape.theta, landscape.space
        return [
            Direction(
                normalize(standard_normal(space.size, generator).to(theta), theta, space),
                "gaussian",
                index,
            )
            for index in range(num)
        ]
