"""What a run depends on, and the directory that is named after it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mining.storage.contents import Contents

_LOCAL_DATA = {"download", "cache", "num_workers"}


@dataclass(frozen=True)
class Identity:
    """What a run depends on, digested.

    Args:
        digest: Of all values that its pipeline reads and of ``contents``; 64 hexadecimal digits,
            of which its directory has eight.
        contents: Digests of the files, folders and code that values name, by the keys of those.
    """

    digest: str
    contents: Mapping[str, str]


@dataclass(frozen=True)
class Inputs:
    """What a run depends on.

    Args:
        pipeline: Its pipeline.
        model: The name of its model.
        data: Options of its data set.
        values: What its pipeline reads, by key, as JSON has it.
        outputs: The folder of all runs, whose content never counts.
    """

    pipeline: str
    model: str
    data: Mapping[str, Any]
    values: Mapping[str, Any]
    outputs: str = ""

    def directory(self) -> Path:
        """Name the directory of the run: ``<pipeline>/<model>-<data>/<digest8>``.

        The digest is over ``values``, so that runs that differ only in what their pipeline does
        not read are one. A value that names a file or folder counts with its content, and a
        ``_target_`` with the user's modules that importing it runs, so that what was overwritten
        makes another run.

        Returns:
            The path relative to the output folder.
        """
        read, _ = self._with_contents()
        name = f"{self.model}-{data_name(self.data)}"
        return Path(self.pipeline) / name.replace("/", "_") / _digest(read)[:8]

    def identity(self) -> Identity:
        """Digest everything that the run depends on.

        Beyond what the name of the directory counts, this counts the content of the file
        ``<root>/<name>.npz`` in place of a published data set.
        """
        read, contents = self._with_contents()
        found = dict(contents.found)
        packed = []
        for key, data in (("data", self.data), ("data_shifted", self.values.get("data_shifted"))):
            path = Path((data or {}).get("root") or "data") / f"{(data or {}).get('name')}.npz"
            if data is not None and "name" in data and path.is_file():
                found[key] = contents.digest(path)
                packed.append(found[key])
        return Identity(_digest([read, *packed] if packed else read), found)

    def _with_contents(self) -> tuple[Any, Contents]:
        """Take the values, with contents in place of what names them."""
        # Where files lie and how they are read is no matter of what they hold.
        read = {**self.values, "pipeline": self.pipeline, "data": _lasting(self.data)}
        if self.values.get("data_shifted") is not None:
            read["data_shifted"] = _lasting(self.values["data_shifted"])
        places = [self.outputs, self.data.get("cache")]
        outputs, cache = (Path(p) if isinstance(p, str) and p else None for p in places)
        apart = [folder for folder in (outputs, cache) if folder is not None]
        contents = Contents(None if outputs is None else outputs / ".digests", apart)
        return contents.replace(read), contents


def _lasting(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where the files of a data set lie and how they are read."""
    local = _LOCAL_DATA | ({"root"} if "name" in data else set())
    return {key: value for key, value in data.items() if key not in local}


def data_name(data: Mapping[str, Any]) -> str:
    """Name a data set: by its own name, its file or folder, or the function that makes it."""
    if "name" in data:
        return str(data["name"])
    source = data.get("path") or data.get("root")
    return Path(source).stem if source else str(data["_target_"]).rpartition(".")[2]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
