"""What trainings and miners share: the recipe of a stochastic optimization."""

import math
from collections.abc import Iterable
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mining import InputError

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["cosine", "step", "constant"]


class Recipe(Protocol):
    """What a recipe says."""

    @property
    def epochs(self) -> int:
        """Passes over the examples."""

    @property
    def batch_size(self) -> int:
        """Examples per step."""

    @property
    def optimizer(self) -> OptimizerName:
        """``sgd``, ``adam`` or ``adamw``."""

    @property
    def lr(self) -> float:
        """Learning rate of the first epoch."""

    @property
    def momentum(self) -> float:
        """Of ``sgd``; the other two keep their own defaults."""

    @property
    def weight_decay(self) -> float:
        """L2 penalty, decoupled for ``adamw``."""

    @property
    def schedule(self) -> ScheduleName:
        """``cosine`` to zero, ``step`` (a tenth at 50 % and again at 75 %) or ``constant``."""


def check_recipe(recipe: Recipe, prefix: str) -> None:
    """Raise ``InputError`` for a value out of its range, with ``prefix`` before its name."""
    for name in ("epochs", "batch_size"):
        if getattr(recipe, name) < 1:
            raise InputError(f"{prefix}.{name} must be at least 1, got {getattr(recipe, name)}.")
    if not (recipe.lr > 0 and math.isfinite(recipe.lr)):
        raise InputError(f"{prefix}.lr must be positive, got {recipe.lr}.")
    if not 0 <= recipe.momentum < 1:
        raise InputError(f"{prefix}.momentum must lie in [0, 1), got {recipe.momentum}.")
    if not recipe.weight_decay >= 0:
        raise InputError(f"{prefix}.weight_decay must not be negative, got {recipe.weight_decay}.")
    for name, allowed in (("optimizer", OptimizerName), ("schedule", ScheduleName)):
        if getattr(recipe, name) not in get_args(allowed):
            raise InputError(
                f"{prefix}.{name} must be one of {get_args(allowed)}, got "
                f"{getattr(recipe, name)!r}."
            )


def make_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer) -> LambdaLR:
    """Make the schedule of the learning rate, stepped once per epoch.

    It is given in closed form. ``CosineAnnealingLR`` and ``MultiStepLR`` compute each rate from the
    one before and accumulate rounding errors, which would depend on the number of epochs.
    """

    def factor(epoch: int) -> float:
        match recipe.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
            case "step":
                return 0.1 ** ((2 * epoch >= recipe.epochs) + (4 * epoch >= 3 * recipe.epochs))
            case "constant":
                return 1.0

    return LambdaLR(optimizer, factor)


def make_optimizer(recipe: Recipe, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Make the optimizer of ``parameters``."""
    lr, decay = recipe.lr, recipe.weight_decay
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters, lr=lr, momentum=recipe.momentum, weight_decay=decay, fused=True
            )
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
