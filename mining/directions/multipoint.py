"""Directions along which the loss follows a drawn shape."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining.curves import Curve
from mining.directions.base import Direction
from mining.directions.miner import Descent, Miner, Search
from mining.errors import InputError
from mining.landscape import Landscape
from mining.minibatches import LossOnBatch
from mining.random_vectors import standard_normal

#: How far a template may pass θ, as a share of its own range.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Multipoint(Miner):
    """Drives the curve L(θ + αε) towards a template, with θ where it is.

    The template is a loss at a few α, with straight lines between. Each step draws a point from
    every one of ``points`` equal parts of its range and descends along the mean of
    α·clip((L - t)/s)·∇L(θ + αε), clip being that to [-1, 1] and s the range of the template: the
    gradient of s·h((L - t)/s) with Huber's loss h. This is the multi-point optimization of
    Skorokhodov and Burtsev (2019), arXiv:1910.03867, on a line instead of a plane and with θ given:
    the curve passes through its loss by construction. ε starts as a Gaussian as long as θ.

    Args:
        basins: Instead of a template: as many valleys, the first at θ, each as deep as θ, at equal
            distances up to α = 1, where a barrier closes the last; ``None`` takes 3.
        barrier: Loss of the barriers between ``basins``, nats; ``None`` takes that of guessing.
        template: Pairs of α, increasing, and loss; ``None`` as a loss is that of θ.
        points: Points of the curve in one step.
        descent: Epochs, learning rate and the like.

    Raises:
        InputError: If the template is no function of α, does not contain α = 0, or a number is out
            of its range.
    """

    basins: int | None = None
    barrier: float | None = None
    template: Sequence[Sequence[float | None]] | None = None
    points: int = 8
    descent: Descent = field(
        default_factory=lambda: Descent(optimizer="adam", lr=1e-2, schedule="cosine")
    )

    def __post_init__(self) -> None:
        if self.points < 1:
            raise InputError(f"direction.points must be at least 1, got {self.points}.")
        if self.template is None:
            if self._basins < 2:
                raise InputError(f"direction.basins must be at least 2, got {self.basins}.")
            if self.barrier is not None and not math.isfinite(self.barrier):
                raise InputError(f"direction.barrier must be finite, got {self.barrier}.")
            return
        if self.basins is not None or self.barrier is not None:
            raise InputError(
                "direction.template says everything: leave direction.basins and direction.barrier "
                "out."
            )
        pairs = [tuple(p) if isinstance(p, Sequence) else (p,) for p in self.template]
        if len(pairs) < 2 or not all(map(_is_pair, pairs)):
            raise InputError(
                "direction.template must be two pairs [alpha, loss] of numbers at least, got "
                f"{list(self.template)}."
            )
        alphas = [float(pair[0]) for pair in pairs if pair[0] is not None]
        if not all(a < b for a, b in pairwise(alphas)) or not all(map(math.isfinite, alphas)):
            raise InputError(
                f"direction.template must have increasing, finite alphas, got {alphas}."
            )
        if not alphas[0] <= 0 <= alphas[-1]:
            raise InputError(
                f"direction.template must start or pass at alpha = 0, where θ is, got {alphas}."
            )
        if not all(pair[1] is None or math.isfinite(pair[1]) for pair in pairs):
            raise InputError(f"direction.template must have finite losses, got {pairs}.")
        object.__setattr__(self, "template", tuple(pairs))

    @property
    def _basins(self) -> int:
        return 3 if self.basins is None else self.basins

    @property
    def alphas(self) -> tuple[float, ...]:
        """Where the template gives a loss."""
        if self.template is not None:
            return tuple(float(pair[0] or 0.0) for pair in self.template)
        return tuple(i / (2 * self._basins - 1) for i in range(2 * self._basins))

    def losses(self, own: float, chance: float | None) -> tuple[float, ...]:
        """Give the losses of the template.

        Args:
            own: The loss of θ.
            chance: The loss of guessing.

        Raises:
            InputError: If they do not pass the loss of θ, or do not vary.
        """
        if self.template is None:
            barrier = (
                (own + 1 if chance is None else chance) if self.barrier is None else self.barrier
            )
            if not barrier > own:
                raise InputError(
                    f"direction.barrier must exceed the loss of θ, {own:.4g}, got {barrier:.4g}."
                )
            return tuple(barrier if i % 2 else own for i in range(2 * self._basins))
        losses = tuple(own if pair[1] is None else float(pair[1]) for pair in self.template)
        span = max(losses) - min(losses)
        if not span > 0:
            raise InputError(f"direction.template is flat at {own:.4g}: draw a shape.")
        if chance is not None and min(losses) < 0:
            raise InputError(
                f"direction.template goes down to {min(losses):.4g}, cross-entropy never below 0."
            )
        at_theta = float(np.interp(0.0, self.alphas, losses))
        if abs(at_theta - own) > _TOLERANCE * span:
            raise InputError(
                f"direction.template gives {at_theta:.4g} at alpha = 0, but the loss of θ is "
                f"{own:.4g}: start there (null stands for it)."
            )
        return losses

    def check_grid(self, alphas: Tensor) -> None:
        """Raise ``InputError`` if the template is longer than a grid, shape ``(T,)``."""
        low, high = self.alphas[0], self.alphas[-1]
        rounding = 1e-6 * float(alphas[-1] - alphas[0])
        if low < alphas[0] - rounding or high > alphas[-1] + rounding:
            raise InputError(
                f"direction.template reaches from {low:g} to {high:g}, the grid only from "
                f"{float(alphas[0]):g} to {float(alphas[-1]):g}: set grid.low and grid.high."
            )
        inside = int(((alphas >= low - rounding) & (alphas <= high + rounding)).sum())
        if inside < len(self.alphas):
            raise InputError(
                f"direction.template has {len(self.alphas)} points, the grid only {inside} between "
                f"{low:g} and {high:g}: raise grid.num."
            )

    def search(self, landscape: Landscape, generator: torch.Generator) -> Search:
        """Start with a Gaussian ε; see ``Miner.search``, and ``losses`` for what is refused."""
        theta, alphas = landscape.theta, self.alphas
        own = float(landscape.loss(theta))
        targets = self.losses(own, landscape.chance_loss)
        low, width = alphas[0], (alphas[-1] - alphas[0]) / self.points
        span = max(targets) - min(targets)
        noise = standard_normal(landscape.space.size, generator).to(theta)
        drawn = f"{self._basins} valleys" if self.template is None else f"{len(alphas)} points"
        name = f"mined curve of {drawn}"

        def step(
            loss: LossOnBatch, epsilon: Tensor, share: float, generator: torch.Generator
        ) -> tuple[Tensor, Tensor]:
            total, descent = torch.zeros_like(theta[0]), torch.zeros_like(theta)
            for part, offset in enumerate(torch.rand(self.points, generator=generator).tolist()):
                position = low + width * (part + offset)
                value, gradient = loss(torch.add(theta, epsilon, alpha=position))
                excess = (value - float(np.interp(position, alphas, targets))) / span
                slope = excess.clamp(-1, 1)
                total += slope * (excess - slope / 2) * (span / self.points)
                descent += slope * (position / self.points) * gradient
            return total, descent

        return Search(
            noise * (vector_norm(theta) / vector_norm(noise)),
            step,
            lambda epsilon: Direction(epsilon, name, info={"loss_at_theta": own}),
        )


def _is_pair(pair: Sequence[object]) -> bool:
    """Whether something is α and a loss, or ``None`` for the latter."""
    return (
        len(pair) == 2
        and isinstance(pair[0], int | float)
        and (pair[1] is None or isinstance(pair[1], int | float))
    )


def misfit(curve: Curve, template: Sequence[tuple[float, float]]) -> float:
    """Measure how far a curve lies from a template: root mean square over its points, nats.

    Args:
        curve: As evaluated; points beyond the ends of the template do not count.
        template: α, increasing, and loss, with straight lines between.
    """
    alphas, losses = zip(*template, strict=True)
    inside = (curve.alphas >= alphas[0]) & (curve.alphas <= alphas[-1])
    targets = torch.from_numpy(np.interp(curve.alphas[inside].numpy(), alphas, losses))
    return float((curve.loss[inside] - targets).square().mean().sqrt())
