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


def run_directory(config: Mapping[str, Any], keys: tuple[str, ...]) -> Path:
    """Name the directory of a run: ``<pipeline>/<model>-<data>/<digest8>``.

    The digest is over the values of ``keys``, so that runs that differ only in what their
    pipeline does not read are one. A value that names a file or folder counts with its content,
    and a ``_target_`` with the user's modules that importing it runs, so that what was overwritten
    makes another run.

    Args:
        config: The resolved configuration.
        keys: The keys that the pipeline reads.

    Returns:
        The path relative to the output folder.
    """
    read, _ = _with_contents(config, keys)
    name = f"{config['model']['name']}-{data_name(config['data'])}"
    return Path(config["pipeline"]) / name.replace("/", "_") / _digest(read)[:8]


def identify(config: Mapping[str, Any], keys: tuple[str, ...]) -> Identity:
    """Digest what a run depends on; arguments as for ``run_directory``.

    Beyond what the name of the directory counts, this counts the content of the file
    ``<root>/<name>.npz`` in place of a published data set.
    """
    read, contents = _with_contents(config, keys)
    data, found = config["data"], dict(contents.found)
    packed = Path(data.get("root") or "data") / f"{data.get('name')}.npz"
    if "name" in data and packed.is_file():
        found["data"] = contents.digest(packed)
        return Identity(_digest([read, found["data"]]), found)
    return Identity(_digest(read), found)


def data_name(data: Mapping[str, Any]) -> str:
    """Name a data set: by its own name, its file or folder, or the function that makes it."""
    if "name" in data:
        return str(data["name"])
    source = data.get("path") or data.get("root")
    return Path(source).stem if source else str(data["_target_"]).rpartition(".")[2]


def _with_contents(config: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, Contents]:
    """Take what a pipeline reads of a configuration, with contents in place of what names them."""
    data = config["data"]
    read = {key: config.get(key) for key in (*keys, "pipeline")}
    # Where files lie and how they are read is no matter of what they hold.
    local = _LOCAL_DATA | ({"root"} if "name" in data else set())
    read["data"] = {key: value for key, value in data.items() if key not in local}
    places = [config.get("outputs"), data.get("cache")]
    outputs, cache = (Path(p) if isinstance(p, str) and p else None for p in places)
    apart = [folder for folder in (outputs, cache) if folder is not None]
    contents = Contents(None if outputs is None else outputs / ".digests", apart)
    return contents.replace(read), contents


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
