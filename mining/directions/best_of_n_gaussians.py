"""The best of n Gaussians: the direction closest to the negative gradient."""

import math
from dataclasses import dataclass

import torch
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.base import (
    Direction,
    DirectionSource,
    check_num,
    cosine,
)
from mining.functional.random_vectors import standard_normal
from mining.landscape import Landscape


@dataclass(frozen=True)
class BestOfNGaussians(DirectionSource):
    """Of n Gaussians the one closest to the negative gradient, rescaled to the gradient's norm.

    Xu et al. (2024), Sec. 2.3 and Fig. 6: even the best of 100 hardly reduces the loss.

    Args:
        num_samples: n, the number of Gaussian directions to choose from.

    Raises:
        InputError: If ``num_samples`` is below 1.
    """

    num_samples: int = 100

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise InputError(f"direction.num_samples must be positive, got {self.num_samples}.")

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Choose the ``num`` closest ones; see ``DirectionSource.directions``.

        ``metadata["angle"]`` is the angle to the negative gradient in degrees.
        """
        check_num(num, self.num_samples, ", at most direction.num_samples")
        gradient = landscape.gradient()
        length = vector_norm(gradient)
        best: list[tuple[float, torch.Tensor]] = []
        for _ in range(self.num_samples):
            sample = standard_normal(landscape.space.size, generator).to(gradient)
            sample = sample * (length / vector_norm(sample))
            best.append((cosine(sample, -gradient), sample))
            best = sorted(best, key=lambda pair: -pair[0])[:num]
        return [
            Direction(
                vector,
                f"best of {self.num_samples} Gaussians",
                index,
                {"angle": math.degrees(math.acos(overlap)), "gradient_norm": float(length)},
            )
            for index, (overlap, vector) in enumerate(best)
        ]
