"""Values of the configuration against what takes them: the constructor is the schema."""

import inspect
import pydoc
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union

from hydra.utils import instantiate

from mining.errors import InputError

#: What the keys outside every group may be.
_TOP_LEVEL: dict[str, Any] = {
    "checkpoint": str | None,
    "epoch": int | None,
    "split": Literal["train", "test", "both"],
    "num_directions": int,
    "num_examples": int | None,
    "orthogonalize": bool,
    "seed": int,
    "size": Literal["smoke", "cpu", "paper"],
    "batch_size": int,
    "device": Literal["auto", "cpu", "cuda"],
    "precision": Literal["fp32", "bf16", "fp64", "tf32"],
    "tolerance": float | None,
    "refine": float | None,
    "compile": bool,
    "chunk": int | None,
    "num_threads": int | None,
    "outputs": str,
    "progress": bool,
}
_PICTURE: dict[str, Any] = {"log_scale": bool, "loss_cap": float | None}


def check_top_level(config: Mapping[str, Any]) -> None:
    """Check the values of the keys outside every group.

    Raises:
        InputError: If one has the wrong type or is none of what is allowed.
    """
    for key, hint in _TOP_LEVEL.items():
        _check(key, config[key], hint)
    if not isinstance(config["picture"], Mapping) or set(config["picture"]) != set(_PICTURE):
        raise InputError(f"picture has the keys {', '.join(_PICTURE)}, got {config['picture']}.")
    for key, hint in _PICTURE.items():
        _check(f"picture.{key}", config["picture"][key], hint)
    for key in ("batch_size", "num_threads", "num_examples", "chunk"):
        if config[key] is not None and config[key] < 1:
            raise InputError(f"{key} must be at least 1, got {config[key]}.")


def make(group: str, options: Mapping[str, Any], **known: Any) -> Any:
    """Call the ``_target_`` of a group's options, after checking them against its annotations.

    Args:
        group: The group, for the error.
        options: ``_target_`` and its keyword arguments.
        known: Further arguments, handed over where the target has a parameter of that name and
            the options do not set it.

    Returns:
        What the target returns.

    Raises:
        InputError: If a value has the wrong type or is none of what is allowed.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"{group} must be one of its options, got {options!r}.")
    target = target_of(options)
    signature = inspect.signature(target, eval_str=True)
    arguments = {k: v for k, v in known.items() if k in signature.parameters}
    for key, value in options.items():
        if key != "_target_":
            hint = getattr(signature.parameters.get(key), "annotation", inspect.Parameter.empty)
            if hint is not inspect.Parameter.empty:
                _check(f"{group}.{key}", value, hint)
            arguments[key] = _make_nested(f"{group}.{key}", value)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise InputError(f"{group}: {options['_target_']}: {error}.") from error
    try:
        return target(**arguments)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{group}: {options['_target_']} refuses its options: {error}") from error


def _make_nested(key: str, value: Any) -> Any:
    """Make a value that is itself an object, or holds some."""
    if isinstance(value, Mapping) and "_target_" in value:
        return make(key, value)
    return instantiate(value, _convert_="all") if isinstance(value, Mapping | list) else value


def target_of(options: Mapping[str, Any]) -> Any:
    """Import the class or function that ``_target_`` names.

    Raises:
        InputError: If it cannot be imported.
    """
    name = options["_target_"]
    try:
        target = pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        raise InputError(f"Cannot import {name}: {error.value}.") from error
    if not callable(target):
        raise InputError(f"{name} is no class or function that can be imported from here.")
    return target


def _check(key: str, value: Any, hint: Any) -> None:
    if not _fits(value, hint):
        raise InputError(f"{key} must be {_describe(hint)}, got {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if isinstance(value, list):
        elements = [a for a in arguments if a is not Ellipsis]
        return origin is not None and all(_fits(item, elements[0]) for item in value)
    if isinstance(value, str):
        return hint is Path
    # A mapping stands for an object that is made from it.
    return isinstance(value, Mapping) and hint not in (bool, str, int, float, type(None))


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(a) for a in arguments))
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is not None and arguments:
        return f"a list of {_describe(arguments[0])}"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return "null" if hint is type(None) else names.get(hint, getattr(hint, "__name__", str(hint)))
