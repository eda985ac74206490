"""Values of the configuration against what takes them: the constructor is the schema."""

import inspect
import math
import os
import pydoc
import sys
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from mining import InputError
from mining.pipelines import PIPELINE_KEYS

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


#: Groups of which every pipeline has one; they name runs.
_GROUPS = ("model", "data", "direction", "x_direction", "y_direction", "batchnorm")
_SECTIONS = ("grid", "train", "descent", "spectrum", "expansion", "perturbation")
#: Seeds that every generator takes, with room for the ones derived from them.
_MOST_SEED = 2**62


def check_config(config: Mapping[str, Any]) -> None:
    """Check everything that can be checked without building anything.

    These are the values outside every group, that groups are groups, and that all can be recorded.

    Raises:
        InputError: If a value has the wrong type, is out of its range, or is not finite.
    """
    if config.get("pipeline") not in PIPELINE_KEYS:
        raise InputError(
            f"pipeline must be one of {', '.join(PIPELINE_KEYS)}, got {config.get('pipeline')!r}."
        )
    for group in (*_GROUPS, *_SECTIONS):
        _check_group(group, config.get(group))
    if config.get("normalization") is not None:
        _check_group("normalization", config["normalization"])
    name = config["model"].get("name")
    if not isinstance(name, str) or not name.strip("."):
        raise InputError(f"model.name must be a name for the folder of its runs, got {name!r}.")
    for key, value in config.items():
        _check_recordable(key, value)
    for key, hint in _TOP_LEVEL.items():
        _check(key, config.get(key), hint)
    if not isinstance(config["picture"], Mapping) or set(config["picture"]) != set(_PICTURE):
        raise InputError(f"picture has the keys {', '.join(_PICTURE)}, got {config['picture']}.")
    if not config["outputs"]:
        raise InputError("outputs must be the name of a folder, got nothing.")
    for key, hint in _PICTURE.items():
        _check(f"picture.{key}", config["picture"][key], hint)
    if config["picture"]["loss_cap"] is not None and config["picture"]["loss_cap"] <= 0:
        raise InputError(f"picture.loss_cap must be positive, got {config['picture']['loss_cap']}.")
    for key in ("batch_size", "num_threads", "num_examples", "chunk", "num_directions"):
        if config[key] is not None and config[key] < 1:
            raise InputError(f"{key} must be at least 1, got {config[key]}.")
    processors = os.cpu_count() or 1
    if (config["num_threads"] or 1) > max(64, processors):
        raise InputError(
            f"num_threads must be at most {max(64, processors)} with {processors} processors, got "
            f"{config['num_threads']}."
        )
    for key, seed in (("seed", config["seed"]), ("data.subset_seed", _subset_seed(config))):
        if not 0 <= seed <= _MOST_SEED:
            raise InputError(f"{key} must lie between 0 and 2**62, got {seed}.")


def _subset_seed(config: Mapping[str, Any]) -> int:
    seed = config["data"].get("subset_seed", 0)
    _check("data.subset_seed", seed, int)
    return int(seed)


def _check_group(group: str, options: Any) -> None:
    if not isinstance(options, Mapping):
        raise InputError(f"{group} must be one of its options, got {options!r}.")
    if not isinstance(options.get("_target_"), str):
        raise InputError(
            f"{group}._target_ must be the name of a class or function, package.module.Name, got "
            f"{options.get('_target_')!r}."
        )


