"""Batches of examples cut, joined, dealt out anew and picked from."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, overload

import torch
from torch import Tensor

from mining import InputError
from mining.functional.loss import Batch
from mining.functional.pytrees import (
    cat,
    check_divisible,
    is_divisible,
    map_tensors,
    num_examples,
    replace_tensors,
    requires_grad,
    rows,
    signature,
    split,
    tensors_of,
)

#: Inputs and targets, tensors or structures of them; a whole batch and ``None`` for an objective.
Pair = tuple[Any, Any]


def regroup(pairs: list[Pair], size: int) -> list[Pair]:
    """Cut batches larger than ``size`` and join smaller ones that lie side by side.

    Args:
        pairs: Inputs and targets of each batch. Emptied where batches are joined, so that no
            example is held twice.
        size: Most examples of a batch, at least 1.

    Returns:
        The same examples in the same order.

    Raises:
        InputError: If the examples of a batch cannot be told apart.
    """
    if any(num_examples(x) < size for x, _ in pairs[:-1]) and are_alike(pairs):
        whole = [_columns(pairs)]
    else:
        whole = pairs
    return [
        part
        for x, y in whole
        for part in (
            zip(torch.split(x, size), torch.split(y, size), strict=True)
            if isinstance(x, Tensor) and isinstance(y, Tensor)
            else split((x, y), size)
        )
    ]


def shuffle(pairs: list[Pair]) -> list[Pair]:
    """Deal examples out anew, in a random order that is always the same.

    Args:
        pairs: Inputs and targets of each batch. Emptied where they are shuffled, so that no
            example is held twice.

    Returns:
        Batches of the same sizes; the same batches where examples differ in shape.
    """
    if any(requires_grad(x) for x, _ in pairs) and not any(x is y for x, y in pairs):
        if not all(isinstance(x, Tensor) for x, _ in pairs):
            return pairs
        detached = shuffle([(x.detach(), y) for x, y in pairs])
        return [(x.requires_grad_(), y) for x, y in detached]
    if not are_alike(pairs):
        return pairs
    sizes = [num_examples(x) for x, _ in pairs]
    inputs, targets = _columns(pairs)
    order = random_order(sum(sizes)).to(tensors_of(inputs)[0].device)
    return [(gather(inputs, chosen), rows(targets, chosen)) for chosen in torch.split(order, sizes)]


def lay_out(pairs: list[Pair]) -> list[Pair]:
    """Give the same batches as parts of one tensor, where examples are of one shape.

    Args:
        pairs: Inputs and targets of each batch. Emptied where they have to be copied.
    """
    if not are_alike(pairs):
        return pairs
    sizes = [num_examples(x) for x, _ in pairs]
    whole = _columns(pairs)
    stops = list(accumulate(sizes))
    return [
        (rows(whole[0], slice(stop - size, stop)), rows(whole[1], slice(stop - size, stop)))
        for size, stop in zip(sizes, stops, strict=True)
    ]


def are_alike(pairs: list[Pair]) -> bool:
    """Whether examples can be laid end to end; those that are differentiated by stay as given."""
    if any(requires_grad(x) for x, _ in pairs):
        return False
    return len({signature(pair) for pair in pairs}) == 1 and all(map(is_divisible, pairs))


def _columns(pairs: list[Pair]) -> Pair:
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


def pick_examples(batches: Sequence[Batch], chosen: Tensor) -> Pair:
    """Pick examples out of batches laid end to end.

    Args:
        batches: All on one device.
        chosen: Ascending indices, shape ``(n,)``.

    Returns:
        Inputs and targets of the n examples.

    Raises:
        InputError: If the examples of a batch cannot be told apart.
    """
    for batch in batches:
        check_divisible((batch.inputs, batch.targets))
    chosen = chosen.to(tensors_of(batches[0].inputs)[0].device)
    sizes = torch.tensor([0] + [num_examples(batch.inputs) for batch in batches])
    picks = [
        chosen[(chosen >= start) & (chosen < stop)] - start
        for start, stop in pairwise(sizes.cumsum(0).tolist())
    ]
    pairs = [(rows(b.inputs, i), rows(b.targets, i)) for b, i in zip(batches, picks, strict=True)]
    inputs = cat([x for x, _ in pairs])
    if all(batch.targets is batch.inputs for batch in batches):
        return inputs, inputs
    return inputs, cat([y for _, y in pairs])


class Gathered(Sequence[Any]):
    """Batches of another grouping than that in which examples are held, made as they are read.

    Args:
        whole: All examples.
        chosen: The numbers of each batch's examples.
        requires_grad: Whether a model may differentiate by a batch.
    """

    def __init__(
        self, whole: Any, chosen: Sequence[Tensor], *, requires_grad: bool = False
    ) -> None:
        self.whole, self._requires_grad = whole, requires_grad
        device = tensors_of(whole)[0].device
        self._chosen = [numbers.to(device) for numbers in chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, number: int) -> Any: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Any]: ...

    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return Gathered(self.whole, self._chosen[number], requires_grad=self._requires_grad)
        gathered = gather(self.whole, self._chosen[number])
        if not self._requires_grad:
            return gathered
        return map_tensors(lambda tensor: tensor.requires_grad_(), gathered)


def mixed(parts: list[Any], size: int, num: int | None = None) -> Sequence[Any]:
    """Deal inputs out anew, in a random order that is always the same.

    Args:
        parts: Inputs, each with its examples along the first axis. Emptied where they have to be
            copied, so that no example is held twice.
        size: Most examples of a batch.
        num: How many to take; ``None`` takes all.

    Returns:
        Batches whose sizes differ by at most one, gathered as they are read; the same parts where
        inputs differ in shape or cannot be told apart.
    """
    total = sum(map(num_examples, parts))
    num = total if num is None else min(num, total)
    if len(set(map(signature, parts))) > 1 or not all(map(is_divisible, parts)):
        return parts if num == total else _first(parts, num)
    differentiated = any(map(requires_grad, parts))
    if differentiated:
        if not isinstance(parts[0], Tensor):  # not all of its tensors may be differentiated by
            return parts if num == total else _first(parts, num)
        parts = [part.detach() for part in parts]
    whole = lay_end_to_end(parts)
    chosen = random_order(total)[:num]
    if num < total:  # the rest need not be kept
        whole = gather(whole, chosen.to(tensors_of(whole)[0].device))
        chosen = torch.arange(num)
    # Ascending within a batch, where the order does not matter, is friendlier to the memory.
    batches = [c.sort().values for c in chosen.tensor_split(-(-num // size))]
    return Gathered(whole, batches, requires_grad=differentiated)


def _first(parts: list[Any], num: int) -> list[Any]:
    """Take whole batches, in a random order, and a part of the last one if it can be cut."""
    taken: list[Any] = []
    for k in random_order(len(parts)).tolist():
        if num > 0:
            taken.append(rows(parts[k], slice(num)) if is_divisible(parts[k]) else parts[k])
            num -= num_examples(taken[-1])
    return taken


def gather(whole: Any, chosen: Tensor) -> Any:
    """Give ``whole[chosen]`` laid out in memory like ``whole``; indexing is ten times as slow."""
    return map_tensors(lambda tensor: _gather(tensor, chosen), whole)


def _gather(whole: Tensor, chosen: Tensor) -> Tensor:
    if whole.dim() == 4 and not whole.is_contiguous():
        rows_last = whole.permute(0, 2, 3, 1).index_select(0, chosen)
        return rows_last.permute(0, 3, 1, 2)
    return whole.index_select(0, chosen) if whole.dim() > 0 else whole


def lay_end_to_end(parts: list[Any]) -> Any:
    """Lay batches end to end as ``joined`` does, and empty the list where that takes a copy."""
    if isinstance(parts[0], Tensor):
        return _lay_end_to_end(parts) if parts[0].dim() > 0 else parts[0]
    structure = parts[0]
    columns = [list(column) for column in zip(*map(tensors_of, parts), strict=True)]
    parts.clear()
    return replace_tensors(structure, [lay_end_to_end(column) for column in columns])


def _lay_end_to_end(parts: list[Tensor]) -> Tensor:
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


def joined(parts: Sequence[Any]) -> Any:
    """Lay batches end to end along their first axes, without a copy where they lie so already.

    Raises:
        InputError: If they differ in shape beyond the first axis, or their examples cannot be
            told apart.
    """
    for part in parts:
        check_divisible(part)
    if len(set(map(signature, parts))) > 1:
        shapes = sorted({str([tuple(t.shape[1:]) for t in tensors_of(part)]) for part in parts})
        raise InputError(f"Mini-batches need examples of one shape, got {shapes[:3]}.")
    if not isinstance(parts[0], Tensor):
        columns = zip(*map(tensors_of, parts), strict=True)
        return replace_tensors(parts[0], [joined(column) for column in columns])
    if parts[0].dim() == 0:
        return parts[0]
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
