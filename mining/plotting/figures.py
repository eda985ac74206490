"""Files of pictures and tables."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from mining import InputError
from mining.plotting.layout import fit, resize
from mining.storage.files import write_atomically

#: What files of each format would otherwise have of the day on which they are written.
_UNDATED = {".png": None, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def save_figure(figure: Figure, path: Path, *, dpi: int = 150, width: float | None = None) -> None:
    """Write a figure as PNG, PDF or SVG, atomically; the same figure gives the same file.

    Args:
        figure: What is drawn.
        path: Of the file; its suffix is the format.
        dpi: Dots per inch of a PNG.
        width: In inches, the height in proportion; by default the figure's own. See ``resize``.

    Raises:
        InputError: If the suffix is no such format.
    """
    suffix = path.suffix.lower()
    if suffix not in _UNDATED:
        raise InputError(f"{path} must end in {', '.join(_UNDATED)}.")
    if width is not None:
        resize(figure, width)
    fit(figure)
    buffer = io.BytesIO()
    # Fonts that journals take, and names in an SVG that are the same each time.
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "mining"}):
        figure.savefig(buffer, format=suffix[1:], dpi=dpi, metadata=_UNDATED[suffix])
    write_atomically(path, buffer.getbuffer())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as a plain-text table, one column per key."""
    return pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.4g}")
