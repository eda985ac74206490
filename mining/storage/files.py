"""Files that are either whole or absent, and known by their checksums."""

import hashlib
import io
import json
import logging
import lzma
import math
import os
import struct
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mining import InputError

#: What NumPy and its zip reader raise for damaged and foreign files.
UNREADABLE = (
    *(ValueError, TypeError, EOFError, OSError, LookupError, NotImplementedError, RuntimeError),
    *(SyntaxError, OverflowError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    tokenize.TokenError,  # of the header of an array
)
log = logging.getLogger(__name__)

#: Keys of a ``run.json`` from before there were checksums.
_EARLIER = {"config", "seed", "versions", "device", "git", "seconds", "metrics"}
#: Bytes up to which a checksum is compared whenever a run is looked at: 10 ms.
_SMALL = 2**23


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


def digest_file(path: Path) -> str:
    """Digest the content of a file: 64 hexadecimal digits of SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """Give the size of a file in ``bytes`` and its ``sha256``, as ``is_whole`` takes them."""
    return {"bytes": path.stat().st_size, "sha256": digest_file(path)}


def is_whole(path: Path, known: Mapping[str, Any], *, thorough: bool = False) -> bool:
    """Whether a file is as ``describe_file`` found it.

    Args:
        path: The file.
        known: What ``describe_file`` gave.
        thorough: Whether to read files above 8 MiB, of which otherwise the size is compared.
    """
    if not path.is_file() or path.stat().st_size != known["bytes"]:
        return False
    return (known["bytes"] > _SMALL and not thorough) or digest_file(path) == known["sha256"]


def check_archive(path: Path) -> None:
    """Compare the checksums of the parts of a ZIP file, which ``torch.load`` does not.

    Any other file passes: that of ``torch.save`` before 1.6 for instance, which has none.

    Raises:
        OSError: If a part is damaged.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise OSError(f"it is damaged or was cut short ({error})") from error
    if damaged is not None:
        raise OSError(f"it is damaged: the checksum of {damaged} differs")


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an ``.npz`` file that this package wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"No file {path}.")
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (*UNREADABLE, AttributeError) as error:
        raise InputError(
            f"{path} is damaged: remove it, and the run.json beside it, and run again. {error}"
        ) from error


def set_aside(path: Path) -> None:
    """Rename a damaged file, or a folder in its place, to ``….damaged``, if there is one."""
    if path.exists():
        other = path.with_name(f"{path.name}.damaged")
        number = 1
        while other.exists():
            number += 1
            other = path.with_name(f"{path.name}.damaged{number}")
        path.rename(other)


def drop_if_damaged(path: Path, read: Callable[[Path], object]) -> None:
    """Set a file of an interrupted run aside if it cannot be read, and say so.

    Args:
        path: The file; it may be absent.
        read: Reads it, and raises ``InputError`` if it is damaged.
    """
    if path.exists():
        try:
            read(path)
        except InputError:
            log.warning("%s is damaged. Computing it again.", path)
            set_aside(path)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, with a checksum as its last entry, atomically."""
    plain = json.loads(json.dumps(record, allow_nan=False))  # keys are text, as they are read
    content = {**plain, "checksum": _checksum(plain)}
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read what ``write_record`` wrote; one without a checksum is of an earlier version.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is damaged.
    """
    try:
        record = json.loads(path.read_text())
    except (ValueError, IsADirectoryError) as error:
        raise InputError(f"{path} is damaged: remove it and run again. {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged: remove it and run again. It holds no record.")
    checksum = record.pop("checksum", None)
    earlier = checksum is None and record.keys() == _EARLIER
    if not earlier and checksum != _checksum(record):
        raise InputError(f"{path} is damaged: remove it and run again. Its checksum differs.")
    return record


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by ``None``: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_if_whole(path: Path) -> dict[str, Any] | None:
    """Read a record; ``None`` if there is none, or it is damaged and says nothing."""
    try:
        return read_record(path) if path.exists() else None
    except InputError:
        return None
