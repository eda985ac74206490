"""The error that says the input is wrong."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Raised where an argument, a file, a model or its data are not what they must be.

    Its message names the argument, what was expected, what came, and the remedy where there is
    one; the command line shows that line alone. Every other exception is a fault of the program
    and keeps its traceback.
    """


def suggest(word: str, known: Iterable[str]) -> str:
    """Ask whether one of the known words is meant, in brackets; empty where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.65)
    return f" (did you mean {close[0]}?)" if close else ""


class FailedJobError(Exception):
    """A job of a sweep failed in a process of its own, and has said why."""
