"""Files that are either whole or absent."""

import io
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_atomically(path: Path, content: bytes | memoryview | str) -> None:
    """Write ``content`` to ``path`` by way of a temporary file and a rename.

    A reader sees the old file or the new one, never half of it, also after a kill or on a full
    disk.

    Args:
        path: The file to write; its directory is made if absent.
        content: What to write; text is encoded as UTF-8.

    Raises:
        OSError: If the directory cannot be written or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unique across threads and the machines that share a folder, which a process id is not.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as an ``.npz`` file, atomically.

    Args:
        path: The file to write.
        arrays: Arrays, or what NumPy makes arrays of, by name.
    """
    buffer = io.BytesIO()
    content = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(buffer, allow_pickle=False, **content)
    write_atomically(path, buffer.getbuffer())
