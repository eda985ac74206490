"""Examples, read once and kept on a device."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import ne
from typing import overload

import torch
from torch import Tensor

from mining import InputError
from mining.functional.loss import Batch


def read_batches(
    loader: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Read every batch of ``loader`` onto ``device``.

    Tensors are laid out contiguously, however those of the loader lie in memory. A last batch of
    one example, which has no variance to normalize by, joins its neighbour.

    Raises:
        InputError: If there is none, one is not a pair of tensors of equal length, or empty, or
            the loader overwrites a batch with the next.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    sums: list[float] = []
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
        if len(batch[0]) == 0:
            raise InputError(
                f"Batch {len(pairs) + 1} of the loader is empty (inputs {tuple(batch[0].shape)}): "
                "leave empty batches out."
            )
        inputs = _own(batch[0], device)
        # A loss that differentiates outputs by inputs finds these among the targets.
        same = batch[1] is batch[0]
        pairs.append((inputs, inputs if same else _own(batch[1], device)))
        sums.append(_sum(pairs[-1]))
    places = {inputs.data_ptr() for inputs, _ in pairs}
    if len(places) < len(pairs) and any(map(ne, map(_sum, pairs), sums)):
        raise InputError(
            "The loader gives the same memory again with other content, so that its batches "
            "overwrite each other: let it give copies (inputs.clone())."
        )
    if not pairs:
        raise InputError("The loader is empty: at least one batch is needed.")
    if len(pairs) > 1 and len(pairs[-1][0]) == 1:
        last_two = [pairs.pop(-2), pairs.pop()]
        pairs.append((torch.cat([x for x, _ in last_two]), torch.cat([y for _, y in last_two])))
    return pairs


def _own(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.is_meta:
        raise InputError("The loader gives tensors on the meta device, which have no values.")
    moved = tensor.to(device).contiguous()
    if tensor.requires_grad and not (moved is tensor and tensor.is_leaf):
        moved = moved.detach().requires_grad_()
    return moved.clone() if moved.is_inference() else moved  # usable in derivatives


def as_leaves(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Cut tensors that require gradients off the graph of how they were joined or split.

    Derivatives would free that graph, which batches share. Targets that are the inputs stay so.
    """
    inputs, targets = (
        x.detach().requires_grad_() if x.requires_grad and not x.is_leaf else x for x in pair
    )
    return inputs, inputs if pair[1] is pair[0] else targets


def _sum(pair: tuple[Tensor, Tensor]) -> float:
    return sum(float(x.detach().nan_to_num().sum()) for x in pair if not x.is_complex())


def regroup(pairs: list[tuple[Tensor, Tensor]], size: int) -> list[tuple[Tensor, Tensor]]:
    """Cut batches larger than ``size`` and join smaller ones that lie side by side.

    Args:
        pairs: Inputs and targets of each batch. Emptied where batches are joined, so that no
            example is held twice.
        size: Most examples of a batch, at least 1.

    Returns:
        The same examples in the same order.
    """
    if any(len(x) < size for x, _ in pairs[:-1]) and _alike(pairs):
        whole = [_columns(pairs)]
    else:
        whole = pairs
    return [
        part
        for x, y in whole
        for part in zip(torch.split(x, size), torch.split(y, size), strict=True)
    ]


