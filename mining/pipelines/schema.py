"""Values of the configuration against what takes them: the constructor is the schema."""

import inspect
import math
import os
import pydoc
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union

from hydra.utils import instantiate

from mining.errors import InputError
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
    _check_group(group, options)
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
