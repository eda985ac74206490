"""Runs: a directory named after its configuration, and the record that says it is complete."""

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mining import InputError
from mining.storage.files import (
    describe_file,
    finite,
    is_whole,
    read_if_whole,
    read_record,
    set_aside,
    write_record,
)
from mining.storage.identity import Identity
from mining.storage.locks import alone
from mining.storage.provenance import git_state, versions

_PICTURES = {".png", ".pdf", ".svg"}
_RESULTS = {".npz", ".pt", ".csv", *_PICTURES}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One execution of one pipeline with one configuration.

    Args:
        directory: Where everything of the run lies.
        config: The resolved configuration.
        identity: What the run depends on; ``None`` does not compare it with what is found.
        arguments: What was typed on the command line; ``None`` if another run needed this one.
    """

    directory: Path
    config: Mapping[str, Any]
    identity: Identity | None = None
    arguments: Sequence[str] | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def record(self) -> Path:
        """The file that is written last: where it exists, the run is complete."""
        return self.directory / "run.json"

    @property
    def finished(self) -> bool:
        """Whether the run is complete, of the same inputs and undamaged; logs why it is not."""
        return self.is_finished()

    def is_finished(self, *read: str) -> bool:
        """Whether the run is complete; see ``finished``.

        Args:
            read: Names of files that are about to be read. Their checksums are compared whatever
                their size, those of others up to 8 MiB; of larger ones the size is.
        """
        if not self.record.exists():
            return False
        fault = self._fault(read)
        if fault is not None:
            log.warning("%s: %s. Computing it again.", self.directory, fault)
        return fault is None

    @property
    def pictures_are_whole(self) -> bool:
        """Whether the pictures of a finished run are as they were drawn."""
        files = read_record(self.record).get("files", {})
        return all(is_whole(self.directory / n, f) for n, f in files.items() if _is_picture(n))

    def complete(self, compute: Callable[[], None], *read: str) -> bool:
        """Compute the run unless it is finished, alone: another process that wants it waits.

        What is damaged, or belongs to a run of other inputs, is set aside first: under the name
        ``….damaged``, and in the folder ``replaced``.

        Args:
            compute: Computes it, and calls ``finish``.
            read: As for ``is_finished``.

        Returns:
            Whether it was computed now.
        """
        if self.record.exists() and self._fault(read) is None:
            return False
        made = not self.directory.exists()
        try:
            with self.alone():
                return self._complete(compute, read)
        except BaseException:
            for folder in (self.directory, *self.directory.parents[:2]) if made else ():
                with suppress(OSError):  # something is in it
                    folder.rmdir()
            raise

    def alone(self) -> AbstractContextManager[None]:
        """Hold the lock of the run; see ``mining.storage.locks.alone``."""
        return alone(self.directory, lambda: _describe_process(read_if_whole(self._start)))

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
            "versions": versions(),
            "device": device,
            "git": git_state(),
            "arguments": None if self.arguments is None else list(self.arguments),
            # Of the process that finished the run, not of interrupted ones before it.
            "seconds": round(time.monotonic() - self.started, 3),
            "metrics": finite(metrics),
            "identity": None if self.identity is None else asdict(self.identity),
            "files": {path.name: describe_file(path) for path in self._files()},
        }
        write_record(self.record, record)

    def recorded_config(self) -> dict[str, Any]:
        """Read the configuration with which the finished run was made."""
        config: dict[str, Any] = read_record(self.record)["config"]
        return config

    def keep_picture(self, picture: Path) -> None:
        """Remove what is left of a picture that was drawn in another format before."""
        for suffix in _PICTURES - {picture.suffix}:
            picture.with_suffix(suffix).unlink(missing_ok=True)

    def record_picture(self) -> None:
        """Note in the record of a finished run that it was drawn anew as ``config`` says."""
        record = read_record(self.record)
        record["config"]["picture"] = self.config["picture"]
        if "files" in record:
            others = {n: f for n, f in record["files"].items() if not _is_picture(n)}
            pictures = [path for path in self._files() if _is_picture(path.name)]
            record["files"] = others | {path.name: describe_file(path) for path in pictures}
        write_record(self.record, record)

    @property
    def _start(self) -> Path:
        """The file that says what an unfinished run is of."""
        return self.directory / "started.json"

    def _files(self) -> list[Path]:
        """List the results, neither logs nor states from which an interrupted run goes on."""
        paths = sorted(self.directory.glob("*"))
        return [p for p in paths if p.suffix in _RESULTS and not p.name.startswith("resume")]

    def _fault(self, read: Sequence[str]) -> str | None:
        """Say what keeps a run with a record from being complete."""
        try:
            record = read_record(self.record)
        except InputError:
            return "run.json is damaged"
        return self._difference(record.get("identity")) or next(
            (f"{name} is missing or damaged" for name in self._damaged(record, read)), None
        )

    def _difference(self, known: Mapping[str, Any] | None) -> str | None:
        """Say in what the inputs differ from those of a record or of an earlier start."""
        if self.identity is None or known is None or "digest" not in known:
            return None
        if known["digest"] == self.identity.digest:
            return None
        now, then = self.identity.contents, known.get("contents", {})
        changed = [key for key in now if now[key] != then.get(key)]
        what = f"the content of {' and '.join(changed)}" if changed else "its configuration"
        return f"what is there is of other inputs: {what} differs"

    def _damaged(self, record: Mapping[str, Any], read: Sequence[str]) -> list[str]:
        return [
            name
            for name, known in record.get("files", {}).items()
            if not _is_picture(name)
            and not is_whole(self.directory / name, known, thorough=name in read)
        ]

    def _set_aside(self, read: Sequence[str]) -> None:
        """Move away what an earlier run left and this one must not take for its own."""
        for path in self.directory.glob("*"):
            if path.is_dir() and path.suffix in {*_RESULTS, ".json"}:
                set_aside(path)  # it is where a file goes
        record, start = read_if_whole(self.record), read_if_whole(self._start)
        known = (record or {}).get("identity") or start
        if known is None and self._start.exists():
            known = {"digest": "damaged"}  # whose what is there is cannot be said
        if self._difference(known) is not None:
            log.info("%s: the files of those other inputs go to replaced/.", self.directory)
            replaced = self.directory / "replaced"
            replaced.mkdir(exist_ok=True)
            states = self.directory.glob("resume*.pt")
            for path in {*self._files(), *states, self.record, self._start}:
                if path.exists():
                    path.replace(replaced / path.name)
        elif record is not None:
            for name in self._damaged(record, read):
                set_aside(self.directory / name)
            self.record.unlink()
        elif self.record.exists():
            set_aside(self.record)

    def _take_over(self) -> None:
        """Say from which dead process an unfinished run is taken over."""
        start = read_if_whole(self._start)
        if start is not None and start.get("pid") is not None:
            process = _describe_process(start)
            log.warning("Taking over from %s, which ended without finishing.", process)

    def _note_start(self, pid: int | None, error: BaseException | None = None) -> None:
        """Write down what an unfinished run is of, which process computes it or why it ended."""
        known = {} if self.identity is None else asdict(self.identity)
        if isinstance(error, Exception):
            known["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        about = {"config": self.config, "pid": pid, "host": platform.node()}
        write_record(self._start, {**known, **about})

    def _complete(self, compute: Callable[[], None], read: Sequence[str]) -> bool:
        """Compute the run unless it is finished, while its lock is held."""
        if self.is_finished(*read):  # by the process that was waited for
            return False
        self._take_over()
        self._set_aside(read)
        self._note_start(os.getpid())
        try:
            compute()
        except BaseException as error:
            self._tidy(error)
            raise
        self._start.unlink(missing_ok=True)
        return True

    def _tidy(self, error: BaseException) -> None:
        """Leave no trace of a start that was refused or stopped at once, nor of this process."""
        failed = isinstance(error, Exception) and not isinstance(error, InputError | OSError)
        left = {path.name for path in self.directory.iterdir()} - {"started.json", "mining.log"}
        if not failed and not left:
            self._start.unlink(missing_ok=True)
            return
        with suppress(OSError):  # a full disk has been reported
            self._note_start(None, error)


def _is_picture(name: str) -> bool:
    return Path(name).suffix in _PICTURES


def _describe_process(start: Mapping[str, Any] | None) -> str:
    if start is None or start.get("pid") is None:
        return "another process"
    return f"process {start['pid']} on {start['host']}"
