"""Batches of any structure: tensors in tuples, lists, mappings and data classes, nested or not.

A single tensor is the most frequent structure and comes first everywhere.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from mining import InputError


def leaves_of(tree: Any) -> Iterator[Any]:
    """Go through what is in a structure: tensors, and whatever else it is made of."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves_of(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from leaves_of(item)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            yield from leaves_of(getattr(tree, field.name))
    else:
        yield tree


def tensors_of(tree: Any) -> list[Tensor]:
    """List the tensors of a structure, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for leaf in leaves_of(tree) if isinstance(leaf, Tensor)]


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Give the same structure with ``function`` of every tensor; all else stays as it is."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, tuple | list):
        items = [map_tensors(function, item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, Mapping):
        mapped: Any = copy(tree)  # of its own class, as Hugging Face's BatchEncoding
        for key, item in tree.items():
            mapped[key] = map_tensors(function, item)
        return mapped
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
        return dataclasses.replace(tree, **{n: map_tensors(function, f) for n, f in fields.items()})
    return tree


def replace_tensors(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """Give the same structure with other tensors, in the order of ``tensors_of``."""
    new = iter(tensors)
    return map_tensors(lambda _: next(new), tree)


def num_examples(tree: Any) -> int:
    """Count the examples of a batch: the length of its first tensor that has an axis.

    Raises:
        InputError: If it has none.
    """
    if isinstance(tree, Tensor) and tree.dim() > 0:
        return len(tree)
    for tensor in tensors_of(tree):
        if tensor.dim() > 0:
            return len(tensor)
    raise InputError(
        f"A batch must hold at least one tensor with an axis of examples, got "
        f"{type(tree).__name__}."
    )


def is_divisible(tree: Any) -> bool:
    """Whether examples can be told apart: all tensors have one for each, or are plain numbers."""
    lengths = {len(tensor) for tensor in tensors_of(tree) if tensor.dim() > 0}
    return len(lengths) < 2 and all(
        leaf is None or isinstance(leaf, Tensor | bool | int | float) for leaf in leaves_of(tree)
    )


def check_divisible(tree: Any) -> None:
    """Raise ``InputError`` if the examples of a batch cannot be told apart."""
    if not isinstance(tree, Tensor) and not is_divisible(tree):
        lengths = [len(tensor) for tensor in tensors_of(tree) if tensor.dim() > 0]
        raise InputError(
            "This requires splitting a batch into examples, which cannot be told apart: its "
            f"tensors have lengths {lengths}, or it contains something other than tensors and "
            "numbers. Give tensors with one row per example."
        )


def rows(tree: Any, chosen: slice | Tensor) -> Any:
    """Give some of the examples of a batch."""
    if isinstance(tree, Tensor):
        return tree[chosen] if tree.dim() > 0 else tree
    return map_tensors(lambda tensor: tensor[chosen] if tensor.dim() > 0 else tensor, tree)


def split(tree: Any, size: int) -> list[Any]:
    """Cut a batch into parts of at most ``size`` examples.

    Raises:
        InputError: If its examples cannot be told apart.
    """
    if isinstance(tree, Tensor):
        return list(torch.split(tree, size))
    check_divisible(tree)
    num = num_examples(tree)
    return [rows(tree, slice(start, start + size)) for start in range(0, num, size)]


def cat(trees: Sequence[Any]) -> Any:
    """Join batches of one structure along their first axes."""
    if isinstance(trees[0], Tensor):
        return torch.cat(list(trees)) if trees[0].dim() > 0 else trees[0]
    columns = zip(*map(tensors_of, trees), strict=True)
    return replace_tensors(trees[0], [cat(column) for column in columns])


def signature(tree: Any) -> object:
    """Describe a batch but for its number of examples: equal for batches that can be joined."""
    if isinstance(tree, Tensor):
        return (tree.shape[1:], tree.dtype) if tree.dim() > 0 else ((), tree.dtype, tree.item())
    if isinstance(tree, Mapping):
        return type(tree), tuple((key, signature(item)) for key, item in tree.items())
    if isinstance(tree, tuple | list):
        return type(tree), tuple(signature(item) for item in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = dataclasses.fields(tree)
        return type(tree), tuple(signature(getattr(tree, field.name)) for field in fields)
    return tree if tree is None or isinstance(tree, bool | int | float) else id(tree)


def requires_grad(tree: Any) -> bool:
    """Whether a batch may be differentiated by."""
    if isinstance(tree, Tensor):
        return tree.requires_grad
    return any(tensor.requires_grad for tensor in tensors_of(tree))
