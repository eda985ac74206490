"""What the adapters for other libraries' loops have in common."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from mining import InputError
from mining.functional.loss import LossFunction
from mining.functional.model_call import Objective
from mining.monitoring.monitor import Monitor

#: After what ``Monitor.step`` is called.
Per = Literal["epoch", "step"]


class LateMonitor:
    """A monitor that is made when the loop shows its model and its examples.

    Args:
        per: Whether ``step`` is called after every epoch, or after every step of the optimizer.
        loss_fn: As for ``Monitor``.
        objective: As for ``Monitor``.
        batches: Examples of the training; ``None``: those of the loop.
        options: Others of ``Monitor``.

    Raises:
        InputError: If ``per`` is unknown.
    """

    def __init__(
        self,
        per: Per,
        loss_fn: LossFunction | None,
        objective: Objective | None,
        batches: Iterable[Any] | None,
        options: dict[str, Any],
    ) -> None:
        if per not in ("epoch", "step"):
            raise InputError(f"per must be epoch or step, got {per!r}.")
        self.per = per
        self.made: Monitor | None = None
        self._loss_fn, self._objective = loss_fn, objective
        self._batches, self._options = batches, options

    @property
    def monitor(self) -> Monitor:
        """The monitor, once the training has begun.

        Raises:
            InputError: If it has not.
        """
        if self.made is None:
            raise InputError("Nothing is measured before the first epoch or step of the training.")
        return self.made

    def step(
        self,
        name: float,
        model: nn.Module,
        batches: Callable[[], Any],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Call ``Monitor.step``, of a new monitor if the loop trains another model.

        Args:
            name: Of the row: a number of epochs or of steps.
            model: The model.
            batches: Gives the loader of the loop.
            optimizer: The optimizer.
        """
        if self.made is None or self.made.model is not model:
            examples = batches() if self._batches is None else self._batches
            self.made = Monitor(
                model, self._loss_fn, examples, objective=self._objective, **self._options
            )
        self.made.step(name, optimizer)
