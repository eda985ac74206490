"""Results made of tensors and numbers, on disk."""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from mining.storage.files import read_arrays, save_arrays

Record = TypeVar("Record")


def save_record(path: Path, record: Any, **more: Any) -> None:
    """Write a dataclass as an ``.npz`` file with one array a field.

    Args:
        path: The file.
        record: A dataclass whose fields are tensors and numbers.
        more: Further arrays, for those who read the file without this package.
    """
    save_arrays(path, {**{f.name: getattr(record, f.name) for f in fields(record)}, **more})


def load_record(path: Path, kind: type[Record]) -> Record:
    """Read what ``save_record`` wrote as an instance of ``kind``; see ``read_arrays``."""
    arrays = read_arrays(path)
    values = {f.name: arrays[f.name] for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{n: torch.from_numpy(v) if v.ndim else v.item() for n, v in values.items()})
