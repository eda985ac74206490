"""Sharpness-aware minimization as a loss hook."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining import InputError
from mining.training.loop import LossHook
from mining.training.regularizer import Regularizer


@dataclass(frozen=True)
class SharpnessAwareSettings(Regularizer):
    """Sharpness-aware minimization: the gradient of a step is that at θ + ρ g / ‖g‖.

    g is the gradient of the batch's loss at θ, without weight decay. Foret et al. (2021),
    Sharpness-Aware Minimization for Efficiently Improving Generalization, Eq. 2. A step takes
    twice as long.

    Args:
        rho: ρ, the distance at which the gradient is taken.

    Raises:
        InputError: If it is not positive.
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise InputError(f"regularizer.rho must be positive, got {self.rho}.")

    def hook(self, model: nn.Module, seed: int) -> LossHook:
        """Make the hook of a training with cross-entropy; ``seed`` is not needed."""
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}

        def perturbed(loss: Tensor, batch: Any) -> Tensor:
            inputs, labels = batch
            slopes = grad(loss, list(parameters.values()), materialize_grads=True)
            length = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
            factor = self.rho / length.clamp(min=torch.finfo(length.dtype).tiny)
            moved = {
                name: parameter + factor * slope
                for (name, parameter), slope in zip(parameters.items(), slopes, strict=True)
            }
            # Running statistics are updated by the passes at θ alone.
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
            return F.cross_entropy(functional_call(model, {**moved, **buffers}, (inputs,)), labels)

        return perturbed
