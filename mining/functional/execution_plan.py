"""Execution plans: faster ways to run a model that reproduce its outputs to rounding."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mining.functional.batchnorm import modes
from mining.functional.fuse_batchnorm import Folding, tensors_in
from mining.functional.loss import Batch, Loss
from mining.functional.memory import is_out_of_memory
from mining.functional.rounding import nearly_equal
from mining.functional.shared_first_layer import FirstLayer
from mining.functional.substitution import Forward, Substitution

log = logging.getLogger(__name__)

#: Size of the largest activation of one pass on a CPU, bytes; several fit its caches together.
_CACHED = 4 * 2**20
_FEWEST, _MOST = 16, 4096  # limits of the micro-batch that follows from it
_TRIED = 96  # examples on which execution plans are tried

#: Inputs and targets.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ExecutionPlan:
    """An execution plan; ``ExecutionPlan()`` runs the unmodified model.

    Args:
        micro_batch: Examples per pass; ``None``: whole batches.
        channels_last: Whether images are stored with channels last.
        folding: The batch norms fused into the layer before them.
        first_layer: A linear layer on the inputs whose products are shared by all points.
    """

    micro_batch: int | None = None
    channels_last: bool = False
    folding: Folding = field(default_factory=Folding)
    first_layer: FirstLayer | None = None
    #: Why faster plans were rejected.
    reasons: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def because(self, *reasons: str) -> "ExecutionPlan":
        """Give the same plan with further reasons, which are logged."""
        for reason in reasons:
            log.info("%s", reason)
        return replace(self, reasons=(*self.reasons, *reasons))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Bring inputs into the memory layout of this plan."""
        if self.channels_last and inputs.dim() == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs


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
        return total / sum(weights) if any(weights) else math.nan

    def tensors(self, *, moved: bool) -> dict[str, Tensor]:
        """Give parameters and buffers at one of the two points."""
        change = self.change if moved else {}
        return {n: t + change[n] if n in change else t for n, t in self.theta.items()}


def find_plan(trial: Trial, rounding: float) -> ExecutionPlan:
    """Choose the fastest execution plan that reproduces the unmodified model to rounding.

    Each candidate is tried at two points and rejected if its outputs or losses differ by more
    than rounding, as they would for a model whose outputs depend on the whole batch, or for a
    loss that reads what the candidate leaves out.

    Args:
        trial: The model, the loss, points and examples.
        rounding: Largest difference of outputs, relative to the largest output.

    Returns:
        The plan; ``ExecutionPlan()`` if all candidates are rejected. On a CPU a pass takes a
        cache-sized micro-batch, on a GPU a whole batch.
    """
    try:
        return _find_plan(trial, rounding)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Whole batches have run before: the model or the loss requires their size.
        return ExecutionPlan().because(f"it runs on whole batches only: {_first_line(error)}")


