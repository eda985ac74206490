"""How cuDNN chooses its algorithms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Let cuDNN take deterministic algorithms, and time none; afterwards its choices are as before.

    ``torch.backends.cudnn.flags`` would set the precision too, and fails where convolutions and
    recurrent layers have different ones.
    """
    before = torch._C._get_cudnn_benchmark(), torch._C._get_cudnn_deterministic()
    try:
        _choose(False, True)
        yield
    finally:
        _choose(*before)


def _choose(benchmark: bool, deterministic: bool) -> None:
    # Not by the attributes of torch.backends.cudnn, which cannot be set where flags are frozen.
    torch._C._set_cudnn_benchmark(benchmark)
    torch._C._set_cudnn_deterministic(deterministic)
