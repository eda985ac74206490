"""Results made of tensors, numbers and names, on disk."""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt
import torch

from mining.storage.files import read_arrays, save_arrays

Record = TypeVar("Record")


def save_record(path: Path, record: Any, **more: Any) -> None:
    """Write a dataclass as an ``.npz`` file with one array a field that is not ``None``.

    Args:
        path: The file.
        record: A dataclass whose fields are tensors, numbers and tuples of names.
        more: Further arrays, for those who read the file without this package.
    """
    known = {f.name: getattr(record, f.name) for f in fields(record)}
    save_arrays(path, {n: value for n, value in known.items() if value is not None} | more)


def load_record(path: Path, kind: type[Record]) -> Record:
    """Read what ``save_record`` wrote as an instance of ``kind``; see ``read_arrays``.

    What is not in the file has its default.
    """
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    arrays = read_arrays(path)
    return kind(**{name: _value(arrays[name]) for name in arrays if name in names})


def _value(array: npt.NDArray[Any]) -> Any:
    if array.dtype.kind == "U":
        return tuple(array.tolist())
    return torch.from_numpy(array) if array.ndim else array.item()
