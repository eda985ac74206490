"""Counters and generators of what yields the examples of a training."""

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Larger collections hold examples and no state.
_SMALL = 64


@contextmanager
def preserved(loader: Any) -> Iterator[None]:
    """Undo what going through a loader changes of it, of its sampler and of its data set.

    Restored are the attributes of all objects that are reached from the loader by attributes and
    collections of at most 64 entries, such collections themselves, and generators of torch, NumPy
    and Python. What tensors, arrays and files hold is not.

    Args:
        loader: A ``DataLoader`` or another iterable.
    """
    undo = [_undo(part) for part in _parts(loader)]
    try:
        yield
    finally:
        for function in undo:
            function()


def _parts(root: Any) -> list[Any]:
    """List what is reached from ``root`` and may have a state."""
    found: dict[int, Any] = {}
    queue = deque([root])
    while queue:
        part = queue.popleft()
        if id(part) in found or isinstance(part, type | ModuleType | Tensor | np.ndarray):
            continue
        if isinstance(part, list | tuple | dict | set | deque) and len(part) > _SMALL:
            continue
        found[id(part)] = part
        queue.extend(_members(part))
    return list(found.values())


def _members(part: Any) -> list[Any]:
    if isinstance(part, dict):
        return list(part.values())
    if isinstance(part, list | tuple | set | deque):
        return list(part)
    if isinstance(part, MethodType):
        return [part.__self__]
    if isinstance(part, partial):
        return [part.func, *part.args, *part.keywords.values()]
    if isinstance(part, FunctionType):
        return [content for cell in part.__closure__ or () for content in _contents(cell)]
    return list(getattr(part, "__dict__", {}).values())


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # of a variable that has no value yet
        return []


def _undo(part: Any) -> Callable[[], object]:
    """Return a function that restores the state that ``part`` has now."""
    if isinstance(part, torch.Generator):
        return partial(part.set_state, part.get_state())
    if isinstance(part, random.Random):
        return partial(part.setstate, part.getstate())
    if isinstance(part, np.random.RandomState):
        return partial(part.set_state, part.get_state())
    if isinstance(part, np.random.Generator):
        return partial(setattr, part.bit_generator, "state", part.bit_generator.state)
    if isinstance(part, list | deque):
        return partial(_refill, part, part.extend, list(part))
    if isinstance(part, dict | set):
        return partial(_refill, part, part.update, part.copy())
    attributes = getattr(part, "__dict__", None)
    if isinstance(attributes, dict):
        return partial(_refill, attributes, attributes.update, dict(attributes))
    return lambda: None


def _refill(container: Any, fill: Callable[[Any], Any], content: Any) -> None:
    container.clear()
    fill(content)
