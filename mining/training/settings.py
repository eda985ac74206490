"""How a network is trained."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe of a training; the defaults are those of Xu et al. (2024), Appendix A.1.

    The paper names neither momentum nor schedule: momentum 0.9 and cosine are the usual choice.

    Args:
        epochs: Passes over the training examples.
        batch_size: Examples per step.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        lr: Learning rate of the first epoch.
        momentum: Of ``sgd``; the other two keep their own defaults.
        weight_decay: L2 penalty, decoupled for ``adamw``.
        schedule: ``cosine`` to zero, ``step`` (a tenth at 50 % and again at 75 % of the epochs),
            or ``constant``.
        augment: Random crops after zero padding by 4 pixels, and horizontal flips.
        bf16: Forward passes of the training in bfloat16 where safe (autocast).
        checkpoints: Epochs after which a checkpoint is kept, 0 being the initialization; those
            beyond ``epochs`` are left out, the last epoch is always kept.

    Raises:
        ValueError: If a value is out of its range.
    """

    epochs: int = 200
    batch_size: int = 128
    optimizer: OptimizerName = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "cosine"
    augment: bool = False
    bf16: bool = False
    checkpoints: tuple[int, ...] = (0, 10, 50, 100, 200)

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoints", tuple(self.checkpoints))
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}.")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"train.lr must be positive, got {self.lr}.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"train.momentum must lie in [0, 1), got {self.momentum}.")
        if not self.weight_decay >= 0:
            raise ValueError(f"train.weight_decay must not be negative, got {self.weight_decay}.")
        if any(epoch < 0 for epoch in self.checkpoints):
            raise ValueError(f"train.checkpoints must not be negative, got {self.checkpoints}.")
        for name, allowed in (("optimizer", OptimizerName), ("schedule", ScheduleName)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"train.{name} must be one of {get_args(allowed)}, got {getattr(self, name)!r}."
                )

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """The epochs whose checkpoints are kept, increasing."""
        return tuple(sorted({e for e in self.checkpoints if e < self.epochs} | {self.epochs}))

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate during an epoch, counted from 0."""
        match self.schedule:
            case "cosine":
                return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
            case "step":
                return self.lr * 0.1 ** (
                    (2 * epoch >= self.epochs) + (4 * epoch >= 3 * self.epochs)
                )
            case "constant":
                return self.lr

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer of ``parameters``."""
        lr, decay = self.lr, self.weight_decay
        match self.optimizer:
            case "sgd":
                return torch.optim.SGD(
                    parameters, lr=lr, momentum=self.momentum, weight_decay=decay, fused=True
                )
            case "adam":
                return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True)
            case "adamw":
                return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
