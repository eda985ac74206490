"""Surfaces as meshes and columns of numbers as scalars, for TensorBoard."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mining import InputError
from mining.plotting.losses import Array
from mining.plotting.meshes import Mesh


def event_file(meshes: Mapping[str, Mesh], scalars: Mapping[str, tuple[Array, Array]]) -> bytes:
    """Return the content of an event file, whose name must contain ``tfevents``.

    TensorBoard keeps numbers in single precision.

    Args:
        meshes: By tag.
        scalars: By tag: steps, which are integers, and their values, both of shape ``(n,)``.

    Raises:
        InputError: If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise InputError(
            "This file needs TensorBoard: pip install tensorboard, or mining[tensorboard]."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        writer: Any = SummaryWriter(folder)
        try:
            for tag, mesh in meshes.items():
                writer.add_mesh(
                    tag,
                    vertices=_batch(mesh.points, torch.float32),
                    colors=_batch(np.round(255 * mesh.colors), torch.int32),
                    faces=_batch(mesh.faces, torch.int32),
                )
            for tag, (steps, values) in scalars.items():
                for step, value in zip(steps.tolist(), values.tolist(), strict=True):
                    writer.add_scalar(tag, value, step)
        finally:
            writer.close()
        (path,) = Path(folder).iterdir()
        return path.read_bytes()


def _batch(values: Array, dtype: torch.dtype) -> torch.Tensor:
    return torch.as_tensor(values, dtype=dtype)[None]


def numbered(columns: Mapping[str, Array], by: str, prefix: str) -> dict[str, tuple[Array, Array]]:
    """Make scalars of the columns of a table.

    TensorBoard has integers on its axis. Where those of the column ``by`` are none, rows are
    numbered from 0, and the column becomes a scalar, too.

    Args:
        columns: Of equal lengths.
        by: The column to which the rows belong: epochs, or α.
        prefix: What the tags begin with.

    Returns:
        Steps and values by tag; values that are missing are left out.
    """
    steps = np.asarray(columns[by], dtype=float)
    whole = bool(np.isfinite(steps).all() and (steps == np.round(steps)).all())
    chosen: Sequence[str] = [name for name in columns if name != by or not whole]
    steps = (steps if whole else np.arange(len(steps))).astype(np.int64)
    found = {}
    for name in chosen:
        values = np.asarray(columns[name], dtype=float)
        known = ~np.isnan(values)
        if known.any():
            found[f"{prefix}{name}"] = (steps[known], values[known])
    return found
