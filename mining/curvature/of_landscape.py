"""Curvature operators of what a landscape was prepared from."""

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

from mining.curvature.loss_at import loss_at
from mining.curvature.loss_operators import GaussNewtonOperator, HessianOperator, ResidualOperator
from mining.functional.prepare import Prepared


class OperatorOptions(TypedDict, total=False):
    """What an operator is of, and how it computes.

    Args:
        parameters: What to differentiate by, as ``ParameterSpace.select`` takes it: names of
            parameters or layers, patterns, ``weights``; ``None`` takes all D.
        micro_batch: Most examples in one graph, if fewer than in one pass of the execution plan,
            which ``None`` takes. Batches stay whole where examples share batch statistics.
        memory: Bytes of graphs to keep between products; ``None``: two fifths of what is free.
    """

    parameters: str | Sequence[str] | None
    micro_batch: int | None
    memory: int | None


def hessian(
    prepared: Prepared,
    theta: Tensor | None = None,
    *,
    parameters: str | Sequence[str] | None = None,
    micro_batch: int | None = None,
    memory: int | None = None,
) -> HessianOperator:
    """Give the Hessian of the loss at ``theta``; see ``Landscape.hessian``.

    Attention runs on the math kernel, the only one that has second derivatives.
    """
    return HessianOperator(loss_at(prepared, theta, parameters, micro_batch), memory)


def gauss_newton(
    prepared: Prepared,
    theta: Tensor | None = None,
    *,
    parameters: str | Sequence[str] | None = None,
    micro_batch: int | None = None,
    memory: int | None = None,
) -> GaussNewtonOperator:
    """Give the Gauss-Newton matrix of the loss at ``theta``; see ``Landscape.hessian``."""
    return GaussNewtonOperator(loss_at(prepared, theta, parameters, micro_batch), memory)


def residual(
    prepared: Prepared,
    theta: Tensor | None = None,
    *,
    parameters: str | Sequence[str] | None = None,
    micro_batch: int | None = None,
    memory: int | None = None,
) -> ResidualOperator:
    """Give Hessian minus Gauss-Newton matrix at ``theta``; see ``Landscape.hessian``."""
    return ResidualOperator.of(loss_at(prepared, theta, parameters, micro_batch), memory)