def shuffle(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Deal examples out anew, in a random order that is always the same.

    Args:
        pairs: Inputs and targets of each batch. Emptied where they are shuffled, so that no
            example is held twice.

    Returns:
        Batches of the same sizes; the same batches where examples differ in shape.
    """
    if any(x.requires_grad for x, _ in pairs) and not any(x is y for x, y in pairs):
        detached = shuffle([(x.detach(), y) for x, y in pairs])
        return [(x.requires_grad_(), y) for x, y in detached]
    if not _alike(pairs):
        return pairs
    sizes = [len(x) for x, _ in pairs]
    inputs, targets = _columns(pairs)
    order = random_order(len(inputs)).to(inputs.device)
    return [(gather(inputs, chosen), targets[chosen]) for chosen in torch.split(order, sizes)]


def lay_out(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Give the same batches as parts of one tensor, where examples are of one shape.

    Args:
        pairs: Inputs and targets of each batch. Emptied where they have to be copied.
    """
    if not _alike(pairs):
        return pairs
    sizes = [len(x) for x, _ in pairs]
    inputs, targets = _columns(pairs)
    return list(zip(torch.split(inputs, sizes), torch.split(targets, sizes), strict=True))


def _alike(pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether examples can be laid end to end; those that are differentiated by stay as given."""
    if any(x.requires_grad for x, _ in pairs):
        return False
    return len({(x.shape[1:], x.dtype, y.shape[1:], y.dtype) for x, y in pairs}) == 1


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    same = all(x is y for x, y in pairs)  # of an autoencoder
    inputs, targets = [x for x, _ in pairs], [y for _, y in pairs]
    pairs.clear()
    if same:
        targets.clear()
        whole = lay_end_to_end(inputs)
        return whole, whole
    return lay_end_to_end(inputs), lay_end_to_end(targets)


def random_order(num: int) -> Tensor:
    """Give the numbers below ``num`` in a random order that is always the same, on the CPU."""
    return torch.randperm(num, generator=torch.Generator().manual_seed(0))


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
    inputs = torch.cat([x for x, _ in pairs])
    if all(batch.targets is batch.inputs for batch in batches):
        return inputs, inputs
    return inputs, torch.cat([y for _, y in pairs])


class Gathered(Sequence[Tensor]):
    """Batches of another grouping than that in which examples are held, made as they are read.

    Args:
        whole: All examples.
        chosen: The numbers of each batch's examples.
        requires_grad: Whether a model may differentiate by a batch.
    """

    def __init__(
        self, whole: Tensor, chosen: Sequence[Tensor], *, requires_grad: bool = False
    ) -> None:
        self.whole, self._requires_grad = whole, requires_grad
        self._chosen = [numbers.to(whole.device) for numbers in chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, number: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(number, slice):
            return Gathered(self.whole, self._chosen[number], requires_grad=self._requires_grad)
        return gather(self.whole, self._chosen[number]).requires_grad_(self._requires_grad)


def mixed(parts: list[Tensor], size: int, num: int | None = None) -> Sequence[Tensor]:
    """Deal inputs out anew, in a random order that is always the same.

    Args:
        parts: Inputs, each with its examples along the first axis. Emptied where they have to be
            copied, so that no example is held twice.
        size: Most examples of a batch.
        num: How many to take; ``None`` takes all.

    Returns:
        Batches whose sizes differ by at most one, gathered as they are read; the same parts where
        inputs differ in shape.
    """
    total = sum(map(len, parts))
    num = total if num is None else min(num, total)
    if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
        return parts if num == total else _first(parts, num)
    differentiated = any(part.requires_grad for part in parts)
    whole = lay_end_to_end([part.detach() for part in parts] if differentiated else parts)
    chosen = random_order(total)[:num]
    if num < total:  # the rest need not be kept
        whole, chosen = gather(whole, chosen.to(whole.device)), torch.arange(num)
    # Ascending within a batch, where the order does not matter, is friendlier to the memory.
    batches = [c.sort().values for c in chosen.tensor_split(-(-num // size))]
    return Gathered(whole, batches, requires_grad=differentiated)


def _first(parts: list[Tensor], num: int) -> list[Tensor]:
    """Take whole batches, in a random order, and a part of the last one."""
    taken: list[Tensor] = []
    for k in random_order(len(parts)).tolist():
        if num > 0:
            taken.append(parts[k][:num])
            num -= len(taken[-1])
    return taken


def gather(whole: Tensor, chosen: Tensor) -> Tensor:
    """Give ``whole[chosen]`` laid out in memory like ``whole``; indexing is ten times as slow."""
    if whole.dim() == 4 and not whole.is_contiguous():
        rows = whole.permute(0, 2, 3, 1).index_select(0, chosen)
        return rows.permute(0, 3, 1, 2)
    return whole.index_select(0, chosen)


def lay_end_to_end(parts: list[Tensor]) -> Tensor:
    """Lay tensors end to end as ``joined`` does, and empty the list where that takes a copy."""
    whole = _as_one(parts)
    if whole is not None:
        return whole
    first, start = parts[0], 0
    channels_last = first.dim() == 4 and not first.is_contiguous()
    whole = torch.empty(
        (sum(map(len, parts)), *first.shape[1:]),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
    del first
    parts.reverse()
    while parts:  # one after the other, so that the examples are not in memory twice
        part = parts.pop()
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Lay tensors end to end along their first axis, without a copy where they lie so already.

    Raises:
        InputError: If they differ in shape beyond the first axis.
    """
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = sorted({tuple(part.shape[1:]) for part in parts})
        raise InputError(f"Mini-batches need examples of one shape, got {shapes[:3]}.")
    whole = _as_one(parts)
    return torch.cat(list(parts)) if whole is None else whole


def _as_one(parts: Sequence[Tensor]) -> Tensor | None:
    """Give parts that lie end to end in memory as one tensor, ``None`` if they do not."""
    first = parts[0]
    if not (
        all(part.dtype == first.dtype and part.stride() == first.stride() for part in parts)
        and len({part.untyped_storage().data_ptr() for part in parts}) == 1
        and all(_follows(b, a) for a, b in pairwise(parts))
    ):
        return None
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def _follows(part: Tensor, previous: Tensor) -> bool:
    """Whether ``part`` begins in memory where the next row of ``previous`` would."""
    step = previous.stride(0) * len(previous) * previous.element_size()
    return part.data_ptr() == previous.data_ptr() + step
