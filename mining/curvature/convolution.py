"""Functions of torch whose second derivatives are taken otherwise: faster, or right."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining.functional.calls import CallMode, TorchFunction

_DIMENSIONS = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


class _Geometry(NamedTuple):
    """What a convolution has besides tensors, in one entry a dimension."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        zeros = [0] * len(self.stride)
        found: Tensor = torch.ops.aten.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False, zeros, self.groups
        )
        return found

    def pull_back(
        self, cotangent: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Give the gradients in input, weight and bias, those that are wanted."""
        found: tuple[Tensor | None, Tensor | None, Tensor | None]
        found = torch.ops.aten.convolution_backward(
            cotangent,
            x,
            weight,
            [len(weight)],
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0] * len(self.stride),
            self.groups,
            wanted,
        )
        return found


class FastSecondDerivatives(CallMode):
    """Runs convolutions so that the graph of their gradient is differentiated fast.

    torch takes the derivative of a weight's gradient by a convolution whose kernel is as large as
    the image, which takes several times as long as the weight's gradient itself. Both are bilinear,
    so that their derivatives are a convolution's gradients again, with other factors; so are all
    higher derivatives.

    Functions whose second derivatives are wrong in torch 2.14 are replaced by their formulas: the
    kernel of ``weight_norm`` (wrong by half of their size) and the cross-entropy of probabilities
    within 1e-12 of 0 or 1. See also ``mining.functional.right_gradients``.
    """

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replace convolutions with padding in numbers, and functions with wrong derivatives."""
        if function in _DIMENSIONS:
            found = _convolve(_DIMENSIONS[function], *args, **kwargs)
            if found is not None:
                return found
        for replaced, formula in _FORMULAS.items():
            if function is replaced:
                found = formula(*args, **kwargs)
                if found is not None:
                    return found
        return function(*args, **kwargs)


def _scale_to_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Scale ``v`` so that its slices along ``dim`` have the norms ``g``."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor | None:
    """Average the cross-entropy of probabilities; ``None`` for other reductions."""
    if reduction != "mean" or size_average is not None or reduce is not None:
        return None
    least = math.exp(-100)  # logarithms are at least -100, as in torch
    yes, no = (p.clamp(min=least).log() for p in (input, 1 - input))
    losses = -(target * yes + (1 - target) * no)
    return (losses if weight is None else losses * weight).mean()


#: ``None`` where a formula does not apply.
_FORMULAS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    torch._weight_norm: _scale_to_norm,
    F.binary_cross_entropy: _binary_cross_entropy,
}


def _convolve(
    num: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Iterable[int] = 1,
    padding: int | str | Iterable[int] = 0,
    dilation: int | Iterable[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Convolve; ``None`` where torch is to do it."""
    if isinstance(padding, str) or input.dim() != num + 2:
        return None
    geometry = _Geometry(_each(stride, num), _each(padding, num), _each(dilation, num), groups)
    found: Tensor = _Convolution.apply(input, weight, bias, geometry)
    return found


def _each(value: int | Iterable[int], num: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * num if len(values) == 1 else values


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return geometry.apply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        wanted = list(ctx.needs_input_grad[:3])
        found = _Gradients.apply(cotangent, *ctx.saved_tensors, ctx.geometry, wanted)
        return (*found, None)


class _Gradients(Function):
    """The gradients of a convolution as functions of cotangent, input and weight."""

    @staticmethod
    def forward(
        ctx: Any,
        cotangent: Tensor,
        x: Tensor,
        weight: Tensor,
        geometry: _Geometry,
        wanted: list[bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        ctx.save_for_backward(cotangent, x, weight)
        ctx.set_materialize_grads(False)
        ctx.geometry = geometry
        return geometry.pull_back(cotangent, x, weight, wanted)

    @staticmethod
    def backward(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Any) -> Any:
        cotangent, x, weight = ctx.saved_tensors
        geometry: _Geometry = ctx.geometry
        terms = []
        if of_x is not None:
            terms.append(_Convolution.apply(of_x, weight, None, geometry))
        if of_weight is not None:
            terms.append(_Convolution.apply(x, of_weight, of_bias, geometry))
        elif of_bias is not None:
            terms.append(of_bias.view(-1, *[1] * len(geometry.stride)).expand_as(cotangent))
        in_x, in_weight, _ = _Gradients.apply(
            cotangent,
            x if of_x is None else of_x,
            weight if of_weight is None else of_weight,
            geometry,
            [of_weight is not None and ctx.needs_input_grad[1], of_x is not None, False],
        )
        return (sum(terms) if terms else None), in_x, in_weight, None, None
