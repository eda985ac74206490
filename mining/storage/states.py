"""Which runs a folder holds, finished or not, and who computes them."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mining import InputError
from mining.storage.files import read_if_whole, read_record
from mining.storage.locks import is_held

State = Literal["done", "running", "interrupted", "failed"]


@dataclass(frozen=True)
class RunState:
    """What is known of a run from its directory."""

    directory: Path
    state: State
    config: Mapping[str, Any]  # empty if no record tells it
    note: str  # which process computes it, or the last line of what it failed with
    modified: float  # when its newest file was written, seconds since 1970
    size: int  # of its files, bytes

    @property
    def pipeline(self) -> str:
        """Its pipeline, from its configuration or its place."""
        return str(self.config.get("pipeline", self.directory.parts[-3]))

    def remove(self) -> None:
        """Delete the directory.

        Raises:
            InputError: If a process computes the run.
        """
        if is_held(self.directory):
            raise InputError(f"{self.directory} is being computed: stop that process first.")
        shutil.rmtree(self.directory)


def run_states(root: Path) -> list[RunState]:
    """List every run below an output folder, sorted by directory.

    Args:
        root: What ``outputs=FOLDER`` named.

    Raises:
        InputError: If there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"No folder {root.resolve()}: give the folder of outputs=FOLDER.")
    found = sorted(path for path in root.glob("*/*/*") if path.is_dir())
    return [state for directory in found for state in _state_of(directory)]


def _state_of(directory: Path) -> Iterator[RunState]:
    """Give the state of a run; none of a folder that holds no run."""
    start = read_if_whole(directory / "started.json") or {}
    log = directory / "mining.log"
    record: Mapping[str, Any] = {}
    state: State = "interrupted"
    note = ""
    if is_held(directory):
        state, note = "running", f"process {start.get('pid')} on {start.get('host')}"
        record = start
    elif (directory / "run.json").exists():
        try:
            state, record = "done", read_record(directory / "run.json")
        except InputError:
            note = "run.json is damaged"
    elif start.get("error") or has_traceback(log):
        state, record = "failed", start
        note = start.get("error") or _last_line(log)
    elif start:
        record = start
    else:
        return
    files = [path.stat() for path in directory.rglob("*") if path.is_file()]
    yield RunState(
        directory,
        state,
        record.get("config") or {},
        note,
        max((file.st_mtime for file in files), default=directory.stat().st_mtime),
        sum(file.st_size for file in files),
    )


def has_traceback(log: Path) -> bool:
    """Whether a log holds the traceback of a fault."""
    return log.exists() and "\nTraceback " in f"\n{log.read_text(errors='replace')}"


def _last_line(log: Path) -> str:
    return next(line for line in reversed(log.read_text(errors="replace").split("\n")) if line)
