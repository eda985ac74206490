"""Saving and loading directions."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch

from mining.directions.base import Direction
from mining.files import write_atomically
from mining.landscape import Landscape


def save_directions(path: Path, directions: Sequence[Direction], landscape: Landscape) -> None:
    """Write directions as a dict with ``vectors`` (K, D) and ``names``.

    ``names`` are the names of the parameters in flattening order. The dict also has the
    ``sources``, ``indices`` and ``infos`` of the K directions.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "vectors": torch.stack([d.vector.cpu() for d in directions]),
            "names": list(landscape.space.names),
            "sources": [d.source for d in directions],
            "indices": [d.index for d in directions],
            "infos": [dict(d.info) for d in directions],
        },
        buffer,
    )
    write_atomically(path, buffer.getbuffer())


def load_directions(path: Path, landscape: Landscape) -> list[Direction]:
    """Read a file of ``save_directions`` onto the device of the landscape."""
    content = torch.load(path, map_location=landscape.device, weights_only=True)
    fields = ("vectors", "sources", "indices", "infos")
    return [Direction(*values) for values in zip(*(content[f] for f in fields), strict=True)]
