"""Known words that a mistyped one may mean."""

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str]) -> str:
    """Ask whether one of the known words is meant, in brackets; empty where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.65)
    return f" (did you mean {close[0]}?)" if close else ""
