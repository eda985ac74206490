"""One process at a time where several want the same files."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM
from pathlib import Path

_UNSUPPORTED = (ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP, EPERM)
#: Seconds between two looks at a lock that another process holds.
_POLL = 0.2
log = logging.getLogger(__name__)


@contextmanager
def alone(directory: Path, holder: Callable[[], str]) -> Iterator[None]:
    """Hold the lock of a directory; wait for the process that holds it, if one does.

    The lock is the operating system's (``flock``) on the file ``.<name>.lock`` beside the
    directory, so it ends with the process that holds it, however that ends. A folder on a network
    has it where its server passes ``flock`` on; where none are supported, a line says so and two
    processes can compute the same, of which each writes whole files.

    Args:
        directory: What is locked; it need not exist.
        holder: Describes the process that holds the lock, for the line that says who is waited for.
    """
    from filelock import FileLock, Timeout  # skipping a finished run takes no lock

    path = _lock_of(directory)
    lock, waiting = FileLock(path), False
    while not lock.is_locked:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=-1 if waiting else 0, poll_interval=_POLL)
        except Timeout:
            log.info("Waiting for %s, which computes %s.", holder(), directory)
            waiting = True
        except FileNotFoundError:  # the one before left nothing, not even this folder
            continue
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            log.warning("%s: no locks here (%s): let no two processes run at once.", path, error)
            break
    try:
        yield
    finally:
        # Removed while it is held: who waits for it notices, and makes it anew.
        with suppress(OSError):
            path.unlink()
        lock.release()


def is_held(directory: Path) -> bool:
    """Whether a process holds the lock of a directory; see ``alone``."""
    from filelock import FileLock, Timeout

    path = _lock_of(directory)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError as error:  # another user's, if it is not that there are no locks here
        return error.errno not in _UNSUPPORTED
    with suppress(OSError):  # of a process that died
        path.unlink()
    lock.release()
    return False


def _lock_of(directory: Path) -> Path:
    return directory.parent / f".{directory.name}.lock"
