"""What a loss function tells about itself."""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining import InputError
from mining.functional.memory import is_out_of_memory
from mining.functional.model_call import Objective
from mining.functional.pytrees import num_examples, rows, split
from mining.storage.fingerprint import describe

#: Maps outputs and targets to the loss of a batch, shape ``()``.
LossFunction = Callable[[Any, Any], Tensor]
#: Maps what a loader yields, inputs and targets for instance, to the denominator of the mean.
WeightFunction = Callable[[Any], Tensor | float]
#: Maps what a loader yields to the number of its examples.
CountFunction = Callable[[Any], int]


class Batch(NamedTuple):
    """Examples on the device of the model, and what they weigh in a mean."""

    inputs: Any  # a tensor (B, ...) or a structure of such; the whole batch of an objective
    targets: Any  # (B, ...) likewise; None for an objective
    weight: float  # B; the sum of class weights, or fewer where targets are ignored; 1 of a sum
    counted: int  # targets that are not ignored
    num_examples: int  # B


@dataclass
class Loss:
    """A loss function, and how its mean over a batch weighs against that over another."""

    function: LossFunction | Objective
    #: What the mean over a batch is divided by, where that is not to be found out.
    weight: WeightFunction | None = None
    #: Whether it works in place on outputs or targets, and so is given copies.
    in_place: bool = False
    #: Computes the loss from model and batch: what a pass gives is the loss then, not outputs.
    objective: Objective | None = None
    #: Counts the examples of a batch; by default as ``num_examples`` does.
    count: CountFunction | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss over a batch, shape ``()``.

        A loss may read the model: call it where parameters are substituted.

        Raises:
            InputError: If it changes the targets, which it did not when it was tried.
        """
        if self.objective is not None:
            return outputs
        if self.in_place:
            return self.function(outputs.clone(), targets.clone())
        version = targets._version
        loss = self.function(outputs, targets)
        if targets._version != version:
            raise InputError(
                "The loss changed the targets in place, which it did not do when the landscape was "
                "made: the targets are overwritten. Let it use a copy."
            )
        return loss

    def try_out(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of copies, and note whether it works in place on them."""
        if self.objective is not None:
            return outputs
        # What is differentiated by cannot be changed in place, and a copy is another tensor.
        copies = [t if t.requires_grad and t.is_leaf else t.clone() for t in (outputs, targets)]
        versions = [copy._version for copy in copies]
        loss = self.function(*copies)
        self.in_place = versions != [copy._version for copy in copies] or not torch.equal(
            copies[1], targets
        )
        return loss

    @property
    def name(self) -> str:
        """The name of the function or of the class of the loss."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def reduction(self) -> str | None:
        """What the loss says about itself: ``mean``, ``sum``, ``none``; ``None`` if nothing."""
        keywords = self.function.keywords if isinstance(self.function, partial) else {}
        found = keywords.get("reduction", getattr(self.function, "reduction", None))
        return None if found is None else str(found)

    @property
    def sums(self) -> bool:
        """Whether it is a sum over the examples of a batch, not their mean."""
        return self.reduction == "sum"

    def denominator(self, weights: Iterable[float]) -> float:
        """Give what the weighted sum of the losses of batches is divided by."""
        total = sum(weights)
        return float(total > 0) if self.sums else total

    @property
    def cross_entropy(self) -> bool:
        """Whether it is the cross-entropy of class scores."""
        return self.function is F.cross_entropy or isinstance(self.function, nn.CrossEntropyLoss)

    @property
    def takes_indices(self) -> bool:
        """Whether its integer targets are indices of classes, weighted or ignored."""
        if self.objective is not None:
            return False
        nll = self.function is F.nll_loss or isinstance(self.function, nn.NLLLoss)
        return nll or self.cross_entropy

    @property
    def log_c_at_chance(self) -> bool:
        """Whether its chance level for C classes is log C: no subclass may add to it."""
        if self.function is F.cross_entropy:
            return True
        loss = self.function
        # Smoothing spreads a target over all classes, whose weights are not those of the mean.
        return type(loss) is nn.CrossEntropyLoss and not (
            loss.label_smoothing > 0 and loss.weight is not None
        )

    @property
    def known(self) -> bool:
        """Whether it is one of torch's own, whose means over batches ``weigh`` knows."""
        if self.objective is not None:
            return False
        kind = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        return str(getattr(kind, "__module__", "")).startswith("torch.nn")

    def averages(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether batch losses average to the loss of all examples, without trying it out.

        A column of outputs and a row of targets are broadcast to all pairs of examples.
        """
        alike = self.takes_indices or outputs.shape[1:] == targets.shape[1:]
        return self.known and self.weight is None and alike

    @property
    def ignored(self) -> int:
        """The target that is left out, -100 where nothing else is said."""
        ignored: int = getattr(self.function, "ignore_index", -100)
        return ignored

    def batch(self, inputs: Any, targets: Any) -> Batch:
        """Make a batch of its inputs and targets, with what it weighs in a mean.

        Raises:
            InputError: If it holds no tensor with an axis, or ``weight`` or the function that
                counts examples gives something else than a number that is not negative.
        """
        given = inputs if self.objective is not None and targets is None else (inputs, targets)
        num = num_examples(inputs) if self.count is None else self.count(given)
        if isinstance(num, bool) or not isinstance(num, int) or num < 1:
            raise InputError(f"count must return the number of examples, at least 1, got {num!r}.")
        return Batch(inputs, targets, *self.weigh(inputs, targets, num), num)

    def weigh(self, inputs: Any, targets: Any, num: int | None = None) -> tuple[float, int]:
        """Find the denominator of the mean loss over a batch.

        Args:
            inputs: Shape ``(B, ...)``, or a structure of such tensors.
            targets: Shape ``(B, ...)``; ``None`` for an objective.
            num: B, where it was counted.

        Returns:
            The denominator, the number of targets where neither class weights nor ignored ones
            matter, and the number of targets that are not ignored. A sum is divided by 1.

        Raises:
            InputError: If ``weight`` gives something else than a number that is not negative.
        """
        num = num_examples(inputs) if num is None else num
        if self.objective is not None:
            weight = 1.0 if self.sums else float(num)
            return weight if self.weight is None else self._given_weight(inputs), num
        if self.weight is not None:
            counted = int((targets != self.ignored).sum())
            return self._given_weight((inputs, targets)), counted
        weight, counted = self._denominator(targets)
        return 1.0 if self.sums else weight, counted

    def _given_weight(self, batch: Any) -> float:
        assert self.weight is not None
        given = self.weight(batch)
        if isinstance(given, Tensor) and given.numel() != 1:
            raise InputError(
                f"weight must return one number for a batch, got shape {tuple(given.shape)}."
            )
        if not 0 <= float(given) < math.inf:
            raise InputError(f"weight must not be negative, got {float(given)} for a batch.")
        return float(given)

    def _denominator(self, targets: Tensor) -> tuple[float, int]:
        """Find what torch divides the mean of its own losses by, and the targets that count."""
        indices = not targets.is_floating_point() and self.takes_indices
        class_weights: Tensor | None = getattr(self.function, "weight", None)
        if not indices:
            return float(len(targets)), len(targets)
        if class_weights is None and self.ignored not in targets:
            return float(targets.numel()), targets.numel()
        kept = targets[targets != self.ignored].long()  # bytes would be a mask
        if class_weights is not None and len(kept):
            smallest, largest = int(kept.min()), int(kept.max())
            if smallest < 0 or largest >= len(class_weights):
                raise InputError(
                    f"Labels must be from 0 to {len(class_weights) - 1}, for which there are class "
                    f"weights, or {self.ignored}, which is ignored: got {smallest} to {largest}."
                )
        weight = len(kept) if class_weights is None else class_weights.to(kept.device)[kept].sum()
        return float(weight), len(kept)

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of every example, shape ``(B,)``.

        Raises:
            InputError: If the loss over the batch is not their plain mean: with class weights,
                ignored targets, or a loss that compares examples.
        """
        if self.objective is not None:
            raise InputError(
                "tolerance needs the losses of single examples: give model and loss_fn with "
                "outputs and targets that are tensors, or leave tolerance out."
            )
        if self.sums:
            raise InputError("tolerance needs a loss that is a plain mean: reduction='mean'.")
        if self.weight is not None:
            raise InputError("tolerance needs a loss that is a plain mean: leave weight out.")

        def loss_of_one(output: Tensor, target: Tensor) -> Tensor:
            return self(output[None], target[None])

        losses: Tensor
        try:
            losses = torch.vmap(loss_of_one)(outputs, targets)
        except RuntimeError as reason:  # it looks at values, or runs the model: one by one then
            if is_out_of_memory(reason):
                raise
            pairs = zip(outputs, targets, strict=True)
            try:
                losses = torch.stack([loss_of_one(*pair).to(outputs.device) for pair in pairs])
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                raise InputError(
                    f"The loss does not take a single example ({error}): leave tolerance out."
                ) from error
        mean, expected = losses.double().mean(), self(outputs, targets).double()
        eps = torch.finfo(losses.dtype).eps
        rounding = min(1e3 * eps, 4 * eps + 1e-4) * losses.double().abs().mean()
        if expected.isfinite() and not (mean - expected).abs() <= rounding:
            raise InputError(
                f"The loss of a batch is {float(expected):.6g} and the mean over its examples "
                f"{float(mean):.6g}: tolerance needs a loss that is a plain mean. Leave out class "
                "weights and ignored targets, or tolerance."
            )
        return losses

    def split(self, batches: Iterable[Batch], size: int) -> list[Batch]:
        """Cut batches into pieces of at most ``size`` examples, each weighing what it holds."""
        parts: list[Batch] = []
        for batch in batches:
            if batch.num_examples <= size:
                parts.append(batch)
            else:
                parts += [self.batch(*pair) for pair in split((batch.inputs, batch.targets), size)]
        return parts

    def cut(self, batches: Iterable[Batch], low: int, high: int) -> list[Batch]:
        """Take the examples from number ``low`` to before ``high`` of batches laid end to end."""
        parts: list[Batch] = []
        start = 0
        for batch in batches:
            first, last = max(low - start, 0), min(high - start, batch.num_examples)
            if last - first == batch.num_examples:
                parts.append(batch)
            elif first < last:
                parts.append(self.batch(*rows((batch.inputs, batch.targets), slice(first, last))))
            start += batch.num_examples
        return parts

    def describe(self, counters: Collection[str] = ()) -> list[object]:
        """Describe the loss and its plain settings but ``counters``, the same in every process."""
        plain = {k: v for k, v in self.settings().items() if k not in counters}
        return [describe(self.function), plain]

    def settings(self) -> dict[str, bool | int | float | str]:
        """Give the plain attributes of a loss that is a module."""
        attributes = vars(self.function) if isinstance(self.function, nn.Module) else {}
        return {k: v for k, v in attributes.items() if isinstance(v, bool | int | float | str)}

    def tensors(self) -> list[Tensor]:
        """List its own tensors, class weights for instance."""
        return (
            list(self.function.state_dict().values())
            if isinstance(self.function, nn.Module)
            else []
        )
