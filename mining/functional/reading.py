"""Examples, read once and kept on a device."""

from collections.abc import Iterable
from functools import partial
from operator import ne
from typing import Any

import torch
from torch import Tensor

from mining import InputError
from mining.functional.batches import Pair, are_alike
from mining.functional.pytrees import cat, map_tensors, num_examples, tensors_of


def read_batches(loader: Iterable[Any], device: torch.device, *, pairs: bool = True) -> list[Pair]:
    """Read every batch of ``loader`` onto ``device``.

    Tensors are laid out contiguously, however those of the loader lie in memory. A last batch of
    one example, which has no variance to normalize by, joins its neighbour.

    Args:
        loader: The batches.
        device: Where tensors are moved.
        pairs: Whether a batch must be a pair of inputs and targets; any structure otherwise.

    Raises:
        InputError: If there is none, one is no such pair, or empty, or without tensors, or the
            loader overwrites a batch with the next.
    """
    read: list[Pair] = []
    sums: list[float] = []
    for given in loader:
        batch = _as_pair(given) if pairs else (given, None)
        if num_examples(batch[0]) == 0:
            shapes = [tuple(tensor.shape) for tensor in tensors_of(batch[0])]
            raise InputError(
                f"Batch {len(read) + 1} of the loader is empty (inputs {shapes[0]}): "
                "leave empty batches out."
            )
        inputs = map_tensors(partial(_own, device=device), batch[0])
        # A loss that differentiates outputs by inputs finds these among the targets.
        same = batch[1] is batch[0]
        own = inputs if same else map_tensors(partial(_own, device=device), batch[1])
        read.append((inputs, own))
        sums.append(_sum(read[-1]))
    places = {tensors_of(inputs)[0].data_ptr() for inputs, _ in read}
    if len(places) < len(read) and any(map(ne, map(_sum, read), sums)):
        raise InputError(
            "The loader reuses the memory of its batches, so each batch overwrites an earlier one: "
            "let it return copies (inputs.clone())."
        )
    if not read:
        raise InputError("The loader is empty: at least one batch is needed.")
    if (
        len(read) > 1
        and num_examples(read[-1][0]) == 1
        and (isinstance(read[-1][0], Tensor) or are_alike(read[-2:]))
    ):
        last_two = [read.pop(-2), read.pop()]
        read.append((cat([x for x, _ in last_two]), cat([y for _, y in last_two])))
    return read


def _as_pair(batch: Any) -> Pair:
    if (
        isinstance(batch, list | tuple)
        and len(batch) == 2
        and any(tensor.dim() > 0 for tensor in tensors_of(batch[0]))
        and not (
            isinstance(batch[0], Tensor)
            and isinstance(batch[1], Tensor)
            and (batch[1].dim() == 0 or len(batch[0]) != len(batch[1]))
        )
    ):
        return batch[0], batch[1]
    raise InputError(
        "A batch must be a pair of tensors (inputs, targets) of equal length, or a pair of other "
        f"structures of tensors, got {type(batch).__name__}. Wrap the loader, or give "
        "objective=FUNCTION(model, batch) and batches=LOADER, which take any batch."
    )


def _own(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.is_meta:
        raise InputError("The loader gives tensors on the meta device, which have no values.")
    moved = tensor.to(device).contiguous()
    if tensor.requires_grad and not (moved is tensor and tensor.is_leaf):
        moved = moved.detach().requires_grad_()
    return moved.clone() if moved.is_inference() else moved  # usable in derivatives


def as_leaves(pair: Pair) -> Pair:
    """Cut tensors that require gradients off the graph of how they were joined or split.

    Derivatives would free that graph, which batches share. Targets that are the inputs stay so.
    """
    inputs, targets = (map_tensors(_as_leaf, tree) for tree in pair)
    return inputs, inputs if pair[1] is pair[0] else targets


def _as_leaf(tensor: Tensor) -> Tensor:
    if tensor.requires_grad and not tensor.is_leaf:
        return tensor.detach().requires_grad_()
    return tensor


def _sum(pair: Pair) -> float:
    tensors = [*tensors_of(pair[0]), *tensors_of(pair[1])]
    return sum(float(x.detach().nan_to_num().sum()) for x in tensors if not x.is_complex())
