"""Directions along which the loss falls on both sides: Xu et al. (2024), Algorithm 1."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mining.directions.base import Direction
from mining.directions.mined.miner import Descent, Miner, Search
from mining.functional.minibatches import LossOnBatch
from mining.landscape import Landscape


@dataclass(frozen=True)
class Xu2024WPeak(Miner):
    """Minimizes the mean of L(θ + λε) over λ in [-1, 1], from ε = 0.

    In epoch e of E each step draws λ uniformly from [-e/E, e/E] and descends by
    ε ← ε - ηλ∇L(θ + λε). Xu et al. (2024), Eq. 2 and Algorithm 1. The direction is not
    normalized: the optimized interval is α in [-1, 1].

    Args:
        descent: Epochs E, learning rate η and other settings of the optimizer.
    """

    descent: Descent = field(default_factory=Descent)

    def search(self, landscape: Landscape, generator: torch.Generator) -> Search:
        """Start at ε = 0; see ``Miner.search``."""
        theta = landscape.theta

        def step(
            loss: LossOnBatch, epsilon: Tensor, share: float, generator: torch.Generator
        ) -> tuple[Tensor, Tensor]:
            position = share * (2 * float(torch.rand((), generator=generator)) - 1)
            value, gradient = loss(torch.add(theta, epsilon, alpha=position))
            return value, gradient.mul_(position)

        return Search(
            torch.zeros_like(theta), step, lambda epsilon: Direction(epsilon, "mined w-peak")
        )
