"""A callback of Lightning."""

from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader

from mining import InputError
from mining.functional.loss import LossFunction
from mining.functional.model_call import Objective
from mining.monitoring.adapters import LateMonitor, Per
from mining.monitoring.monitor import Monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("Lightning is missing: pip install 'mining[lightning]'") from error


class LightningMonitor(Callback):
    """Measures the curvature while Lightning trains: ``Trainer(callbacks=[LightningMonitor(…)])``.

    The loss is given here, because ``training_step`` may do more than compute it, such as logging.
    Batches are those of the loader, before the hooks of Lightning that transfer them.

    Args:
        loss_fn: The loss, as for ``Landscape``, of what the module returns.
        objective: Instead of ``loss_fn``: maps module and batch to the loss of the batch.
        batches: Examples of the training; ``None``: the loader that Lightning trains on.
        per: Whether ``every`` counts epochs, or steps of the optimizer.
        options: Others of ``Monitor``: ``every``, ``path``, and so on.

    Raises:
        InputError: In the training, if there are several optimizers, processes or loaders.
    """

    def __init__(
        self,
        loss_fn: LossFunction | None = None,
        *,
        objective: Objective | None = None,
        batches: Iterable[Any] | None = None,
        per: Per = "epoch",
        **options: Any,
    ) -> None:
        self._late = LateMonitor(per, loss_fn, objective, batches, options)
        self._steps = 0  # of the optimizer, when it was last measured

    @property
    def monitor(self) -> Monitor:
        """The monitor, with its ``table``, once the training has begun."""
        return self._late.monitor

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any, **options: Any
    ) -> None:
        """Measure, unless gradients are still accumulated."""
        if self._late.per == "step" and trainer.global_step != self._steps:
            self._steps = trainer.global_step
            self._measure(trainer, pl_module, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        if self._late.per == "epoch":
            self._measure(trainer, pl_module, trainer.current_epoch + 1)

    def _measure(self, trainer: Trainer, module: LightningModule, name: int) -> None:
        if len(trainer.optimizers) != 1 or trainer.world_size != 1:
            raise InputError(
                "LightningMonitor takes one optimizer in one process, got "
                f"{len(trainer.optimizers)} in {trainer.world_size}: call Monitor.step yourself."
            )
        self._late.step(name, module, lambda: _loader(trainer), trainer.optimizers[0])


def _loader(trainer: Trainer) -> Any:
    loader = trainer.train_dataloader
    if not isinstance(loader, DataLoader):
        raise InputError(
            f"The training must have one DataLoader, got {type(loader).__name__}: give "
            "LightningMonitor batches and objective."
        )
    return loader
