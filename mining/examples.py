"""Examples, read once and kept on a device."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mining.criterion import Batch
from mining.errors import InputError


def read_batches(
    loader: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Read every batch of ``loader`` onto ``device``.

    A last batch of one example, which has no variance to normalize by, joins its neighbour.

    Raises:
        InputError: If there is none, or one is not a pair of tensors of equal length.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for batch in loader:
        if not (
            isinstance(batch, list | tuple)
            and len(batch) == 2
            and all(isinstance(item, Tensor) for item in batch)
            and len(batch[0]) == len(batch[1])
        ):
            raise InputError(
                "A batch must be a pair of tensors (inputs, targets) of equal length, "
                f"got {type(batch).__name__}. Wrap the loader, or the model, to make it so."
            )
        pairs.append((batch[0].to(device), batch[1].to(device)))
    if not pairs:
        raise InputError("The loader is empty: at least one batch is needed.")
    if len(pairs) > 1 and len(pairs[-1][0]) == 1:
        last_two = [pairs.pop(-2), pairs.pop()]
        pairs.append((torch.cat([x for x, _ in last_two]), torch.cat([y for _, y in last_two])))
    return pairs


def regroup(
    pairs: list[tuple[Tensor, Tensor]], size: int
) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Cut batches larger than ``size`` and join smaller ones that lie side by side.

    Args:
        pairs: Inputs and targets of each batch. Emptied where batches are joined, so that no
            example is held twice.
        size: Most examples of a batch, at least 1.

    Returns:
        The same examples in the same order, and the inputs in the batches that they came in;
        both share their memory.
    """
    alike = {(x.shape[1:], x.dtype, y.shape[1:], y.dtype) for x, y in pairs}
    if len(alike) == 1 and any(len(x) < size for x, _ in pairs[:-1]):
        sizes = [len(x) for x, _ in pairs]
        inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        pairs.clear()
        whole, as_loaded = [(inputs, targets)], list(torch.split(inputs, sizes))
    else:
        whole, as_loaded = pairs, [x for x, _ in pairs]
    grouped = [
        part
        for x, y in whole
        for part in zip(torch.split(x, size), torch.split(y, size), strict=True)
    ]
    return grouped, as_loaded


def pick_examples(batches: Sequence[Batch], chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Pick examples out of batches laid end to end.

    Args:
        batches: All on one device.
        chosen: Ascending indices, shape ``(n,)``.

    Returns:
        Inputs and targets of the n examples.
    """
    chosen = chosen.to(batches[0].inputs.device)
    sizes = torch.tensor([0] + [len(batch.inputs) for batch in batches])
    picks = [
        chosen[(chosen >= start) & (chosen < stop)] - start
        for start, stop in pairwise(sizes.cumsum(0).tolist())
    ]
    pairs = [(b.inputs[i], b.targets[i]) for b, i in zip(batches, picks, strict=True)]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
