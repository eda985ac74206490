"""Saving and loading directions."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mining import InputError
from mining.directions.base import Direction
from mining.landscape import Landscape
from mining.storage.checkpoints import read_tensors
from mining.storage.files import write_atomically

_FIELDS = ("vectors", "sources", "indices", "metadata")


def save_directions(path: Path, directions: Sequence[Direction], landscape: Landscape) -> None:
    """Write directions as a dict with ``vectors`` (K, D) and ``names``.

    ``names`` are the names of the parameters in flattening order. The dict also has the
    ``sources``, ``indices`` and ``metadata`` of the K directions, the last being their records.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "vectors": torch.stack([d.vector.cpu() for d in directions]),
            "names": list(landscape.space.names),
            "sources": [d.source for d in directions],
            "indices": [d.index for d in directions],
            "metadata": [d.record() for d in directions],
        },
        buffer,
    )
    write_atomically(path, buffer.getbuffer())


def load_directions(path: Path, landscape: Landscape) -> list[Direction]:
    """Read what ``save_directions`` wrote, onto the device of the landscape.

    Raises:
        InputError: If the file is damaged.
    """
    content = read_directions(path)
    content["vectors"] = content["vectors"].to(landscape.device)
    columns = (content[name] for name in _FIELDS)
    return [Direction.from_record(*values) for values in zip(*columns, strict=True)]


def read_directions(path: Path) -> dict[str, Any]:
    """Read ``vectors``, ``sources``, ``indices`` and ``metadata`` that ``save_directions`` wrote.

    Raises:
        InputError: If the file is damaged.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or not content.keys() >= set(_FIELDS):
        raise InputError(
            f"{path} does not contain the directions of a run: remove it and run again."
        )
    return content
