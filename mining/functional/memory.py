"""How much memory there is left."""

import psutil
import torch

from mining.ranks import current


def available_memory(device: torch.device) -> int:
    """Return the bytes that this rank can still allocate on ``device``."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    return int(psutil.virtual_memory().available) // current().on_machine


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
