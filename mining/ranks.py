"""The ranks of a job: processes that share the work of one evaluation.

All that knows of ``torch.distributed`` is here. The rest of the package asks ``current()`` for its
share, and for what the other ranks found. Outside of ``distributed()`` there is one rank, which
has all the work and waits for nobody.
"""

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

#: Longest time that ranks wait for each other: the slowest may still evaluate its last point.
_PATIENCE = timedelta(days=7)
#: Seconds between two looks at the store, at first and at most.
_POLL, _LONGEST_POLL = 0.002, 0.2
#: Seconds that the word of a rank that failed takes at most to reach the others.
_NEWS = 2.0


class RankError(RuntimeError):
    """Raised in a rank if another one ended before their common work was finished."""


class Ranks:
    """One rank that has all the work.

    What it returns is what one process would compute, so that code is the same for any number of
    ranks. All ranks must call the methods in the same order.

    Attributes:
        index: The number of this rank, from 0.
        size: The number of ranks.
        on_machine: The number of ranks on this machine, which share its memory.
    """

    index: int = 0
    size: int = 1
    on_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and talks to the user."""
        return self.index == 0

    def deal(self, num: int, *, fixed: Sequence[int] | None = None) -> Iterator[int]:
        """Give the numbers below ``num`` of which this rank has to do the work, each to one rank.

        Whoever is ready takes the next one, since their work may differ.

        Args:
            num: How many pieces there are.
            fixed: A number for each piece; those of the same number always go to the same rank.
        """
        yield from range(num)

    def join(self, rows: "Tensor", mine: Sequence[int]) -> "Tensor":
        """Complete the rows of a tensor, of which each rank knows its own, bit for bit.

        Args:
            rows: Shape ``(n, v)``, float64, on the CPU.
            mine: Indices of the rows that this rank computed.

        Returns:
            The rows of all ranks, shape ``(n, v)``.
        """
        return rows

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Give this rank's share of equal pieces of work, whose results are to be summed."""
        return items

    def interval(self, total: int) -> tuple[int, int]:
        """Give the first and the one after the last of ``total`` things that are this rank's."""
        return total * self.index // self.size, total * (self.index + 1) // self.size

    def sum(self, tensor: "Tensor") -> "Tensor":
        """Sum a tensor over all ranks, in place; the same on all of them."""
        return tensor

    def smallest(self, number: int) -> int:
        """Return the smallest of the numbers of the ranks."""
        return number

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what ``make`` returns on the first rank, where alone it is called.

        The result must be picklable.
        """
        return make()

    def wait_for_first(self) -> None:
        """Wait until the first rank has come as far."""
        self.from_first(lambda: None)

    def check(self) -> None:
        """Raise ``RankError`` if another rank has failed."""


#: What there is outside of ``distributed()``.
ONE = Ranks()
_current: Ranks = ONE
#: Numbers of the messages in the store; they never repeat in a process.
_numbers = count()


def current() -> Ranks:
    """Return the ranks that share the work now: one, outside of ``distributed()``."""
    return _current


@contextmanager
def alone() -> Iterator[None]:
    """Let this rank do all of the work within, without the others."""
    global _current
    before, _current = _current, ONE
    try:
        yield
    finally:
        _current = before


def on_first(function: Callable[[], T]) -> T | None:
    """Call a function on the first rank, without the others, which go on and get ``None``."""
    if not _current.first:
        return None
    with alone():
        return function()


def launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def launched_index() -> int:
    """Return the number that ``torchrun`` gave to this process, 0 if it started none."""
    return int(os.environ.get("RANK", "0")) if launched() else 0


@contextmanager
def distributed() -> Iterator[Ranks]:
    """Share the work of what is called within among the processes of a job.

    The processes are those that ``torchrun`` started, or those of a process group that
    ``torch.distributed`` has already. In any other process there is one rank, and nothing changes.
    Each rank runs the same program on the same examples: it makes the same landscape, and calls
    the same functions in the same order with the same arguments. Each gets the whole result.
    Points of curves and surfaces are dealt out, and their values are bit for bit those of one
    process.

    Ranks on GPUs talk by NCCL, each on the GPU of its ``LOCAL_RANK``, which becomes the current
    one; others talk by Gloo.

    Yields:
        The ranks: ``index``, ``size``, and ``first`` in the one that should write files.

    Raises:
        RankError: In ``with``, if another rank ended early.
    """
    global _current
    if _current.size > 1:  # within another one
        yield _current
        return
    dist = sys.modules.get("torch.distributed")
    initialized = dist is not None and dist.is_available() and dist.is_initialized()
    if not initialized and not launched():
        yield ONE
        return
    ranks = _Group(own=not initialized)
    _current = ranks
    try:
        yield ranks
    except BaseException as error:
        ranks.fail(error)
        raise
    else:
        ranks.leave()
    finally:
        _current = ONE


class _Group(Ranks):
    """The ranks of a process group.

    Args:
        own: Whether the group is made here, and ends with ``leave``.
    """

    def __init__(self, *, own: bool) -> None:
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import _get_default_store

        self._own = own
        if own:
            local, on_node = (int(os.environ[key]) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
            gpus = torch.cuda.device_count()
            backend = "gloo"
            if gpus:
                torch.cuda.set_device(local % gpus)
                if on_node <= gpus and dist.is_nccl_available():
                    backend = "cpu:gloo,cuda:nccl"
            dist.init_process_group(backend, timeout=_PATIENCE)
        self.index, self.size = dist.get_rank(), dist.get_world_size()
        self.on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        # That of the caller may have no backend for the CPU.
        self._on_cpu = None if own else dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._store = _get_default_store()
        self._failed = self._key("failed")

    def deal(self, num: int, *, fixed: Sequence[int] | None = None) -> Iterator[int]:
        """See ``Ranks.deal``."""
        key = self._key("deal")
        if fixed is not None:
            yield from (i for i in range(num) if fixed[i] % self.size == self.index)
            return
        while True:
            self.check()
            number = self._store.add(key, 1) - 1
            if number >= num:
                return
            yield number

    def join(self, rows: "Tensor", mine: Sequence[int]) -> "Tensor":
        """See ``Ranks.join``."""
        import torch

        # As integers, whose sum with the zeros of the other ranks has the same bits.
        bits = torch.zeros_like(rows, dtype=torch.int64)
        bits[list(mine)] = rows[list(mine)].view(torch.int64)
        return self.sum(bits).view(torch.float64)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """See ``Ranks.share``."""
        return items[self.index :: self.size]

    def sum(self, tensor: "Tensor") -> "Tensor":
        """See ``Ranks.sum``."""
        import torch.distributed as dist

        self._together(lambda group: dist.all_reduce(tensor, group=group), tensor)
        return tensor

    def smallest(self, number: int) -> int:
        """See ``Ranks.smallest``."""
        import torch
        import torch.distributed as dist

        found = torch.tensor(number, dtype=torch.int64)
        self._together(lambda group: dist.all_reduce(found, dist.ReduceOp.MIN, group=group), found)
        return int(found)

    def from_first(self, make: Callable[[], T]) -> T:
        """See ``Ranks.from_first``."""
        import torch

        key = self._key("from_first")
        if self.first:
            with alone():
                made = make()
            content = pickle.dumps(made)
            self._store.set(key, str(len(content)))
            self._spread(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            return made
        self._wait(lambda: self._store.check([key]))
        content = bytes(self._spread(torch.empty(int(self._store.get(key)), dtype=torch.uint8)))
        found: T = pickle.loads(content)
        return found

    def check(self) -> None:
        """See ``Ranks.check``."""
        if self._store.check([self._failed]):
            raise RankError(self._store.get(self._failed).decode())

    def fail(self, error: BaseException) -> None:
        """Tell the others that this rank ends with an error, unless it is theirs."""
        if not isinstance(error, RankError):
            text = " ".join(str(error).split())
            word = f"rank {self.index} ended with {type(error).__name__}: {text}".rstrip(".: ")
            self._tell(word)

    def leave(self) -> None:
        """End the common work; the first rank, which may have the store, is the last to go."""
        import torch.distributed as dist

        key = self._key("left")
        self._store.add(key, 1)
        if self.first:
            self._wait(lambda: self._store.add(key, 0) == self.size)
        if self._own:
            dist.destroy_process_group()

    def _spread(self, content: "Tensor") -> "Tensor":
        """Copy bytes of the first rank to the others, in place."""
        import torch.distributed as dist

        self._together(lambda group: dist.broadcast(content, 0, group=group), content)
        return content

    def _tell(self, word: str) -> None:
        import torch.distributed as dist

        try:
            self._store.set(self._failed, word)
        except dist.DistError:  # the process that had the store is gone, and so are the others
            return

    def _key(self, what: str) -> str:
        return f"mining/{what}/{next(_numbers)}"

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until something is in the store, or another rank has failed."""
        pause = _POLL
        while not self._asked(ready):
            self.check()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)

    def _asked(self, question: Callable[[], bool]) -> bool:
        import torch.distributed as dist

        try:
            return question()
        except dist.DistError as error:
            raise RankError("another rank ended, and the store of the job with it") from error

    def _together(self, collective: Callable[[Any], object], tensor: "Tensor") -> None:
        """Run a collective operation on a tensor."""
        group = self._on_cpu if tensor.device.type == "cpu" else None
        try:
            collective(group)
        except RuntimeError as error:
            until = time.monotonic() + _NEWS
            self._wait(lambda: time.monotonic() > until)  # for what the other one has to say
            text = " ".join(str(error).split())
            raise RankError(f"rank {self.index} lost another rank: {text}") from error
