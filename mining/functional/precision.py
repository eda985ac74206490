"""The precision of products on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def products_in(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Round the factors of fp32 convolutions and products on a GPU to TF32's ten bits, or not.

    torch does so to convolutions where nothing is said. On a CPU nothing is changed.
    """
    if device.type != "cuda":
        yield
        return
    backends: Any = torch.backends  # whose stubs do not know these
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
