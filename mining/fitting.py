"""Whether a model, a loss and examples go together, found out by trying."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mining.criterion import Batch, Criterion
from mining.errors import InputError
from mining.memory import is_out_of_memory
from mining.network import Network
from mining.rounding import nearly_equal

log = logging.getLogger(__name__)

#: Examples on which model and loss are tried first.
_CHECKED = 256
#: Numbers in the outputs on which a loss is tried.
_TRIED_OUTPUTS = 2**24


@torch.no_grad()
def find_num_classes(
    network: Network, criterion: Criterion, batches: Sequence[Batch]
) -> int | None:
    """Count the classes, ``None`` unless outputs are scores of classes.

    Raises:
        InputError: If the model does not take the inputs, or the loss not its outputs.
    """
    outputs, targets = _first_outputs(network, batches[0])
    shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)} {targets.dtype}"
    scores = outputs.dim() == 2 and targets.dim() == 1 and not targets.is_floating_point()
    if scores:
        check_labels(criterion, batches, outputs.shape[1])
    try:
        loss = criterion.loss_fn(outputs, targets)
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"The loss does not fit: {shapes}: {error}") from error
    reduction = getattr(criterion.loss_fn, "reduction", "mean")
    if loss.shape != () or reduction != "mean":
        named = reduction if hasattr(criterion.loss_fn, "reduction") else "no reduction"
        raise InputError(
            "loss_fn must return the mean over the batch, with reduction='mean': got "
            f"{named!r} and shape {tuple(loss.shape)} for {shapes}."
        )
    if not scores:
        return None
    # One output, or labels beyond the outputs, as of a Poisson loss: no scores of classes.
    largest = max(int(batch.targets.max()) for batch in batches)
    return outputs.shape[1] if outputs.shape[1] > max(largest, 1) else None


def check_labels(criterion: Criterion, batches: Sequence[Batch], num_classes: int | None) -> None:
    """Raise ``InputError`` if a label that is not ignored is none of the model's outputs."""
    if not (criterion.takes_indices and num_classes):
        return
    for _, targets, *_ in batches:
        kept = targets[targets != criterion.ignored]
        if len(kept) == 0:
            continue
        smallest, largest = int(kept.min()), int(kept.max())
        if largest >= num_classes:
            raise InputError(
                f"The model has {num_classes} outputs, but there are labels up to {largest}."
            )
        if smallest < 0:
            raise InputError(
                f"Labels must be from 0 to {num_classes - 1}, or {criterion.ignored}, which is "
                f"ignored: got {smallest}."
            )


@torch.no_grad()
def check_independent(
    network: Network, criterion: Criterion, batches: Sequence[Batch], micro_batch: int
) -> None:
    """Raise ``InputError`` if examples of the first batch depend on each other."""
    inputs = batches[0].inputs
    if len(inputs) <= micro_batch:
        return
    parts = [network.outputs(part) for part in torch.split(inputs, micro_batch)]
    same = nearly_equal(torch.cat(parts), network.outputs(inputs), network.rounding)
    if not (same and is_separable(network, criterion, batches, micro_batch)):
        raise InputError(
            f"In micro-batches of {micro_batch} the first batch has another loss: its examples "
            f"depend on each other. Give micro_batch={len(inputs)}, the size of the batches."
        )


@torch.no_grad()
def is_separable(
    network: Network, criterion: Criterion, batches: Sequence[Batch], size: int
) -> bool:
    """Whether the loss is the same when batches are cut or joined, tried on any outputs."""
    if criterion.known:
        return True
    outputs = network.outputs(batches[0].inputs[:64])
    most = max(1, _TRIED_OUTPUTS // max(outputs[0].numel(), 1))
    targets = [batch.targets for batch in batches]
    targets = [target for target in targets if target.shape[1:] == targets[0].shape[1:]]
    if sum(map(len, targets)) > most:
        targets = [target[:most] for target in targets[: max(1, most // len(targets[0]))]]
    total = sum(map(len, targets))
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(outputs), (total,), generator=generator)
    outputs = outputs[chosen.to(outputs.device)]
    whole = _mean_loss(criterion, torch.split(outputs, list(map(len, targets))), targets)
    joined = torch.cat(targets)
    # In two parts at least, also where all would fit.
    size = max(1, min(size, 2 * total // 3))
    parts = _mean_loss(criterion, torch.split(outputs, size), torch.split(joined, size))
    return abs(whole - parts) <= network.rounding * max(abs(whole), abs(parts))


def _mean_loss(criterion: Criterion, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    weights = [criterion.weigh(target)[0] for target in targets]
    losses = [float(criterion.loss_fn(o, t)) for o, t in zip(outputs, targets, strict=True)]
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True) if weight)
    return total / sum(weights) if any(weights) else math.nan


def _first_outputs(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """Run the model on a few examples, or on a batch if it insists on its size."""
    inputs, targets, *_ = batch
    few = min(len(inputs), _CHECKED)
    try:
        return network.outputs(inputs[:few]), targets[:few]
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        log.info("Tried on a whole batch: %d examples gave %s", few, error)
    try:
        return network.outputs(inputs), targets
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{type(network.model).__name__} does not take inputs {tuple(inputs.shape)} "
            f"{inputs.dtype}: {error}"
        ) from error
