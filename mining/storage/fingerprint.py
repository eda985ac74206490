"""What stored work belongs to: a digest, and losses for what no digest sees."""

import functools
import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

#: Relative differences of a loss between machines and numbers of threads, and well above them.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 3e-2
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class Fingerprint:
    """What points, directions or weights on disk belong to.

    A digest of tensors and settings cannot see a constant inside the code of a model. Losses can:
    they are compared to the rounding that differs between machines.

    Args:
        digest: Of everything that can be digested; 64 hexadecimal digits.
        values: Losses of a few examples at points that are the same in every process.
        rounding: The largest relative difference of equal values.
    """

    digest: str
    values: tuple[float, ...] = ()
    rounding: float = 0.0

    def __str__(self) -> str:
        return " ".join([self.digest, *map(repr, self.values)])

    def matches(self, stored: object) -> bool:
        """Whether ``stored`` is the text of a fingerprint of the same."""
        digest, *values = str(stored).split(" ")
        if digest != self.digest or len(values) != len(self.values):
            return False
        try:
            found = [float(value) for value in values]
        except ValueError:
            return False
        return all(
            a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=self.rounding)
            for a, b in zip(found, self.values, strict=True)
        )


def rounding_of(dtype: torch.dtype, *, coarse: bool) -> float:
    """Give the largest relative difference of equal losses between machines.

    Args:
        dtype: Of the parameters.
        coarse: Whether products are rounded to bf16 or tf32.
    """
    return _COARSE if coarse else _ROUNDING.get(dtype, _COARSE)


def describe(value: Any, depth: int = 4) -> Any:
    """Describe a function, a callable object or a setting, the same in every process.

    Functions count with their code and constants, with what they close over and with the plain
    globals that they name; ``partial`` with its arguments; objects with the code that calls them.
    Modules of torch and functions of torch count by name: they have a version.

    Args:
        value: Anything.
        depth: How many levels are followed.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return [tuple(value.shape), str(value.dtype), _digest(value)]
    kind = value if hasattr(value, "__qualname__") else type(value)
    name = [getattr(kind, "__module__", ""), getattr(kind, "__qualname__", "")]
    if depth == 0 or str(name[0]).partition(".")[0] == "torch":
        return name

    def inner(item: Any) -> Any:
        return describe(item, depth - 1)

    if isinstance(value, list | tuple | set | frozenset):
        items = [inner(item) for item in value]
        return sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    if isinstance(value, Mapping):
        return [[str(key), inner(item)] for key, item in value.items()]
    if isinstance(value, functools.partial):
        return ["partial", inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, MethodType):
        return [inner(value.__func__), inner(value.__self__)]
    if isinstance(value, FunctionType):
        code = value.__code__
        named = {n: value.__globals__[n] for n in code.co_names if n in value.__globals__}
        plain = {n: item for n, item in named.items() if isinstance(item, (*_PLAIN, Tensor))}
        settings = [value.__defaults__, value.__kwdefaults__, _enclosed(value), plain]
        return [*name, _code(code), *map(inner, settings)]
    if isinstance(value, nn.Module):
        return [*name, inner(type(value).forward)]
    called = vars(type(value)).get("__call__")
    # Not with its attributes: one may count calls. Losses tell the constants among them apart.
    return [*name, inner(called)] if isinstance(called, FunctionType) else name


def _code(code: CodeType) -> list[Any]:
    constants = [
        _code(constant) if isinstance(constant, CodeType) else describe(constant)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, constants]


def _enclosed(function: FunctionType) -> list[Any]:
    """List what a function closes over, as far as it has been assigned."""
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().data).hexdigest()
