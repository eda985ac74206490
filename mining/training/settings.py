"""How a network is trained."""

from dataclasses import dataclass

from mining import InputError
from mining.training.optimization import OptimizerName, ScheduleName, check_recipe


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
        InputError: If a value is out of its range.
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
        check_recipe(self, "train")
        if any(epoch < 0 for epoch in self.checkpoints):
            raise InputError(f"train.checkpoints must not be negative, got {self.checkpoints}.")

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """The epochs whose checkpoints are kept, increasing."""
        return tuple(sorted({e for e in self.checkpoints if e < self.epochs} | {self.epochs}))
