"""Trials of execution plans on a few examples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mining.functional.execution_plan import ExecutionPlan
from mining.functional.loss import Batch, Loss
from mining.functional.rounding import nearly_equal
from mining.functional.shared_first_layer import FirstLayer
from mining.functional.substitution import Forward, Substitution

#: Inputs and targets.
Pair = tuple[Any, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a model and its loss gave for a few batches, one after the other."""

    outputs: list[Tensor]  # of each batch
    losses: list[Tensor]  # of each batch, ()

    @property
    def joined(self) -> Tensor:
        """The outputs for all examples."""
        return torch.cat(self.outputs)

    def agrees(self, other: "Outcome", rounding: float) -> bool:
        """Whether outputs are the same, and the losses of the same outputs."""
        # A loss that reads tensors without values has none itself.
        if any(a.device != b.device for a, b in zip(self.losses, other.losses, strict=True)):
            return False
        return nearly_equal(self.joined, other.joined, rounding) and nearly_equal(
            torch.stack(self.losses), torch.stack(other.losses), rounding
        )


@dataclass(frozen=True)
class Trial:
    """What ways to run a model are tried on.

    Args:
        model: The model.
        forward: Runs it with what is in it, in evaluation mode.
        substitution: Puts tensors into it.
        theta: Parameters and buffers by name.
        change: What the parameters that vary are moved by for a second trial, by name.
        batches: Examples, as a loader gave them.
        loss_fn: The loss, which may read the model and what a forward pass left in it.
    """

    model: nn.Module
    forward: Forward
    substitution: Substitution
    theta: Mapping[str, Tensor]
    change: Mapping[str, Tensor]
    batches: Sequence[Batch]
    loss_fn: Loss

    def run(
        self,
        plan: ExecutionPlan,
        parts: Sequence[Pair],
        *,
        moved: bool,
        given: Sequence[Tensor] | None = None,
    ) -> Outcome:
        """Run model and loss by a plan at one of the two points.

        Args:
            plan: The execution plan.
            parts: Inputs and targets.
            moved: Whether at the second point.
            given: Outputs of which the losses are to be, where not those that were found: what
                they differ by is then no rounding of the outputs.
        """
        tensors = self.tensors(moved=moved)
        run = plan.folding.fold(self.forward, tensors)
        with self.substitution(tensors):
            return self._outcome(lambda inputs: run(plan.prepare(inputs)), parts, given)

    def run_shared(
        self, layer: FirstLayer, parts: Sequence[Pair], given: Sequence[Tensor]
    ) -> Outcome:
        """Run model and loss at the second point with pre-activations of the first layer."""
        tensors = layer.without(self.tensors(moved=True))
        products = layer.products(self.theta, [self.change])

        def run(inputs: Tensor) -> Tensor:
            at_theta, change = products(inputs)
            return layer.fill_in(self.forward, tensors)(inputs, at_theta + change)

        with self.substitution(tensors):
            return self._outcome(run, parts, given)

    def _outcome(
        self, run: Forward, parts: Sequence[Pair], given: Sequence[Tensor] | None
    ) -> Outcome:
        found = Outcome([], [])
        for index, (inputs, targets) in enumerate(parts):
            outputs = run(inputs)
            loss = self.loss_fn(outputs if given is None else given[index], targets)
            found.outputs.append(outputs)
            found.losses.append(loss.detach())
        return found

    def mean_loss(self, outcome: Outcome, parts: Sequence[Pair]) -> float:
        """Average the losses of parts as those of batches are."""
        weights = [self.loss_fn.weigh(*pair)[0] for pair in parts]
        losses = zip(weights, outcome.losses, strict=True)
        total = sum(weight * float(loss) for weight, loss in losses if weight)
        return total / self.loss_fn.denominator(weights) if any(weights) else math.nan

    def tensors(self, *, moved: bool) -> dict[str, Tensor]:
        """Give parameters and buffers at one of the two points."""
        change = self.change if moved else {}
        return {n: t + change[n] if n in change else t for n, t in self.theta.items()}
