"""Rules by which two coefficients move θ, where that is not θ + αx + βy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mining import InputError
from mining.directions.adam_state import StepSettings
from mining.directions.base import Direction
from mining.functional.parameters import ParameterSpace


class UpdateRule(ABC):
    """Maps two coefficients and two directions to a displacement of θ, 0 at α = β = 0."""

    @abstractmethod
    def displacement(
        self, theta: Tensor, x: Tensor, y: Tensor, alpha: float, beta: float
    ) -> Tensor:
        """Return the displacement of θ, shape ``(D,)``.

        Args:
            theta: θ, shape ``(D,)``.
            x: First direction, shape ``(D,)``.
            y: Second direction, shape ``(D,)``.
            alpha: Coefficient of the first.
            beta: Coefficient of the second.
        """

    def check(self, x: Direction, y: Direction, alphas: Tensor, betas: Tensor) -> None:  # noqa: B027
        """Raise ``InputError`` if directions or coefficients do not suit the rule."""


@dataclass(frozen=True)
class AdamRule(UpdateRule):
    """The update of Adam: θ - α η (m / c₁) / (√((1 + β) v / c₂) + ε), α = 1 and β = 0 is a step.

    m and v are the first and the second moment, η the learning rate, and c₁ = 1 - β₁ᵗ and
    c₂ = 1 - β₂ᵗ correct their bias. AdamW subtracts α η λ θ as well. At α = 1 and β = 0 the point
    is where one step of the optimizer leads without a new gradient. From the weights before its
    last step, that step leads there; and α = -1 undoes it if the learning rate is still that of
    that step, except for the decay of AdamW.

    Gabdullin (2024), Sec. 2.1, has this rule as an option (``adameq``); its program adds
    a / √b · m / (√v + ε) with a from -1 to 1 and b from 0.1 to 2.1, without the learning rate: α is
    -a up to a factor, and β is b - 1.

    Args:
        space: The parameters.
        steps: By what a step of the optimizer moves each of them.

    Raises:
        InputError: If there is not one of ``steps`` for each parameter.
    """

    space: ParameterSpace
    steps: tuple[StepSettings, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.space.names):
            raise InputError(
                f"steps must be one for each of {len(self.space.names)} parameters, got "
                f"{len(self.steps)}."
            )

    def displacement(
        self, theta: Tensor, x: Tensor, y: Tensor, alpha: float, beta: float
    ) -> Tensor:
        """Return the displacement; see ``UpdateRule.displacement``."""
        pieces = (torch.split(vector, self.space.sizes) for vector in (theta, x, y))
        found = []
        for step, own, first, second in zip(self.steps, *pieces, strict=True):
            root = ((1 + beta) / step.second_correction * second).sqrt().add_(step.eps)
            change = (first / step.first_correction).div_(root).add_(own, alpha=step.decay)
            found.append(change.mul_(-alpha * step.lr))
        return torch.cat(found)

    def check(self, x: Direction, y: Direction, alphas: Tensor, betas: Tensor) -> None:
        """Raise ``InputError`` if a second moment would be negative; see ``UpdateRule.check``."""
        if not bool((1 + betas > 0).all()):
            raise InputError(
                "adameq multiplies the second moment by 1 + beta: grid.y_low must lie above -1, "
                f"got {float(betas.min()):g}."
            )
        if bool((y.vector < 0).any()):
            raise InputError(
                f"adameq takes the root of the second direction, and {y.name} has negative "
                "entries: take the second moment, with orthogonalize=false."
            )
        for direction in (x, y):
            if direction.scale not in (None, 1.0):
                raise InputError(
                    f"adameq takes moments as long as they are, and {direction.name} was "
                    f"multiplied by {direction.scale:g}: leave grid.scale at 1."
                )

    def frozen(self, parameters: str | Sequence[str]) -> "AdamRule":
        """Leave some parameters where they are, those that ``ParameterSpace.select`` selects."""
        still = set(self.space.select(parameters).names)
        pairs = zip(self.space.names, self.steps, strict=True)
        steps = tuple(replace(step, lr=0.0) if name in still else step for name, step in pairs)
        return replace(self, steps=steps)
