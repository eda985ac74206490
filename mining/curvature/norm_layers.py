"""Batch and layer norm by their formulas, which have derivatives of any order."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining.functional.calls import CallMode, TorchFunction


class DifferentiableNorms(CallMode):
    """Runs norm layers by their formulas where torch 2.14 has no right third derivative.

    That of batch norm is missing, and that of layer norm is wrong by a third of its size.
    """

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replace the two, and let all else through."""
        for replaced, formula in _FORMULAS.items():
            if function is replaced:
                return formula(*args, **kwargs)
        return function(*args, **kwargs)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel as ``torch.nn.functional.batch_norm`` does."""
    shape = (1, -1) + (1,) * (input.dim() - 2)
    if training:
        axes = [axis for axis in range(input.dim()) if axis != 1]
        with torch.no_grad():  # updates the running statistics, and raises for wrong shapes
            F.batch_norm(input, running_mean, running_var, None, None, True, momentum, eps)
        variance, mean = torch.var_mean(input, axes, correction=0, keepdim=True)
    else:
        if running_mean is None or running_var is None:  # let torch say what is missing
            return F.batch_norm(input, running_mean, running_var, weight, bias, training)
        variance, mean = running_var.view(shape), running_mean.view(shape)
    scale, shift = (None if t is None else t.view(shape) for t in (weight, bias))
    return _scaled(input, mean, variance, scale, shift, eps)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize over the last axes as ``torch.nn.functional.layer_norm`` does."""
    with torch.no_grad():  # raises for wrong shapes
        F.layer_norm(input, normalized_shape, weight, bias, eps)
    axes = list(range(input.dim() - len(normalized_shape), input.dim()))
    variance, mean = torch.var_mean(input, axes, correction=0, keepdim=True)
    return _scaled(input, mean, variance, weight, bias, eps)


def _scaled(
    input: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    normalized = (input - mean) * torch.rsqrt(variance + eps)
    normalized = normalized if weight is None else normalized * weight
    return normalized if bias is None else normalized + bias


_FORMULAS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.batch_norm: batch_norm,
    F.layer_norm: layer_norm,
}
