"""Finished work, written down as it comes."""

from collections.abc import Sequence
from pathlib import Path

from mining.errors import InputError
from mining.fingerprint import Fingerprint


class Journal:
    """Finished points, appended to a text file as they come.

    A line is the number of a point and its values; the presence of the number, not any value,
    says that it is finished. A line cut off by a kill is dropped when the file is read.

    Args:
        path: The file; made if absent.
        fingerprint: What the points belong to; the first line of the file.

    Raises:
        InputError: If the file belongs to something else.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self._path = path
        content = path.read_text() if path.exists() else ""
        first = f"{fingerprint}\n"
        if first.startswith(content):  # absent, empty, or killed in its first line
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(first)
            return
        if not fingerprint.matches(content.split("\n", 1)[0]):
            raise InputError(
                f"{path} holds points of other directions, grid, model, loss or data. Give every "
                "evaluation a file of its own, or remove this one."
            )
        if not content.endswith("\n"):
            path.write_text(content[: content.rindex("\n") + 1])

    def read(self) -> dict[int, list[float]]:
        """Return the values of each finished point by its number."""
        points = {}
        for line in self._path.read_text().splitlines()[1:]:
            index, *values = line.split(",")
            points[int(index)] = [float(value) for value in values]
        return points

    def append(self, index: int, values: Sequence[float]) -> None:
        """Write down one finished point."""
        with self._path.open("a") as file:
            file.write(",".join([str(index), *map(repr, values)]) + "\n")
