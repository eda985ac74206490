"""Execution plans: how a model is run."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mining.functional.batchnorm import modes
from mining.functional.fuse_batchnorm import Folding
from mining.functional.memory import is_out_of_memory
from mining.functional.shared_first_layer import FirstLayer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExecutionPlan:
    """An execution plan; ``ExecutionPlan()`` runs the unmodified model.

    Args:
        micro_batch: Examples per pass; ``None``: whole batches.
        channels_last: Whether images are stored with channels last.
        folding: The batch norms fused into the layer before them.
        first_layer: A linear layer on the inputs whose products are shared by all points.
    """

    micro_batch: int | None = None
    channels_last: bool = False
    folding: Folding = field(default_factory=Folding)
    first_layer: FirstLayer | None = None
    #: Why faster plans were rejected.
    reasons: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def because(self, *reasons: str) -> "ExecutionPlan":
        """Return the same plan with further reasons why it is not faster, which are logged."""
        for reason in reasons:
            log.info("%s", reason)
        return replace(self, reasons=(*self.reasons, *reasons))

    def prepare(self, inputs: Any) -> Any:
        """Bring inputs into the memory layout of this plan."""
        if self.channels_last and isinstance(inputs, Tensor) and inputs.dim() == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs


@torch.no_grad()
def takes_channels_last(model: nn.Module, inputs: Any) -> bool:
    """Whether a model has convolutions and runs on images with their channels last in memory.

    Convolutions are then faster, by up to a third in training on a CPU.

    Args:
        model: The model; its modes and buffers stay as they are.
        inputs: Images, shape ``(B, C, H, W)``; anything else is none.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        return False
    if not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return False
    try:
        with modes(model, batch_statistics=False):
            model(inputs[:2].clone(memory_format=torch.channels_last))
    except RuntimeError as error:  # view() of a tensor whose channels lie last
        if is_out_of_memory(error):
            raise
        log.info("Channels stay first: %s", first_line(error))
        return False
    return True


def first_line(error: Exception) -> str:
    """Give the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
