"""A callback of the Trainer of transformers."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from mining import InputError
from mining.functional.model_call import Objective
from mining.monitoring.adapters import LateMonitor, Per
from mining.monitoring.monitor import Monitor

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("transformers is missing: pip install 'mining[hf]'") from error


def _own_loss(model: nn.Module, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


class TrainerMonitor(TrainerCallback):
    """Measures the curvature while a ``Trainer`` trains: ``Trainer(callbacks=[TrainerMonitor()])``.

    Every batch counts by its number of examples. What ``Trainer.compute_loss`` adds to the loss of
    the model, such as label smoothing, is not in it: give an ``objective`` that has it.

    Args:
        objective: Maps model and batch to the loss of the batch; ``None``: the loss that the model
            returns.
        batches: Examples of the training; ``None``: those of the ``Trainer``.
        per: Whether ``every`` counts epochs, or steps of the optimizer.
        options: Others of ``Monitor``: ``every``, ``path``, and so on.

    Raises:
        InputError: In the training, if there are several processes.
    """

    def __init__(
        self,
        *,
        objective: Objective | None = None,
        batches: Iterable[Any] | None = None,
        per: Per = "epoch",
        **options: Any,
    ) -> None:
        self._late = LateMonitor(per, None, objective or _own_loss, batches, options)

    @property
    def monitor(self) -> Monitor:
        """The monitor, with its ``table``, once the training has begun."""
        return self._late.monitor

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Measure, while the gradients and the rate of the step are still there."""
        if self._late.per == "step":
            self._measure(args, state.global_step + 1, parts)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Measure."""
        if self._late.per == "epoch" and state.epoch is not None:
            self._measure(args, round(state.epoch, 6), parts)

    def _measure(self, args: TrainingArguments, name: float, parts: dict[str, Any]) -> None:
        if args.world_size != 1:
            raise InputError(
                f"TrainerMonitor takes one process, got {args.world_size}: measure checkpoints."
            )
        # accelerate wraps the optimizer, whose kind the monitor has to know.
        optimizer = getattr(parts["optimizer"], "optimizer", parts["optimizer"])
        self._late.step(name, parts["model"], lambda: parts["train_dataloader"], optimizer)
