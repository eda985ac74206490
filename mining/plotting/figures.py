"""Files of pictures and tables."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mining.storage.files import write_atomically


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write_atomically(path, buffer.getbuffer())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as a plain-text table, one column per key."""
    return pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.4g}")
