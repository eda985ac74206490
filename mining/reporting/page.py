"""The page: one HTML file with its data, its style, its scripts and the library that draws."""

import base64
import zlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from mining import InputError
from mining.reporting.encoding import as_json

_STATIC = "mining.reporting"
#: In the order in which they are run.
_SCRIPTS = ("data", "state", "landscape", "curves", "spectra", "tables", "main")


def build_page(title: str, content: Mapping[str, Any], *, served: bool = False) -> str:
    """Write the page of a report.

    Args:
        title: The heading, and the name of the page.
        content: What ``describe_runs`` collected, and ``made``: which command and which versions
            made the page.
        served: Whether a server evaluates the lines that are drawn on its surfaces.

    Returns:
        HTML that needs nothing but a browser.

    Raises:
        InputError: If plotly is not installed.
    """
    scripts = ("explore", *_SCRIPTS) if served else _SCRIPTS
    parts = {
        "title": escape(title),
        "style": _read("report.css"),
        "data": as_json({"title": title, **content}),
        "plotly": _plotly(),
        "scripts": "\n".join(_read(f"{name}.js") for name in scripts),
    }
    before, *pieces = _read("report.html").split("{{")
    page = [before]
    for piece in pieces:
        name, _, text = piece.partition("}}")
        page += [parts[name], text]
    return "".join(page)


def _read(name: str) -> str:
    return files(_STATIC).joinpath("static", name).read_text(encoding="utf-8")


def _plotly() -> str:
    """Compress the script of plotly, which the browser inflates: 4.8 MB become 2 MB."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise InputError("A report needs plotly: pip install plotly, or mining[report].") from error
    script: str = get_plotlyjs()
    return base64.b64encode(zlib.compress(script.encode(), 9)).decode("ascii")
