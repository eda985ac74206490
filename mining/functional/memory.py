"""How much memory there is left."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from mining.ranks import current

#: Where control groups are told, and where their limits stand.
_MEMBERSHIP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def available_memory(device: torch.device) -> int:
    """Return the bytes that this rank can still allocate on ``device``.

    Of the memory of the machine that is the least of what it has free, what the control groups of
    the process leave (those of containers and of most clusters), and what a SLURM job was given.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    ranks = current().on_machine
    shared = [int(psutil.virtual_memory().available), *left_by_control_groups()]
    left, granted = min(shared) // ranks, granted_by_slurm()
    if granted is not None:
        left = min(left, granted // ranks - int(psutil.Process().memory_info().rss))
    return max(0, left)


def left_by_control_groups(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> Iterator[int]:
    """Yield the bytes that each control group of this process leaves, if it has a limit.

    A group's parents limit it too. Cached files count as free: the kernel drops them when memory
    is needed.

    Args:
        membership: The file that names the groups of the process.
        groups: The folder of all groups.
    """
    if not membership.exists():  # no Linux
        return
    for line in membership.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = groups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            limit, used, cached = (_read(group, name) for name in names)
            if limit is not None and used is not None:
                yield limit - used + (cached or 0)


def granted_by_slurm() -> int | None:
    """Return the bytes that the SLURM job has on this machine; ``None`` if that is not limited."""
    megabytes = os.environ.get("SLURM_MEM_PER_NODE")
    if megabytes is None and "SLURM_MEM_PER_CPU" in os.environ:
        cpus = int(os.environ.get("SLURM_CPUS_ON_NODE", "1"))
        megabytes = str(int(os.environ["SLURM_MEM_PER_CPU"]) * cpus)
    return int(megabytes) * 2**20 if megabytes not in (None, "0") else None


def _read(group: Path, name: str) -> int | None:
    """Read a number of a control group, of a file or of a line of its ``memory.stat``."""
    path = group / name if name.startswith("memory.") else group / "memory.stat"
    try:
        text = path.read_text().strip()
    except OSError:  # there is no such file at the root, and not in every container
        return None
    if path.name == "memory.stat":
        text = next((line.split()[1] for line in text.splitlines() if line.split()[0] == name), "")
    return int(text) if text.isdigit() else None  # or "max"


def check_memory(needed: int, device: torch.device, what: str, remedy: str) -> None:
    """Raise ``MemoryError`` if ``needed`` bytes are not available on ``device``.

    Args:
        needed: Bytes.
        device: Where.
        what: What needs them.
        remedy: What would fit.
    """
    free = available_memory(device)
    if needed > free:
        raise MemoryError(
            f"{what} needs {needed / 2**30:.3g} GiB, but {free / 2**30:.3g} GiB are available on "
            f"{device}: {remedy}."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has no class of its own for that on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
