"""Whether a model, a loss and examples go together, found out by trying."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mining import InputError
from mining.functional.averaging import find_gap
from mining.functional.derivatives import find_underivable
from mining.functional.loss import Batch, Loss
from mining.functional.memory import is_out_of_memory
from mining.functional.model_call import OutputsError
from mining.functional.network import Network
from mining.functional.pytrees import (
    is_divisible,
    map_tensors,
    num_examples,
    rows,
    tensors_of,
)
from mining.functional.randomness import draws_numbers
from mining.functional.rounding import nearly_equal
from mining.functional.substitution import Forward

log = logging.getLogger(__name__)

#: Examples on which model and loss are tried first.
_TRIED = 32
#: Examples on which the loss is looked at for parameters without a derivative.
_DIFFERENTIATED = 256


@torch.no_grad()
def find_num_classes(network: Network, loss_fn: Loss, batches: Sequence[Batch]) -> int | None:
    """Count the classes, ``None`` unless outputs are scores of classes.

    Raises:
        InputError: If the model does not take the inputs, or the loss not its outputs.
    """
    outputs, targets, loss = _try_out(network, loss_fn, batches)
    shapes = _shapes(outputs, targets)
    if not isinstance(loss, Tensor):
        raise InputError(
            f"loss_fn must return a tensor of shape (), got {type(loss).__name__}: the mean loss "
            "itself, without .item() or float()."
        )
    reduction = loss_fn.reduction
    if loss.shape != () or reduction not in (None, "mean", "batchmean", "sum"):
        raise InputError(
            "loss_fn must return the mean over the batch, with reduction='mean', or the sum: got "
            f"{reduction or 'no reduction'!r} and shape {tuple(loss.shape)} for {shapes}."
        )
    if loss_fn.sums and loss_fn.weight is not None:
        raise InputError("weight is the denominator of a mean: leave it out for a sum.")
    if loss_fn.objective is not None or not _scores(outputs, targets):
        return None
    # One output, or labels beyond the outputs, as of a Poisson loss: no scores of classes.
    largest = max(int(batch.targets.max()) for batch in batches)
    return outputs.shape[1] if outputs.shape[1] > max(largest, 1) else None


def is_stochastic(network: Network, loss_fn: Loss, batches: Sequence[Batch]) -> bool:
    """Whether model or loss draw random numbers; tried on a few examples of the first batch.

    Raises:
        InputError: If they do so otherwise than from torch's global generators.
    """
    inputs, targets, *_ = batches[0]
    if num_examples(inputs) > _TRIED and not network.insists_on_batches:
        inputs, targets = rows((inputs, targets), slice(_TRIED))

    def run() -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(network.needs_graph), network.at_theta() as forward:
            outputs = forward(inputs)
            return outputs.detach(), loss_fn(outputs, targets).detach()

    return draws_numbers(run, network.theta.device, network.rounding)


def check_labels(loss_fn: Loss, batches: Sequence[Batch], num_classes: int | None) -> None:
    """Raise ``InputError`` if a label that is not ignored is none of the model's outputs."""
    if not (loss_fn.takes_indices and num_classes):
        return
    for _, targets, *_ in batches:
        kept = targets[targets != loss_fn.ignored]
        if len(kept) == 0:
            continue
        smallest, largest = int(kept.min()), int(kept.max())
        if largest >= num_classes:
            raise InputError(
                f"The model has {num_classes} outputs, but there are labels up to {largest}."
            )
        if smallest < 0:
            raise InputError(
                f"Labels must be from 0 to {num_classes - 1}, or {loss_fn.ignored}, which is "
                f"ignored: got {smallest}."
            )


def check_substituted(network: Network, batch: Batch) -> None:
    """Raise ``InputError`` if model or loss read parameters of the model that are not substituted.

    A list of parameters that a loss was given beforehand holds the model's own: with it the loss
    at another point would have a term of θ.
    """
    own = {id(p): name for name, p in network.model.named_parameters() if p.requires_grad}
    # A copy: leaves that require gradients cannot be changed in place.
    inputs, targets = map_tensors(torch.clone, batch.inputs), batch.targets
    if targets is batch.inputs:
        targets = inputs
    elif num_examples(inputs) > _TRIED and not network.insists_on_batches:
        inputs, targets = rows((inputs, targets), slice(_TRIED))
    with torch.enable_grad(), network.at_theta() as forward:
        loss = network.loss_fn(forward(inputs), targets)
    found, seen = [loss.grad_fn], set()
    while found:
        node = found.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = own.get(id(getattr(node, "variable", None)))
        if name is not None:
            raise InputError(
                f"Model and loss must not read {name} from a list or attribute that was made "
                "beforehand: they would use its value at theta at every point. Read it from the "
                "model in each call (model.parameters(), model.get_parameter)."
            )
        found += [following for following, _ in node.next_functions]


