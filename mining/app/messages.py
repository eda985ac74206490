"""What the command line says of an error: one line, and whose fault it is."""

import re
import sysconfig
import traceback
from errno import EACCES
from importlib.resources import files
from pathlib import Path
from typing import cast

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from mining import InputError
from mining.app.help import options_in
from mining.ranks import RankError
from mining.storage.spelling import suggest

#: ArithmeticErrors of Python; those that this package raises say what to change.
_PYTHONS = (ZeroDivisionError, OverflowError, FloatingPointError)


class FailedJobError(Exception):
    """A job of a sweep failed in a process of its own, and has said why."""


def is_expected(error: BaseException) -> bool:
    """Whether an error tells of the input or the machine; any other is a fault of the program."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return not _faults(error)  # of a resolver of this package, inside
    if isinstance(error, InputError | RankError):
        return True
    if isinstance(error, ArithmeticError):
        return not isinstance(error, _PYTHONS)
    if isinstance(error, OSError):
        if error.errno is None:  # raised with a message instead of a number
            return isinstance(error, FileNotFoundError | ConnectionError)
        # Files that the user names are looked for first: what is missing then is one's own.
        return not (isinstance(error, FileNotFoundError) and passed_through_mining(error))
    return isinstance(error, MemoryError) or _is_out_of_memory(error)


def describe(error: BaseException) -> str:
    """Say in one line what is wrong and what would be right."""
    for cause in _causes(error):
        if isinstance(cause, InputError):  # in a resolver, of which OmegaConf says where
            error = cause
            break
        if (
            isinstance(cause, ConfigAttributeError | ConfigKeyError)
            and cause.parent_node is not None
        ):
            keys = {str(key) for key in cast(DictConfig, cause.parent_node)}
            name = str(cause.full_key)
            path, _, word = name.rpartition(".")
            if not path:
                keys |= {entry.name for entry in files("mining.conf").iterdir() if entry.is_dir()}
            allowed = sorted(key for key in keys if key not in ("hydra", "_target_", "__pycache__"))
            listed = ", ".join(allowed) or "none"
            return f"no key {name!r}; there are {listed}{suggest(word, allowed)}"
        if isinstance(cause, MissingMandatoryValue) and cause.full_key:
            return f"{cause.full_key} must be given: {cause.full_key}=VALUE"
    if isinstance(error, OSError) and error.errno is not None:
        where = f" {error.filename}" if error.filename else ""
        attempt = "access" if error.errno == EACCES else "write"
        return f"cannot {attempt}{where}: {error.strerror}. Make room, or outputs=ANOTHER_FOLDER"
    text = " ".join(str(error).partition("Config search path:")[0].split())
    text = text.replace("direction@", "")  # in which a user types x_direction=NAME
    if absent := re.search(r"Missing mandatory value: (\S+)", text):  # inside another value
        return f"{absent[1]} must be given: {absent[1]}=VALUE"
    if merged := re.fullmatch(r"Error merging override \W*([\w.]+)=.*", text):
        return f"{merged[1]} is a mapping: set one of its keys, {merged[1]}.KEY=VALUE"
    missing = re.match(r"Could not find '(\w+)/", text) or re.search(r"'(\w+)/[^']*'", text)
    if isinstance(error, MissingConfigException) and missing and missing[1] != "hydra":
        options = [name for name, _ in options_in(files("mining.conf").joinpath(missing[1]))]
        word = missing[0].partition("/")[2].rstrip("'")
        listed = f"{', '.join(options)}{suggest(word, options)}"
        return f"{text.partition('Available')[0]}There are {listed}"
    if _is_out_of_memory(error):
        return f"out of memory: {text.partition('. ')[0]}. Lower batch_size or chunk"
    return text or type(error).__name__


def describe_fault(error: BaseException, log: Path | None) -> str:
    """Name a fault of the program in one line, and append its traceback to a file.

    Args:
        error: The error.
        log: The file; ``None`` where there is no run to keep one.

    Returns:
        The line, with the traceback before it where it could not be written.
    """
    lines = "".join(traceback.format_exception(error))
    where = "its traceback is above"
    if log is not None:
        try:
            with log.open("a") as file:
                file.write(lines)
        except OSError:  # a full disk, for instance: the traceback goes to the terminal instead
            log = None
        else:
            where = f"its traceback is in {log}"
    # What OmegaConf says of a resolver that failed hides what failed in it.
    fault = _faults(error)[-1] if _faults(error) else error
    text = " ".join(str(fault).split())
    line = f"{type(fault).__name__}{f': {text}' if text else ''}"
    own = _users_line(fault)
    whose = f"raised in {own}" if own else "a fault of the program, not of the input"
    line = f"error: {line.rstrip('.')}. This is {whose}; {where}"
    return line if log is not None else lines + line


def _causes(error: BaseException) -> list[BaseException]:
    """List an error and what led to it, the latest first."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _faults(error: BaseException) -> list[BaseException]:
    """List the faults of this package that led to an error of Hydra or OmegaConf."""
    causes = [cause for cause in _causes(error)[1:] if passed_through_mining(cause)]
    return [cause for cause in causes if not is_expected(cause)]


def passed_through_mining(error: BaseException) -> bool:
    """Whether an error was raised in this package, or by what it called."""
    modules = (
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    entry = {"mining.__main__", "mining.app.command_line"}
    return any(name.startswith("mining.") and name not in entry for name in modules)


def _users_line(error: BaseException) -> str | None:
    """Name the last line of a user's own code that an error was raised in, if in any."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__", "")) for frame in frames]
    # What lies before the pipelines called this package, and was not called by it.
    start = next(
        (i for i, name in enumerate(modules) if name.startswith("mining.pip")), len(modules)
    )
    library = (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),)
    places = (*library, str(Path(__file__).parent.parent), "<")
    found = None
    for frame in frames[start:]:
        name = frame.f_code.co_filename
        if not name.startswith(places):
            found = f"{name}:{frame.f_lineno}"
    return found


def _is_out_of_memory(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    from mining.functional.memory import (
        is_out_of_memory,  # with torch, which a finished run does without
    )

    return is_out_of_memory(error)
