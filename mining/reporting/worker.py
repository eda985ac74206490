"""Evaluations that a page asked for, one after the other in a thread of their own."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mining import InputError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Watch = Callable[[int, int], None]
log = logging.getLogger(__name__)

#: Jobs that may wait at a time, and finished ones that are remembered.
_MOST_WAITING, _MOST_KEPT = 32, 256


class CancelledError(Exception):
    """The evaluation was cancelled between two chunks of points."""


@dataclass
class Job:
    """One evaluation and what is known of it."""

    number: int
    evaluate: Callable[[Watch], Mapping[str, Any]]
    state: State = "waiting"
    done: int = 0  # points
    total: int | None = None  # None: the landscape is not built yet
    result: Mapping[str, Any] | None = None
    error: str | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def describe(self) -> dict[str, Any]:
        """Return what a page is told of the job."""
        names = ("number", "state", "done", "total", "result", "error")
        return {name: getattr(self, name) for name in names}


class Worker:
    """Evaluates jobs in the order in which they are submitted.

    ``close`` cancels what is running at the end of its chunk of points, and all that waits.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="evaluations", daemon=True)
        self._thread.start()

    def submit(self, evaluate: Callable[[Watch], Mapping[str, Any]]) -> Job:
        """Add a job.

        Args:
            evaluate: Takes a function that it calls with the numbers of finished and of all
                points, and returns what the page is to show.

        Raises:
            InputError: If too many jobs wait, or the worker was closed.
        """
        with self._lock:
            if self._closed:
                raise InputError("The server is stopping.")
            if self._waiting.qsize() >= _MOST_WAITING:
                raise InputError(f"{_MOST_WAITING} evaluations wait already: cancel some first.")
            number = max(self._jobs, default=0) + 1
            job = self._jobs[number] = Job(number, evaluate)
            for old in list(self._jobs)[:-_MOST_KEPT]:
                del self._jobs[old]
            self._waiting.put(job)
            return job

    def find(self, number: int) -> Job | None:
        """Return the job of a number; ``None`` if there is none, or it is long finished."""
        return self._jobs.get(number)

    def close(self) -> None:
        """Cancel all jobs and wait until the thread has ended."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                job.cancel.set()
            self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            self._run(job)

    def _run(self, job: Job) -> None:
        def watch(done: int, total: int) -> None:
            job.done, job.total = done, total
            if job.cancel.is_set():
                raise CancelledError

        try:
            if job.cancel.is_set():
                raise CancelledError
            job.state = "running"
            # The result first: whoever reads the state may read the result.
            job.result = job.evaluate(watch)
            job.state = "done"
        except CancelledError:
            job.state = "cancelled"
        except (InputError, OSError, ArithmeticError) as error:
            job.error = str(error)
            job.state = "failed"
        except Exception as error:  # a fault of the program ends its job, not the server
            log.exception("An evaluation failed.")
            job.error = f"{type(error).__name__}: {error}. The traceback is on the terminal."
            job.state = "failed"
