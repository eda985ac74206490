"""Styles and widths of pictures for papers."""

from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path

import matplotlib.style

from mining import InputError
from mining.storage.spelling import suggest

#: Inches: a column and the text width of most two-column journals and proceedings.
WIDTHS = {"one_column": 3.33, "two_columns": 6.9}
_OWN = ("paper",)


def find_style(name: str) -> str:
    """Find a style: that of this package, one of matplotlib, or a file.

    Args:
        name: ``paper``, a name in ``matplotlib.style.available``, or a ``.mplstyle`` file.

    Returns:
        What ``matplotlib.style.use`` takes.

    Raises:
        InputError: If there is no such style.
    """
    if name in _OWN:
        return str(files("mining.plotting").joinpath(f"{name}.mplstyle"))
    if name in matplotlib.style.available:
        return name
    if name.endswith(".mplstyle") and Path(name).is_file():
        return name
    known = [*_OWN, *matplotlib.style.available]
    raise InputError(
        "picture.style must be paper, a style of matplotlib, a file ending in .mplstyle, or null, "
        f"got {name!r}{suggest(name, known)}."
    )


def in_style(name: str) -> AbstractContextManager[None]:
    """Draw in a style; see ``find_style``."""
    found: AbstractContextManager[None] = matplotlib.style.context(find_style(name))
    return found
