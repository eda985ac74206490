"""The precision of products on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def products_in(*, tf32: bool) -> Iterator[None]:
    """Round the factors of fp32 convolutions and products on a GPU to TF32's ten bits, or not.

    torch does so to convolutions where nothing is said.
    """
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = tf32
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
