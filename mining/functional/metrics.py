"""Loss and accuracy of outputs, batch after batch."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mining import InputError
from mining.functional.loss import Batch, Loss
from mining.functional.pytrees import tensors_of
from mining.ranks import Ranks


class Evaluation(NamedTuple):
    """Loss and accuracy over a set of examples."""

    loss: Tensor  # () float64, mean over examples, or the sum of a loss that is one
    accuracy: Tensor | None  # () float64 in [0, 1]; None where the targets are not class indices

    def row(self) -> Tensor:
        """Loss and accuracy, shape ``(2,)``, ``nan`` where there is no accuracy."""
        nothing = torch.full_like(self.loss, math.nan)
        return torch.stack([self.loss, nothing if self.accuracy is None else self.accuracy])


class Metrics(Protocol):
    """Takes the outputs for one batch after the other."""

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Take the outputs for ``batch``."""

    def row(self) -> Tensor:
        """Give what was found, loss and accuracy along the last axis."""


class MeanMetrics:
    """Loss and accuracy over batches: means, or the sum of a loss that is one.

    Args:
        loss_fn: The loss.
        batches: All that will be added.
        classes: Whether outputs score classes.
    """

    def __init__(self, loss_fn: Loss, batches: Sequence[Batch], *, classes: bool) -> None:
        self._loss_fn, self._batches, self._classes = loss_fn, batches, classes
        device = tensors_of(batches[0].inputs)[0].device
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Take the outputs for ``batch``."""
        if self._classes:
            kept = batch.targets != self._loss_fn.ignored
            self._correct += (kept & (outputs.argmax(1) == batch.targets)).sum()
        loss = self._loss_fn(outputs, batch.targets)
        if loss.is_meta:
            raise InputError(
                "The loss reads parameters of the model's first layer, which it did not do when "
                "the landscape was made. Use Landscape(..., plan=ExecutionPlan())."
            )
        self._loss += loss.detach().double() * batch.weight

    def add_up(self, group: Ranks) -> None:
        """Add what other ranks have of the batches."""
        self._loss, self._correct = group.sum(torch.stack([self._loss, self._correct])).unbind()

    def mean(self) -> Evaluation:
        """Give the means over all batches."""
        weight = self._loss_fn.denominator(batch.weight for batch in self._batches)
        counted = sum(batch.counted for batch in self._batches)
        return Evaluation(self._loss / weight, self._correct / counted if self._classes else None)

    def row(self) -> Tensor:
        """Give mean loss and accuracy, shape ``(2,)``, float64."""
        return self.mean().row()


class ExampleMetrics:
    """Loss of every example, and whether it is classified correctly."""

    def __init__(self, loss_fn: Loss, batches: Sequence[Batch], *, classes: bool) -> None:
        self._loss_fn, self._classes = loss_fn, classes
        self._rows: list[Tensor] = []

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Take the outputs for ``batch``."""
        correct = None
        if self._classes:
            correct = (outputs.argmax(1) == batch.targets).double()
        losses = self._loss_fn.each(outputs, batch.targets).detach().double()
        if correct is None:
            correct = torch.full_like(losses, math.nan)
        self._rows.append(torch.stack([losses, correct], 1))

    def row(self) -> Tensor:
        """Give the rows of all examples, shape ``(n, 2)``, float64."""
        return torch.cat(self._rows)


class ConfidenceMetrics:
    """The softmax probability of the predicted class of every example, and whether it is right.

    Examples whose target is ignored are left out.
    """

    def __init__(self, loss_fn: Loss) -> None:
        self._ignored = loss_fn.ignored
        self._rows: list[Tensor] = []

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Take the outputs for ``batch``, shape ``(B, C)``."""
        confidence, predicted = outputs.detach().double().softmax(1).max(1)
        rows = torch.stack([confidence, (predicted == batch.targets).double()], 1)
        self._rows.append(rows[batch.targets != self._ignored])

    def row(self) -> Tensor:
        """Give confidence and correctness of all examples, shape ``(n, 2)``, float64."""
        return torch.cat(self._rows)
