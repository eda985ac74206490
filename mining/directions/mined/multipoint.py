"""Directions along which the loss follows a template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.base import Direction, Scale
from mining.directions.mined.miner import Descent, Miner, Search
from mining.functional.minibatches import LossOnBatch
from mining.functional.random_vectors import standard_normal
from mining.landscape import Landscape

#: Largest deviation of a template from the loss of θ at α = 0, as a fraction of its range.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Multipoint(Miner):
    """Fits the curve L(θ + αε) to a template t(α) by optimizing ε, with θ fixed.

    The template is a piecewise linear function of α. Each step divides its interval into
    ``points`` equal parts, draws one α from each, and descends along the mean of
    α·clip((L - t)/s)·∇L(θ + αε), where clip restricts to [-1, 1] and s is the range of the
    template. This is the gradient of s·h((L - t)/s) with the Huber loss h. It is the multi-point
    optimization of Skorokhodov and Burtsev (2019), arXiv:1910.03867, on a line instead of a plane
    and with θ given, so the curve passes through the loss of θ by construction. ε starts as a
    Gaussian with the norm of θ.

    Args:
        basins: Number of valleys, as an alternative to ``template``: the first at θ, all as deep
            as θ, equally spaced, with a last barrier at α = 1; ``None``: 3.
        barrier: Loss of the barriers between ``basins``, nats; ``None``: the chance level.
        template: Pairs of α (increasing) and loss; ``None`` as a loss stands for the loss of θ.
        points: Points of the curve evaluated per step.
        descent: Epochs, learning rate and other settings of the optimizer.

    Raises:
        InputError: If the α of the template do not increase or do not enclose 0, or a number is
            out of range.
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
                "direction.template replaces direction.basins and direction.barrier: leave out "
                "either the template or those."
            )
        pairs = [tuple(p) if isinstance(p, Sequence) else (p,) for p in self.template]
        if len(pairs) < 2 or not all(map(_is_pair, pairs)):
            raise InputError(
                "direction.template must be at least two pairs [alpha, loss] of numbers, got "
                f"{list(self.template)}."
            )
        alphas = [float(pair[0]) for pair in pairs if pair[0] is not None]
        if not all(a < b for a, b in pairwise(alphas)) or not all(map(math.isfinite, alphas)):
            raise InputError(
                f"direction.template must have increasing, finite alphas, got {alphas}."
            )
        if not alphas[0] <= 0 <= alphas[-1]:
            raise InputError(
                f"direction.template must include alpha = 0, the position of θ, got {alphas}."
            )
        if not all(pair[1] is None or math.isfinite(pair[1]) for pair in pairs):
            raise InputError(f"direction.template must have finite losses, got {pairs}.")
        object.__setattr__(self, "template", tuple(pairs))

    @property
    def _basins(self) -> int:
        return 3 if self.basins is None else self.basins

    @property
    def alphas(self) -> tuple[float, ...]:
        """The α of the points of the template."""
        if self.template is not None:
            return tuple(float(pair[0] or 0.0) for pair in self.template)
        return tuple(i / (2 * self._basins - 1) for i in range(2 * self._basins))

    def losses(self, own: float, chance: float | None) -> tuple[float, ...]:
        """Return the losses of the points of the template.

        Args:
            own: The loss of θ.
            chance: The chance-level loss, if there is one.

        Raises:
            InputError: If they do not match the loss of θ at α = 0, or are constant.
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
            raise InputError(f"direction.template is constant at {own:.4g}: its losses must vary.")
        if chance is not None and min(losses) < 0:
            raise InputError(
                f"direction.template must not be below 0 for cross-entropy, got {min(losses):.4g}."
            )
        at_theta = float(np.interp(0.0, self.alphas, losses))
        if abs(at_theta - own) > _TOLERANCE * span:
            raise InputError(
                f"direction.template gives {at_theta:.4g} at alpha = 0, but the loss of θ is "
                f"{own:.4g}. Use that loss there (null stands for it)."
            )
        return losses

    def target_curve(self, own: float, chance: float | None) -> list[tuple[float, float]]:
        """Return the points of the template; see ``DirectionSource.target_curve``."""
        return list(zip(self.alphas, self.losses(own, chance), strict=True))

    def check_grid(self, alphas: Tensor, scale: Scale = 1.0) -> None:
        """Raise ``InputError`` if a grid, shape ``(T,)``, does not cover the template."""
        if scale == "curvature":
            raise InputError("grid.scale=curvature would stretch the template: give a number.")
        alphas = alphas * scale
        low, high = self.alphas[0], self.alphas[-1]
        rounding = 1e-6 * float(alphas[-1] - alphas[0])
        if low < alphas[0] - rounding or high > alphas[-1] + rounding:
            raise InputError(
                f"direction.template extends from {low:g} to {high:g}, the grid only from "
                f"{float(alphas[0]):g} to {float(alphas[-1]):g}: set grid.low and grid.high."
            )
        inside = int(((alphas >= low - rounding) & (alphas <= high + rounding)).sum())
        if inside < len(self.alphas):
            raise InputError(
                f"direction.template has {len(self.alphas)} points, the grid only {inside} between "
                f"{low:g} and {high:g}: raise grid.num."
            )

    def search(self, landscape: Landscape, generator: torch.Generator) -> Search:
        """Start with a Gaussian ε; see ``Miner.search``, and ``losses`` for the errors."""
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
            lambda epsilon: Direction(epsilon, name, loss_at_theta=own),
        )


def _is_pair(pair: Sequence[object]) -> bool:
    """Whether ``pair`` is a pair of α and a loss, which may be ``None``."""
    return (
        len(pair) == 2
        and isinstance(pair[0], int | float)
        and (pair[1] is None or isinstance(pair[1], int | float))
    )