def _check_recordable(key: str, value: Any) -> None:
    """Refuse what the record of a run, which is JSON, has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key} must be finite, got {value}.")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_recordable(f"{key}[{index}]", item)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise InputError(f"{key} must have text as its keys, got {name!r}.")
            _check_recordable(f"{key}.{name}", item)
    elif not isinstance(value, str | int | float | None):
        raise InputError(f"{key} must be a number, text, a list or a mapping, got {value!r}.")


def make(group: str, options: Mapping[str, Any], kind: type = object, **known: Any) -> Any:
    """Call the ``_target_`` of a group's options, after looking at it and at its annotations.

    Args:
        group: The group, for the error.
        options: ``_target_`` and its keyword arguments.
        kind: What the target must be a subclass of or return; see ``target_of``.
        known: Further arguments, handed over where the target has a parameter of that name and
            the options do not set it.

    Returns:
        What the target returns.

    Raises:
        InputError: If the target is of another kind, or a value has the wrong type, is none of
            what is allowed, or is refused by the target.
    """
    _check_group(group, options)
    name = options["_target_"]
    target = target_of(group, options, kind)
    signature = _signature(target)
    arguments = {k: v for k, v in known.items() if k in signature.parameters}
    for key, value in options.items():
        if key != "_target_":
            hint = getattr(signature.parameters.get(key), "annotation", Any)
            _check(f"{group}.{key}", value, hint)
            arguments[key] = _make_nested(f"{group}.{key}", value, hint)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise InputError(f"{group}: {name}: {error}.") from error
    try:
        made = target(**arguments)
    except (InputError, OSError, MemoryError, ArithmeticError):
        raise
    except Exception as error:
        if name.startswith("mining.") and not isinstance(error, RuntimeError):
            raise  # a fault of this package; torch refuses sizes with a RuntimeError
        text = f"{group}: {name} refuses its options: {error or type(error).__name__}"
        raise InputError(text + _place(error.__traceback__)) from error
    if not isinstance(made, kind):
        raise InputError(f"{group}: {name} gives no {kind.__name__} but {type(made).__name__}.")
    return made


def _make_nested(key: str, value: Any, hint: Any = Any) -> Any:
    """Make a value that is itself an object, or holds some."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return make(key, value, hint if isinstance(hint, type) else object)
        return {name: _make_nested(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, list):
        return [_make_nested(f"{key}[{index}]", item) for index, item in enumerate(value)]
    return value


def target_of(group: str, options: Mapping[str, Any], kind: type = object) -> Any:
    """Import the class or function that ``_target_`` names, without calling it.

    Args:
        group: The group, for the error.
        options: They hold ``_target_``.
        kind: A class must be a subclass of it; a function must return one, where it says so.
            Nothing of Python itself is taken, ``os.system`` for instance.

    Raises:
        InputError: If it cannot be imported or is of another kind.
    """
    name = options["_target_"]
    try:
        target = pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        raise InputError(f"Cannot import {name}: {error.value}{_place(error.tb)}.") from error
    if not callable(target):
        raise InputError(
            f"{group}._target_: {name} is no class or function that can be imported from "
            f"{Path.cwd()} or the installed packages."
        )
    package = str(getattr(target, "__module__", None) or "builtins").partition(".")[0]
    returned = target if isinstance(target, type) else _signature(target).return_annotation
    fits = not isinstance(returned, type) or returned is inspect.Signature.empty
    if package in sys.stdlib_module_names or not (fits or issubclass(returned, kind)):
        expected = "of your own" if kind is object else f"{kind.__module__}.{kind.__name__}"
        raise InputError(
            f"{group}._target_ must be a class or function that gives {expected}, got {name}."
        )
    return target


def _signature(target: Any) -> inspect.Signature:
    try:
        return inspect.signature(target, eval_str=True)
    except NameError:  # annotations that only type checkers can read
        return inspect.signature(target)
    except (ValueError, TypeError):  # of what is written in C
        return inspect.Signature([inspect.Parameter("_", inspect.Parameter.VAR_KEYWORD)])


def _place(raised: types.TracebackType | None) -> str:
    """Say in which line an error was raised, for code that is not this package's."""
    frames = traceback.extract_tb(raised)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _check(key: str, value: Any, hint: Any) -> None:
    if not _fits(value, hint):
        raise InputError(f"{key} must be {_describe(hint)}, got {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if hint in (Any, object, inspect.Parameter.empty) or isinstance(hint, str | TypeVar):
        return True
    if hint in (list, tuple, Sequence):
        return isinstance(value, list)
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