def _find_plan(trial: Trial, rounding: float) -> ExecutionPlan:
    first = trial.batches[0].inputs
    with trial.substitution(trial.theta):
        micro_batch = _fitting(trial, first) if first.device.type == "cpu" else None
        whole = _sample(trial.batches, micro_batch or len(first))
        folding = Folding.of(trial.forward, first[:2], trial.theta)
        varying = {name: trial.theta[name] for name in trial.change}
        first_layer = FirstLayer.of(trial.forward, first[:2], varying)
        images = takes_channels_last(trial.model, first)
    plain = ExecutionPlan()
    expected = [trial.run(plain, whole, moved=moved) for moved in (False, True)]
    again = trial.run(plain, whole, moved=False, given=expected[0].outputs)
    if not again.agrees(expected[0], rounding):
        return plain.because("outputs or loss change from run to run")
    # Cut in two however large a pass may be: later batches can be larger.
    size = max(1, 2 * sum(len(inputs) for inputs, _ in whole) // 3)
    inputs, targets = (
        torch.split(torch.cat(tensors), size) for tensors in zip(*whole, strict=True)
    )
    parts = list(zip(inputs, targets, strict=True))
    given = [torch.split(outcome.joined, size) for outcome in expected]
    cut = [trial.run(plain, parts, moved=moved, given=given[moved]) for moved in (False, True)]
    means = [
        (trial.mean_loss(a, whole), trial.mean_loss(b, parts))
        for a, b in zip(expected, cut, strict=True)
    ]
    if any(abs(a - b) > rounding * max(abs(a), abs(b)) for a, b in means):
        plain = plain.because("the loss depends on the whole batch")
        micro_batch = None
    reference = [Outcome(a.outputs, b.losses) for a, b in zip(expected, cut, strict=True)]
    if first_layer is not None and not _may_share(
        trial, first_layer, parts, given[1], reference[1], rounding
    ):
        plain = plain.because(f"the loss or later layers need more of {first_layer.weight}")
        first_layer = None
    if not images and any(isinstance(m, nn.Conv2d) for m in trial.model.modules()):
        plain = plain.because("the model does not take channels last")
    candidates = [
        replace(plain, micro_batch=micro_batch, channels_last=images, folding=folding),
        replace(plain, micro_batch=micro_batch),
    ]
    if first_layer is not None:
        candidates = [replace(plan, first_layer=first_layer) for plan in candidates]
    for plan in candidates:
        if all(
            trial.run(plan, parts, moved=moved, given=given[moved]).agrees(
                reference[moved], rounding
            )
            for moved in (False, True)
        ):
            return replace(plan, reasons=plain.reasons)
        plain = plain.because(f"outputs or losses differ with {_describe(plan)}")
    return plain


def _may_share(
    trial: Trial,
    layer: FirstLayer,
    parts: Sequence[Pair],
    given: Sequence[Tensor],
    expected: Outcome,
    rounding: float,
) -> bool:
    """Whether model and loss need nothing of a layer but its pre-activations."""
    try:
        shared = trial.run_shared(layer, parts, given)
    except RuntimeError as error:  # its parameters have no values then
        if is_out_of_memory(error):
            raise
        log.info("Points do not share %s, which the loss reads: %s", layer.weight, error)
        return False
    return shared.agrees(expected, rounding)


def _sample(batches: Sequence[Batch], micro_batch: int) -> list[Pair]:
    """Take batches with more examples than one pass together, the last one cut where need be."""
    sample: list[Pair] = []
    missing = min(micro_batch * 3 // 2, _TRIED) + 3
    shapes = (batches[0].inputs.shape[1:], batches[0].targets.shape[1:])
    for inputs, targets, *_ in batches:
        if missing <= 0 or (inputs.shape[1:], targets.shape[1:]) != shapes:
            break
        sample.append((inputs[:missing], targets[:missing]))
        missing -= len(inputs)
    return sample


@torch.no_grad()
def takes_channels_last(model: nn.Module, inputs: Tensor) -> bool:
    """Whether a model has convolutions and runs on images with their channels last in memory.

    Convolutions are then faster, by up to a third in training on a CPU.

    Args:
        model: The model; its modes and buffers stay as they are.
        inputs: Images, shape ``(B, C, H, W)``; anything else is none.
    """
    if inputs.dim() != 4 or not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return False
    try:
        with modes(model, batch_statistics=False):
            model(inputs[:2].clone(memory_format=torch.channels_last))
    except RuntimeError as error:  # view() of a tensor whose channels lie last
        if is_out_of_memory(error):
            raise
        log.info("Channels stay first: %s", _first_line(error))
        return False
    return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _describe(plan: ExecutionPlan) -> str:
    words = [f"{plan.micro_batch} examples a pass"]
    words += ["channels last"] * plan.channels_last
    words += [f"{len(plan.folding)} folded batch norms"] * bool(plan.folding)
    return ", ".join(words)


def _fitting(trial: Trial, inputs: Tensor) -> int:
    """Find how many examples fit the caches, by the largest activation of one."""
    fit = _CACHED // max(measure_activation(trial.forward, inputs[:2], trial.theta), 1)
    power: int = 2 ** int(math.log2(max(fit, 1)))
    return max(_FEWEST, min(_MOST, power))


def measure_activation(forward: Forward, inputs: Tensor, held: Mapping[str, Tensor]) -> int:
    """Measure the largest tensor that a forward pass makes, in bytes an example.

    Args:
        forward: Runs the model.
        inputs: Few examples.
        held: The parameters, of which views do not count.
    """
    measured = _Measuring(len(inputs), [inputs, *held.values()])
    with measured:
        forward(inputs)
    return measured.largest


class _Measuring(TorchFunctionMode):
    """Notes the largest tensor made, in bytes an example.

    Args:
        num: Examples of the pass.
        held: Tensors that were there before; views of them do not count.
    """

    def __init__(self, num: int, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.largest: int = 0
        self._num = num
        self._held = {tensor.untyped_storage().data_ptr() for tensor in held}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Look at what the function returns."""
        found = function(*args, **(kwargs or {}))
        for tensor in tensors_in([found]):
            if tensor.untyped_storage().data_ptr() not in self._held:
                self.largest = max(self.largest, tensor.nbytes // self._num)
        return found
