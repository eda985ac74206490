"""Finished work, written down as it comes."""

import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

from mining import InputError
from mining.storage.files import write_atomically
from mining.storage.fingerprint import Fingerprint

log = logging.getLogger(__name__)


class Journal:
    """Finished points, appended to a text file as they come.

    A line is the number of a point, its values, and a checksum of both and of what the points
    belong to; the presence of the number, not any value, says that it is finished. A line cut off
    by a kill is dropped when the file is opened, and so is, with a warning, a damaged one.

    Args:
        path: The file; made if absent.
        fingerprint: What the points belong to; the first line of the file.

    Raises:
        InputError: If the file belongs to something else, or is none.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self._path, self._fingerprint, self._digest = path, fingerprint, fingerprint.digest
        self._points: dict[int, list[float]] = {}
        if path.is_dir():
            raise InputError(f"{path} is a folder, but the journal is a file: remove it.")
        content = path.read_text(errors="replace") if path.exists() else ""
        header = f"{fingerprint}\n"
        if header.startswith(content):  # absent, empty, or killed in its first line
            write_atomically(path, header)
            return
        first, *lines = content.split("\n")
        cut_off = lines.pop() if lines else ""  # what follows the last end of a line
        whole = [line for line in lines if self._take(line)]
        # Lines that fit what is wanted say that only the first one is damaged.
        if not fingerprint.matches(first) and (first.startswith(self._digest) or not whole):
            raise InputError(
                f"{path} holds points of other directions, grid, model, loss or data. Give every "
                "evaluation a file of its own, or remove this one."
            )
        if damaged := len(lines) - len(whole):
            log.warning("%s: %d damaged lines. Evaluating their points again.", path, damaged)
        if damaged or cut_off or not fingerprint.matches(first):
            write_atomically(path, header + "".join(f"{line}\n" for line in whole))

    def read(self) -> dict[int, list[float]]:
        """Return the values of each finished point by its number."""
        return dict(self._points)

    def append(self, index: int, values: Sequence[float]) -> None:
        """Write down one finished point."""
        line = ",".join([str(index), *map(repr, values)])
        with self._path.open("a") as file:
            file.write(f"{line},{self._checksum(line)}\n")
        self._points[index] = list(values)

    def take_over(self) -> None:
        """Add the points in the journals of other ranks, and remove those journals.

        An interrupted job of several ranks leaves them; see ``journal_of_rank``.
        """
        fingerprint = self._fingerprint
        for path in sorted(self._path.parent.glob(journal_of_rank(self._path, "[0-9]*").name)):
            for index, values in Journal(path, fingerprint).read().items():
                if index not in self._points:
                    self.append(index, values)
            path.unlink()

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def _take(self, line: str) -> bool:
        """Read a line, and tell whether it is whole."""
        content, _, checksum = line.rpartition(",")
        if checksum != self._checksum(content):
            return False
        index, *values = content.split(",")
        self._points[int(index)] = [float(value) for value in values]
        return True

    def _checksum(self, content: str) -> str:
        return f"{zlib.crc32(f'{self._digest},{content}'.encode()):08x}"


def journal_of_rank(path: Path, index: int | str) -> Path:
    """Name the journal of one of several ranks, beside that of the first one.

    Args:
        path: The journal of the first rank, or of one process.
        index: The number of the rank, or a pattern for it.
    """
    return path.with_name(f"{path.stem}.rank{index}{path.suffix}")
