"""Directions to another solution with a valley midway: Xu et al. (2024), Algorithm 2."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from mining import InputError
from mining.directions.base import Checkpoints, Direction
from mining.directions.checkpoint import find_other, theta_of
from mining.directions.mined.miner import Descent, Miner, Search
from mining.functional.minibatches import LossOnBatch
from mining.landscape import Landscape


@dataclass(frozen=True, eq=False)
class Xu2024VVVBasin(Miner):
    """Trains φ so that the loss is low at φ and midway between θ and φ.

    Each step draws λ uniformly from [½ - α, ½ + α] and descends by
    φ ← φ - η(∇L(φ) + γλ∇L((1 - λ)θ + λφ)). Xu et al. (2024), Eq. 3 and
    Algorithm 2. The direction is φ - θ, not normalized: θ is at α = 0 and φ at α = 1. The paper
    plots α in [-1, 2].

    Args:
        checkpoint: Starting point of φ, a file or tensors by parameter name: an independent
            initialization or an independent solution. Buffers are ignored. ``None``: ``bind`` finds
            the one selected by ``epoch`` and ``independent``.
        alpha: Half-width of the interval of λ, between 0 and ½; the paper's α.
        gamma: Weight γ of the loss midway, positive.
        descent: Epochs, learning rate η and other settings of the optimizer.
        label: Name of the starting point in error messages.
        epoch: Epoch of the starting point; 0: the initialization; ``None``: the last.
        independent: Whether it belongs to an independent training instead of that of θ.

    Raises:
        InputError: If ``alpha`` or ``gamma`` is out of its range.
    """

    # φ itself marks the state of the optimization, instead of where it comes from.
    checkpoint: str | Path | Mapping[str, Tensor] | None = field(default=None, repr=False)
    alpha: float = 0.0
    gamma: float = 0.1
    descent: Descent = field(default_factory=Descent)
    label: str = "checkpoint"
    epoch: int | None = field(default=0, repr=False)
    independent: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 0.5:
            raise InputError(f"direction.alpha must lie between 0 and 0.5, got {self.alpha}.")
        if not (self.gamma > 0 and math.isfinite(self.gamma)):
            raise InputError(f"direction.gamma must be positive, got {self.gamma}.")

    def bind(self, checkpoints: Checkpoints) -> Self:
        """Find the starting point, unless it is given."""
        if self.checkpoint is not None:
            return self
        return replace(self, **find_other(checkpoints, self.epoch, independent=self.independent))

    def search(self, landscape: Landscape, generator: torch.Generator) -> Search:
        """Start φ at ``checkpoint``; see ``Miner.search``.

        Raises:
            InputError: If that is θ itself: both terms would have the same gradient, and the
                optimization would only continue the training of θ.
        """
        theta = landscape.theta
        start = theta_of(self.checkpoint, landscape)
        if torch.equal(start, theta):
            raise InputError(
                f"φ would start at θ itself ({self.label}), where both terms of the objective have "
                "the same gradient. Start from an independent initialization or solution: "
                "direction.independent=true."
            )
        name = f"mined vvv-basin (λ=½±{self.alpha:g}, γ={self.gamma:g})"

        def step(
            loss: LossOnBatch, phi: Tensor, share: float, generator: torch.Generator
        ) -> tuple[Tensor, Tensor]:
            position = 0.5 + self.alpha * (2 * float(torch.rand((), generator=generator)) - 1)
            at_end, slope_at_end = loss(phi)
            midway, slope_midway = loss(torch.lerp(theta, phi, position))
            descent = slope_at_end.add_(slope_midway, alpha=self.gamma * position)
            return at_end + self.gamma * midway, descent

        def direction(phi: Tensor) -> Direction:
            return Direction(phi - theta, name, other_alpha=1.0)

        return Search(start, step, direction)
