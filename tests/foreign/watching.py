"""What belongs to the user, and what the library says."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foreign import Case


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect what the library warns of."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, logger = Keep(logging.WARNING), logging.getLogger("mining")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def state(case: Case) -> dict[str, Any]:
    """Everything that belongs to the user, tensors as copies beside their identity."""
    found: dict[str, Any] = {}
    modules = list(case.model.named_modules())
    if isinstance(case.loss_fn, nn.Module):
        modules += [(f"loss.{name}", m) for name, m in case.loss_fn.named_modules()]
    for prefix, module in modules:
        found[f"mode:{prefix}"] = module.training
        found[f"hooks:{prefix}"] = (
            len(module._forward_pre_hooks),
            len(module._forward_hooks),
            "forward" in vars(module),
        )
        stores = [("parameter", module._parameters), ("buffer", module._buffers)]
        stores.append(("attribute", vars(module)))
        for kind, store in stores:
            for name, value in store.items():
                if isinstance(value, Tensor):
                    found[f"{kind}:{prefix}.{name}"] = (id(value), value.detach().clone())
                    found[f"requires_grad:{prefix}.{name}"] = value.requires_grad
                    if value.is_leaf:
                        grad = value.grad
                        found[f"gradient:{prefix}.{name}"] = None if grad is None else grad.clone()
                elif isinstance(value, int | float) and name not in ("training", "calls"):
                    found[f"setting:{prefix}.{name}"] = value
    for number, (x, y) in enumerate(case.data.pairs):
        found[f"inputs:{number}"] = (x._version, x.detach().clone())
        found[f"inputs' gradient:{number}"] = x.grad if x.is_leaf else None
        found[f"targets:{number}"] = (y._version, y.clone())
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], Tensor):
        return one[0] == other[0] and torch.equal(one[1], other[1])
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)
