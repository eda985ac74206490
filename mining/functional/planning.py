"""The fastest execution plan that reproduces a model's outputs to rounding."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mining.functional.activation import measure_activation
from mining.functional.execution_plan import ExecutionPlan, first_line, takes_channels_last
from mining.functional.fuse_batchnorm import Folding
from mining.functional.loss import Batch
from mining.functional.memory import is_out_of_memory
from mining.functional.pytrees import cat, num_examples, rows, signature, split, tensors_of
from mining.functional.shared_first_layer import FirstLayer
from mining.functional.trial import Outcome, Pair, Trial

log = logging.getLogger(__name__)

#: Size of the largest activation of one pass on a CPU, bytes; several fit its caches together.
_CACHED = 4 * 2**20
_FEWEST, _MOST = 16, 4096  # limits of the micro-batch that follows from it
_TRIED = 32  # examples on which execution plans are tried


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
        return ExecutionPlan().because(f"it runs on whole batches only: {first_line(error)}")


def _find_plan(trial: Trial, rounding: float) -> ExecutionPlan:
    first = trial.batches[0].inputs
    with trial.substitution(trial.theta):
        on_cpu = tensors_of(first)[0].device.type == "cpu"
        micro_batch = _fitting(trial, first) if on_cpu else None
        whole = _sample(trial.batches, micro_batch or num_examples(first))
        few = rows(first, slice(2))
        folding = Folding.of(trial.forward, few, trial.theta)
        varying = {name: trial.theta[name] for name in trial.change}
        first_layer = None
        if isinstance(first, Tensor):  # else nobody knows which tensor the layer takes
            first_layer = FirstLayer.of(trial.forward, few, varying)
        images = takes_channels_last(trial.model, first)
    plain = ExecutionPlan()
    expected = [trial.run(plain, whole, moved=moved) for moved in (False, True)]
    again = trial.run(plain, whole, moved=False, given=expected[0].outputs)
    if not again.agrees(expected[0], rounding):
        return plain.because("outputs or loss change from run to run")
    # Cut in two however large a pass may be: later batches can be larger.
    size = max(1, 2 * sum(num_examples(inputs) for inputs, _ in whole) // 3)
    parts = split(cat(whole), size)
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
    shapes = signature((batches[0].inputs, batches[0].targets))
    for inputs, targets, *_ in batches:
        if missing <= 0 or signature((inputs, targets)) != shapes:
            break
        sample.append(rows((inputs, targets), slice(missing)))
        missing -= num_examples(inputs)
    return sample


def _describe(plan: ExecutionPlan) -> str:
    words = [f"{plan.micro_batch} examples a pass"]
    words += ["channels last"] * plan.channels_last
    words += [f"{len(plan.folding)} folded batch norms"] * bool(plan.folding)
    return ", ".join(words)


def _fitting(trial: Trial, inputs: Any) -> int:
    """Find how many examples fit the caches, by the largest activation of one."""
    fit = _CACHED // max(measure_activation(trial.forward, rows(inputs, slice(2)), trial.theta), 1)
    power: int = 2 ** int(math.log2(max(fit, 1)))
    return max(_FEWEST, min(_MOST, power))
