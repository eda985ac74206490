"""Runs: a directory named after its configuration, and the record that says it is complete."""

import hashlib
import json
import logging
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mining.errors import InputError
from mining.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

_PACKAGES = ("mining", "torch", "torchvision", "numpy", "scipy", "hydra-core")
_LOCAL_DATA = {"download", "cache", "num_workers"}
_CONTENT = {".npz", ".npy", ".pt", ".pth"}
_FROM_RECORD = ("seed", "seconds", "device", "config", "metrics")
_COLUMNS = ("directory", "pipeline", "model", "data", *_FROM_RECORD)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One execution of one pipeline with one configuration.

    Args:
        directory: Where everything of the run lies.
        config: The resolved configuration.
    """

    directory: Path
    config: Mapping[str, Any]
    started: float = field(default_factory=time.monotonic)

    @property
    def record(self) -> Path:
        """The file that is written last: where it exists, the run is complete."""
        return self.directory / "run.json"

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.record.exists()

    def finish(self, metrics: Mapping[str, Any], *, device: str) -> None:
        """Write ``run.json``, and with it declare the run complete.

        Args:
            metrics: What was measured; numbers, strings, and lists and mappings of these. JSON
                has no word for numbers that are not finite: they become null.
            device: The device that was used.
        """
        record = {
            "config": self.config,
            "seed": self.config.get("seed"),
            "versions": _versions(),
            "device": device,
            "git": _git_state(),
            # Of the process that finished the run, not of interrupted ones before it.
            "seconds": round(time.monotonic() - self.started, 3),
            "metrics": _finite(metrics),
        }
        write_atomically(self.record, json.dumps(record, indent=1, allow_nan=False) + "\n")

    def recorded_config(self) -> dict[str, Any]:
        """Read the configuration with which the finished run was made."""
        config: dict[str, Any] = json.loads(self.record.read_text())["config"]
        return config

    def record_picture(self) -> None:
        """Note in the record of a finished run that it was drawn anew as ``config`` says."""
        record = json.loads(self.record.read_text())
        record["config"]["picture"] = self.config["picture"]
        write_atomically(self.record, json.dumps(record, indent=1) + "\n")


def run_directory(config: Mapping[str, Any], keys: tuple[str, ...]) -> Path:
    """Name the directory of a run: ``<pipeline>/<model>-<data>/<digest8>``.

    The digest is over the values of ``keys``, so that runs that differ only in what their
    pipeline does not read are one. A value that names a weights or array file counts with the
    file's content, so that a file that was overwritten makes another run.

    Args:
        config: The resolved configuration.
        keys: The keys that the pipeline reads.

    Returns:
        The path relative to the output folder.
    """
    read = {key: _with_contents(config.get(key)) for key in (*keys, "pipeline")}
    # Where files lie and how they are read is no matter of what they hold.
    local = _LOCAL_DATA | ({"root"} if "name" in config["data"] else set())
    read["data"] = {key: value for key, value in read["data"].items() if key not in local}
    digest = hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{config['model']['name']}-{_data_name(config['data'])}"
    return Path(config["pipeline"]) / name.replace("/", "_") / digest


def load_runs(root: str | Path = "outputs", **where: Any) -> "pd.DataFrame":
    """Read the record of every finished run.

    Args:
        root: The output folder.
        where: Only runs with these values; a nested key is written with ``__``, as in
            ``load_runs(pipeline="curve", model__name="mlp")``.

    Returns:
        A row per run, sorted by directory: ``directory`` (a ``Path``), ``pipeline``, ``model``,
        ``data``, ``seed``, ``seconds``, ``device``, ``config`` and ``metrics`` (mappings).
    """
    import numpy as np  # as pandas, takes longer to import than a finished run to skip

    paths = sorted(Path(root).glob("*/*/*/run.json"))
    runs = read_runs([path.parent for path in paths])
    chosen = [
        all(_lookup(config, key.split("__")) == value for key, value in where.items())
        for config in runs.config
    ]
    return runs.loc[np.array(chosen, dtype=bool)].reset_index(drop=True)


def read_runs(directories: Sequence[Path]) -> "pd.DataFrame":
    """Read the records of finished runs.

    Args:
        directories: Of the runs.

    Returns:
        A row per run in their order, as ``load_runs`` gives it.

    Raises:
        FileNotFoundError: If a run is not finished.
        InputError: If a record is damaged.
    """
    import pandas as pd  # takes longer to import than a finished run takes to skip

    rows = []
    for directory in directories:
        path = directory / "run.json"
        try:
            record = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is damaged: remove it and run again. {error}") from error
        config = record["config"]
        rows.append(
            {
                "directory": directory,
                "pipeline": config["pipeline"],
                "model": config["model"]["name"],
                "data": _data_name(config["data"]),
                **{key: record[key] for key in _FROM_RECORD},
            }
        )
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _data_name(data: Mapping[str, Any]) -> str:
    """Name a data set: by its own name, its file or folder, or the function that makes it."""
    if "name" in data:
        return str(data["name"])
    source = data.get("path") or data.get("root")
    return Path(source).stem if source else str(data["_target_"]).rpartition(".")[2]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lookup(config: Any, keys: list[str]) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _with_contents(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_contents(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_contents(item) for item in value]
    if isinstance(value, str) and Path(value).suffix in _CONTENT and Path(value).is_file():
        with Path(value).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout put on the path without installing it
            log.debug("%s is not an installed distribution", package)
    return found


def _git_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that holds this file; both null outside one."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed into a virtual environment inside another project's checkout is not ours.
    tracked = git("ls-files", "--error-unmatch", Path(__file__).name)
    commit = git("rev-parse", "HEAD") if tracked else None
    status = git("status", "--porcelain") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}
