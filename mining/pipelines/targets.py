"""Options of the configuration against what takes them: the constructor is the schema."""

import functools
import inspect
import json
import pydoc
import sys
import traceback
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import ErrorDetails

from mining import InputError

Made = TypeVar("Made")
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
#: What pydantic expects, in fewer words.
_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "sequence_type": "a list",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "needs_python_object": "an object, a mapping with a _target_",
}


@dataclass(frozen=True)
class Target:
    """A class or function and its arguments, as an option of a group names them.

    Args:
        key: Of the configuration, ``model`` for instance, for errors.
        name: The class or function, ``package.module.Name``.
        options: Its arguments, as JSON has them; objects among them are mappings with a
            ``_target_``.
    """

    key: str
    name: str
    options: Mapping[str, Any]

    @classmethod
    def read(cls, key: str, given: Any) -> "Target":
        """Take ``_target_`` and options from a part of the configuration.

        Raises:
            InputError: If it is no mapping that has them.
        """
        if not isinstance(given, Mapping):
            raise InputError(f"{key} must be one of its options, got {given!r}.")
        name = given.get("_target_")
        if not isinstance(name, str):
            raise InputError(
                f"{key}._target_ must be the name of a class or function, package.module.Name, "
                f"got {name!r}."
            )
        return cls(key, name, {k: v for k, v in given.items() if k != "_target_"})

    def record(self) -> dict[str, Any]:
        """Return ``_target_`` and options as one mapping, as the configuration has them."""
        return {"_target_": self.name, **self.options}

    def with_options(self, **options: object) -> "Target":
        """Return this target with some options replaced."""
        return replace(self, options={**self.options, **options})

    def without(self, option: str) -> "Target":
        """Return this target with one option less."""
        return replace(self, options={k: v for k, v in self.options.items() if k != option})

    def find(self, kind: type = object) -> Any:
        """Import the class or function, without calling it.

        Args:
            kind: A class must be a subclass of it; a function must return one, where it says so.
                Nothing of Python itself is taken, ``os.system`` for instance.

        Raises:
            InputError: If it cannot be imported or is of another kind.
        """
        try:
            target = pydoc.locate(self.name)
        except pydoc.ErrorDuringImport as error:
            raise InputError(
                f"Cannot import {self.name}: {error.value}{_place(error.tb)}."
            ) from error
        if not callable(target):
            raise InputError(
                f"{self.key}._target_: {self.name} is no class or function that can be imported "
                f"from {Path.cwd()} or the installed packages."
            )
        package = str(getattr(target, "__module__", None) or "builtins").partition(".")[0]
        returned = target if isinstance(target, type) else _signature(target).return_annotation
        fits = not isinstance(returned, type) or returned is inspect.Signature.empty
        if package in sys.stdlib_module_names or not (fits or issubclass(returned, kind)):
            expected = "of your own" if kind is object else f"{kind.__module__}.{kind.__name__}"
            raise InputError(
                f"{self.key}._target_ must be a class or function that gives {expected}, got "
                f"{self.name}."
            )
        return target

    def make(self, kind: type[Made], **known: object) -> Made:
        """Call the class or function, after a look at it and at its annotations.

        Args:
            kind: What it must be a subclass of or return; see ``find``.
            known: Further arguments, handed over where it has a parameter of that name and the
                options do not set it.

        Returns:
            What it returns.

        Raises:
            InputError: If it is of another kind, or a value has the wrong type, is none of what is
                allowed, or is refused by it.
        """
        target = self.find(kind)
        signature = _signature(target)
        arguments = {k: v for k, v in known.items() if k in signature.parameters}
        for name, value in self.options.items():
            parameter = signature.parameters.get(name)
            hint = Any if parameter is None else parameter.annotation
            arguments[name] = _make_nested(f"{self.key}.{name}", value, hint)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise InputError(f"{self.key}: {self.name}: {error}.") from error
        try:
            made = target(**arguments)
        except (InputError, OSError, MemoryError, ArithmeticError):
            raise
        except Exception as error:
            if self.name.startswith("mining.") and not isinstance(error, RuntimeError):
                raise  # a fault of this package; torch refuses sizes with a RuntimeError
            text = f"{self.key}: {self.name} refuses its options: {error or type(error).__name__}"
            raise InputError(text + _place(error.__traceback__)) from error
        if not isinstance(made, kind):
            given = type(made).__name__
            raise InputError(f"{self.key}: {self.name} gives no {kind.__name__} but {given}.")
        return made


def check(key: str, value: Any, hint: Any) -> Any:
    """Check a value of the configuration against an annotation.

    An integer is a number, text is a path, and a list is a sequence of any kind; nothing else is
    converted.

    Args:
        key: Of the configuration, for the error.
        value: As JSON has it.
        hint: The annotation. One that only type checkers can read allows everything.

    Returns:
        The value as the annotation has it.

    Raises:
        InputError: If it does not fit.
    """
    adapter = _adapter(hint)
    if adapter is None:
        return value
    try:
        found = adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        raise InputError(_describe(key, error.errors(), hint)) from error
    if isinstance(value, bool) and not isinstance(found, bool):  # True is 1 for a Literal
        raise InputError(f"{key} must be a number, got {value}.")
    return found


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    if hint is inspect.Parameter.empty or isinstance(hint, str | TypeVar):
        return None
    try:
        return TypeAdapter(hint, config=_STRICT)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError):
        return None


def _describe(key: str, errors: Iterable[ErrorDetails], hint: Any) -> str:
    """Say in one line what a value must be: of several kinds, the ones it comes closest to."""
    found: dict[str, list[ErrorDetails]] = {}
    for error in errors:
        place = "".join(f"[{part}]" for part in error["loc"] if isinstance(part, int))
        found.setdefault(place, []).append(error)
    place = max(found, key=lambda place: place.count("["))
    kinds = [_expected(error) for error in found[place]]
    bounded = {"gt", "ge", "le"} & set(found[place][0].get("ctx", {}))
    if not place and not bounded and type(None) in typing.get_args(hint):
        kinds.append("null")
    return f"{key}{place} must be {' or '.join(kinds)}, got {found[place][0]['input']!r}."


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        return str(context["expected"]).replace("'", "").replace(", ", " or ")
    words = error["msg"].partition("should be ")[2] or error["msg"]
    return _EXPECTED.get(error["type"], words).format(**context)


def _make_nested(key: str, value: Any, hint: Any) -> Any:
    """Make a value that is itself an object, or holds some; any other must fit its annotation."""
    if isinstance(value, Mapping) and "_target_" in value:
        kind = hint if isinstance(hint, type) else object
        return Target.read(key, value).make(kind)
    if not _holds_objects(value):
        check(key, value, hint)
        return value
    if isinstance(value, Mapping):
        return {name: _make_nested(f"{key}.{name}", item, Any) for name, item in value.items()}
    return [_make_nested(f"{key}[{index}]", item, Any) for index, item in enumerate(value)]


def _holds_objects(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_holds_objects, value.values()))
    return isinstance(value, list) and any(map(_holds_objects, value))


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
