"""What a user types, as Hydra takes it."""

import re
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from mining import InputError
from mining.storage.spelling import suggest


def arrange(arguments: Sequence[str]) -> list[str]:
    """Put arguments in the order and the form in which Hydra takes them.

    Options, ``-m`` for instance, come first. Keys of a class of one's own need no ``+``. The axes
    of a surface are chosen like any group; see ``with_packages``.

    Args:
        arguments: Options and ``KEY=VALUE``, in any order.

    Raises:
        InputError: If an option is unknown, or an argument is neither.
    """
    overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a[:1] == "~")]
    options = [a for a in arguments if a not in overrides]
    parser = get_args_parser()
    known = sorted(parser._option_string_actions)

    def refuse(message: str) -> NoReturn:
        unknown = [a for a in options if a.startswith("-") and a.partition("=")[0] not in known]
        close = suggest(unknown[0], known) if unknown else ""
        raise InputError(
            f"{message}{close}. Options are {', '.join(known)}; everything else is KEY=VALUE."
        )

    parser.error = refuse  # type: ignore[method-assign]
    for word in parser.parse_args(options).overrides:
        raise InputError(f"{word!r} must be KEY=VALUE or GROUP=OPTION; --help lists them all.")
    return [*options, *with_packages(_with_own_keys(overrides))]


def with_packages(overrides: Sequence[str]) -> list[str]:
    """Write ``x_direction=NAME`` as ``direction@x_direction=NAME``, and so for ``y_direction``.

    Both axes take the options of ``direction``: Hydra has one group for all three; and
    ``data_shifted`` takes those of ``data``. Mappings (``x_direction={…}``) and single keys
    (``x_direction.start=2``) are values, not options.
    """
    axes = [re.sub(r"^([+~]*)([xy]_direction=)(?!\{)", r"\1direction@\2", o) for o in overrides]
    return [re.sub(r"^([+~]*)(data_shifted=)(?!\{)", r"\1data@\2", o) for o in axes]


def as_typed(override: str) -> str:
    """Undo ``with_packages`` for one argument, so that messages say what a user typed."""
    return re.sub(r"^([+~]*)(?:direction|data)@(\w+=)", r"\1\2", override)


def _with_own_keys(overrides: Sequence[str]) -> list[str]:
    """Mark the keys of groups whose class is the user's as keys that may be new."""
    own = {a.partition("._target_=")[0].lstrip("+") for a in overrides if "._target_=" in a}
    if "model=custom" in overrides:
        own.add("model")
    return [f"++{a}" if "." in a and a.partition(".")[0] in own else a for a in overrides]