@torch.no_grad()
def check_independent(
    network: Network, loss_fn: Loss, batches: Sequence[Batch], micro_batch: int
) -> None:
    """Raise ``InputError`` if examples of the first batch depend on each other."""
    first = batches[0]
    if first.num_examples <= micro_batch:
        return
    parts = loss_fn.split([first], micro_batch)
    with torch.set_grad_enabled(network.needs_graph), network.at_theta() as forward:
        found, expected = [forward(part.inputs) for part in parts], forward(first.inputs)
    if loss_fn.objective is None:
        same = nearly_equal(torch.cat(found), expected, network.rounding)
    else:
        total = sum(part.weight * loss for part, loss in zip(parts, found, strict=True))
        mean = torch.as_tensor(total / loss_fn.denominator(part.weight for part in parts))
        same = nearly_equal(mean.to(expected), expected, network.rounding_of(expected))
    if not same or find_gap(network, loss_fn, batches) is not None:
        raise InputError(
            f"The loss of the first batch changes if it is split into micro-batches of "
            f"{micro_batch}: its examples depend on each other. Give "
            f"micro_batch={first.num_examples}, the size of the batches."
        )


def underivable_parameters(network: Network, batches: Sequence[Batch]) -> list[str]:
    """Name parameters that change the loss of a few examples, and have no derivative of it.

    See ``find_underivable``.
    """
    few: list[Batch] = []
    for batch in batches:
        if sum(other.num_examples for other in few) < _DIFFERENTIATED and batch.weight > 0:
            few.append(batch)

    def loss(theta: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {name: value.detach().clone().requires_grad_() for name, value in theta.items()}
        total = torch.zeros((), dtype=torch.float64, device=network.theta.device)
        gradient = {name: torch.zeros_like(value) for name, value in theta.items()}
        tensors = {**leaves, **network.frozen, **network.copy_buffers()}
        for seed, (inputs, targets, *_) in enumerate(few):
            # For every batch anew: folded weights belong to the graph that a derivative frees.
            with torch.enable_grad(), network.running(tensors) as forward, network.noise(seed):
                value = network.loss_fn(forward(inputs), targets)
            total += value.detach()
            if value.requires_grad:
                slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
                for name, slope in zip(leaves, slopes, strict=True):
                    gradient[name] += 0 if slope is None else slope
        return total.to(network.space.dtype), gradient

    return find_underivable(loss, network.space.unflatten(network.theta))


def _try_out(
    network: Network, loss_fn: Loss, batches: Sequence[Batch]
) -> tuple[Tensor, Tensor, object]:
    """Run model and loss on a few examples, or on a batch if they insist on its size.

    Returns:
        Outputs, targets and what the loss returned.
    """
    inputs, targets, *_ = batches[0]
    whole = num_examples(inputs)
    attempts = [(inputs, False), (inputs, True)]
    if whole > _TRIED and is_divisible((inputs, targets)):
        attempts.insert(0, (rows(inputs, slice(_TRIED)), False))
    failures: list[InputError] = []
    for given, needs_graph in attempts:
        try:
            with torch.set_grad_enabled(needs_graph), network.trying() as forward:
                found = _first_loss(network, loss_fn, batches, forward, given)
        except OutputsError:
            raise
        except InputError as error:
            failures.append(error)
            continue
        if needs_graph:
            log.info("Passes keep their graphs: the model or the loss differentiates by inputs.")
            network.needs_graph = True
        network.insists_on_batches = num_examples(given) == whole
        return found
    *_, plain, with_graph = failures
    raise with_graph if "does not require grad" in str(plain) else plain


def _first_loss(
    network: Network,
    loss_fn: Loss,
    batches: Sequence[Batch],
    forward: Forward,
    inputs: Any,
) -> tuple[Tensor, Tensor, object]:
    targets = batches[0].targets
    if num_examples(inputs) < num_examples(batches[0].inputs):
        targets = rows(targets, slice(num_examples(inputs)))
    try:
        outputs = forward(inputs)
    except InputError:
        raise
    except (
        RuntimeError,
        TypeError,
        LookupError,
        ValueError,
        AttributeError,
    ) as error:
        # A structure lacks what tensors have; with a tensor it is a fault of the model's code.
        fault = isinstance(error, AttributeError) and isinstance(inputs, Tensor)
        if fault or is_out_of_memory(error):
            raise
        shown = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors_of(inputs)[:5])
        raise InputError(f"{network.call.name} does not take inputs {shown}: {error}") from error
    if _scores(outputs, targets):
        check_labels(loss_fn, batches, outputs.shape[1])
    try:
        return outputs.detach(), targets, loss_fn.try_out(outputs, targets)
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        remedy = ""
        if torch.is_grad_enabled() and "grad" in str(error):
            remedy = (
                " A loss that differentiates outputs by inputs needs batches (x, x), twice the "
                "same tensor with x.requires_grad."
            )
        raise InputError(
            f"The loss does not fit {_shapes(outputs, targets)}: {error}.{remedy}"
        ) from error


def _scores(outputs: Tensor, targets: Any) -> bool:
    """Whether outputs and targets have the shapes of scores and indices of classes."""
    return (
        isinstance(targets, Tensor)
        and outputs.dim() == 2
        and targets.dim() == 1
        and not targets.is_floating_point()
    )


def _shapes(outputs: Tensor, targets: Any) -> str:
    if not isinstance(targets, Tensor):
        return f"outputs {tuple(outputs.shape)}, targets {type(targets).__name__}"
    return f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)} {targets.dtype}"
