"""Curvature operators of a loss: Hessian, Gauss-Newton matrix, residual."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd import grad
from torch.autograd.graph import saved_tensors_hooks

from mining import InputError
from mining.curvature.convolution import FastSecondDerivatives
from mining.curvature.loss_at import LossAt
from mining.curvature.operators import CurvatureOperator
from mining.functional.derivatives import check_recording
from mining.functional.loss import Batch
from mining.functional.memory import available_memory, is_out_of_memory
from mining.functional.parameters import ParameterSpace
from mining.functional.precision import products_in
from mining.ranks import current

#: Fraction of the free memory used for graphs that are kept between products.
_KEPT_SHARE = 0.4


class HessianOperator(CurvatureOperator):
    """The exact Hessian of the mean loss, by differentiating the gradient along the vectors.

    The graphs of the gradient are kept between products as far as ``memory`` allows. The others
    are rebuilt for every product, once for a block of vectors.

    Args:
        loss: The loss and the point.
        memory: Memory for kept graphs, bytes; ``None``: two fifths of the free memory.
    """

    def __init__(self, loss: LossAt, memory: int | None = None) -> None:
        super().__init__(loss.space.size, loss.theta.device, loss.theta.dtype, loss.space)
        self._loss = loss
        self.ranks = loss.ranks
        self._graphs = _Graphs(loss, self._build, memory)
        self._part: ParameterSpace | None = None

    def block(self, parameters: str | Sequence[str]) -> "HessianOperator":
        """Return the diagonal block of some of the parameters, on the graphs of this operator.

        Its products differentiate only what lies between those parameters and the loss: of the
        first layer as much as a product of the whole, of the last one hardly anything.

        Args:
            parameters: As ``ParameterSpace.select`` takes it.

        Raises:
            InputError: If a name matches no parameter.
        """
        return _block(self, self._loss.space.select(parameters))

    def _multiply(self, rows: Tensor) -> Tensor:
        _check_ranks(self)
        products = torch.zeros_like(rows)
        with products_in(self.device):
            for leaves, slopes in self._graphs.through(self._part):
                tensors, gradient = _chosen(leaves, self._part), _chosen(slopes, self._part)
                with self._loss.running(leaves):
                    for row, product in zip(rows, products, strict=True):
                        product += _pull_back(gradient, _cut(row, gradient), tensors)
                # One that is not kept goes before the next is built.
                del leaves, tensors, gradient, slopes
        return self.ranks.sum(products)

    @staticmethod
    def _build(
        loss: LossAt, batch: Batch, part: ParameterSpace | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        leaves, differentiated = _leaves(loss, part)
        with loss.running(leaves) as forward:
            with FastSecondDerivatives():
                value = loss.loss_fn(forward(batch.inputs), batch.targets)
            slopes = _gradient(value * (batch.weight / loss.total), list(differentiated.values()))
            return leaves, dict(zip(differentiated, slopes, strict=True))


class GaussNewtonOperator(CurvatureOperator):
    """The generalized Gauss-Newton matrix: the mean over examples of Jᵀ ∇²ℓ J.

    J is the Jacobian of the model's outputs, and ∇²ℓ the Hessian of the loss with respect to the
    outputs, computed by automatic differentiation and so exact for every loss. The matrix is
    positive semi-definite if the loss is convex in the outputs. Schraudolph (2002), Neural
    Computation 14(7).

    Args:
        loss: The loss and the point.
        memory: Memory for kept graphs, bytes; ``None``: two fifths of the free memory.
    """

    def __init__(self, loss: LossAt, memory: int | None = None) -> None:
        if loss.loss_fn.objective is not None:
            raise InputError(
                "The Gauss-Newton matrix Jᵀ ∇²ℓ J needs outputs and targets that are tensors, and "
                "a loss_fn of them. For an objective, or outputs or targets of another structure, "
                "use hessian()."
            )
        super().__init__(loss.space.size, loss.theta.device, loss.theta.dtype, loss.space)
        self._loss = loss
        self.ranks = loss.ranks
        self._graphs = _Graphs(loss, self._build, memory)
        self._part: ParameterSpace | None = None

    def block(self, parameters: str | Sequence[str]) -> "GaussNewtonOperator":
        """Return the diagonal block of some of the parameters; see ``HessianOperator.block``."""
        return _block(self, self._loss.space.select(parameters))

    def _multiply(self, rows: Tensor) -> Tensor:
        _check_ranks(self)
        products = torch.zeros_like(rows)
        with products_in(self.device):
            for graph in self._graphs.through(self._part):
                tensors = _chosen(graph.leaves, self._part)
                pulled = _chosen(graph.pulled, self._part)
                with self._loss.running(graph.leaves):
                    for row, product in zip(rows, products, strict=True):
                        push = _pull_back(pulled, _cut(row, pulled), [graph.cotangent])
                        curved = _pull_back([graph.slope], [push.view_as(graph.slope)], [graph.at])
                        product += _pull_back([graph.outputs], [curved.view_as(graph.at)], tensors)
                # One that is not kept goes before the next is built.
                del graph, tensors, pulled
        return self.ranks.sum(products)

    @staticmethod
    def _build(loss: LossAt, batch: Batch, part: ParameterSpace | None) -> "_Linearization":
        leaves, differentiated = _leaves(loss, part)
        tensors = list(differentiated.values())
        with loss.running(leaves) as forward:
            outputs = forward(batch.inputs)
            # Jᵀu is linear in u: differentiating it by u gives J v, and no forward mode is needed.
            cotangent = torch.zeros_like(outputs, requires_grad=True)
            pulled = _gradient(outputs, tensors, cotangent)
            at = outputs.detach().requires_grad_()
            value = _loss_of_outputs(loss, at, batch.targets, tensors)
            (slope,) = _gradient(value * (batch.weight / loss.total), [at])
        named = dict(zip(differentiated, pulled, strict=True))
        return _Linearization(leaves, outputs, cotangent, named, at, slope)


class ResidualOperator(CurvatureOperator):
    """The Hessian minus the Gauss-Newton matrix: the mean of Σ_c ∂ℓ/∂z_c ∇²z_c.

    Args:
        hessian: The Hessian.
        gauss_newton: The Gauss-Newton matrix at the same point, of the same loss.
    """

    def __init__(self, hessian: HessianOperator, gauss_newton: GaussNewtonOperator) -> None:
        super().__init__(hessian.shape[0], hessian.device, hessian.dtype, hessian.space)
        self._hessian, self._gauss_newton = hessian, gauss_newton
        self.ranks = hessian.ranks

    @classmethod
    def of(cls, loss: LossAt, memory: int | None = None) -> "ResidualOperator":
        """Make both operators of a loss, each with half of the memory for its graphs."""
        if memory is None:
            memory = int(_KEPT_SHARE * available_memory(loss.theta.device))
        half = memory // 2
        return cls(HessianOperator(loss, half), GaussNewtonOperator(loss, half))

    def block(self, parameters: str | Sequence[str]) -> "ResidualOperator":
        """Return the diagonal block of some of the parameters; see ``HessianOperator.block``."""
        return ResidualOperator(
            self._hessian.block(parameters), self._gauss_newton.block(parameters)
        )

    def _multiply(self, rows: Tensor) -> Tensor:
        return self._hessian._multiply(rows) - self._gauss_newton._multiply(rows)


_Operator = TypeVar("_Operator", HessianOperator, GaussNewtonOperator)


def _block(operator: _Operator, part: ParameterSpace) -> _Operator:
    """Give an operator of some of the parameters, on the graphs of another."""
    block = copy(operator)
    block.space, block._part, block.shape = part, part, (part.size, part.size)
    block.products = 0
    return block


def _check_ranks(operator: CurvatureOperator) -> None:
    """Raise ``InputError`` if other ranks have a share of the examples, and do not take part."""
    if operator.ranks.size > 1 and current() is not operator.ranks:
        raise InputError(
            "This operator was made by several ranks, each of which has its share of the examples: "
            "multiply within the same mining.distributed(), in all of them."
        )


def _leaves(
    loss: LossAt, part: ParameterSpace | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Give θ by name, and of it what is differentiated by: those of a block, all for ``None``."""
    leaves = loss.leaves()
    if part is None:
        return leaves, leaves
    differentiated = {name: leaves[name] for name in part.names}
    fixed = {name: leaf.detach() for name, leaf in leaves.items() if name not in differentiated}
    return {name: fixed.get(name, leaf) for name, leaf in leaves.items()}, differentiated


def _chosen(tensors: Mapping[str, Tensor], part: ParameterSpace | None) -> list[Tensor]:
    """Take the tensors of a block, all for ``None``."""
    return list(tensors.values()) if part is None else [tensors[name] for name in part.names]


@dataclass(frozen=True)
class _Linearization:
    """The outputs of one micro-batch as a function of the parameters, and their loss."""

    leaves: dict[str, Tensor]
    outputs: Tensor  # (B, ...)
    cotangent: Tensor  # u, of the shape of the outputs
    pulled: dict[str, Tensor]  # Jᵀu of the parameters that are differentiated by
    at: Tensor  # the outputs without their graph
    slope: Tensor  # the gradient of the loss in them


def _loss_of_outputs(
    loss: LossAt, outputs: Tensor, targets: Tensor, leaves: Sequence[Tensor]
) -> Tensor:
    """Evaluate the loss of outputs that have no graph.

    Raises:
        InputError: If it depends on the parameters all the same, or needs the graph.
    """
    remedy = (
        "the Gauss-Newton matrix Jᵀ ∇²ℓ J, and with it the residual, is that of a loss of outputs "
        "and targets alone. Leave the other terms out (weight decay adds its coefficient times "
        "the identity), or take hessian()."
    )
    try:
        value = loss.loss_fn(outputs, targets)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"The loss needs more than the values of outputs: {remedy}") from error
    if value.requires_grad:
        found = grad(value, leaves, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in found):
            raise InputError(f"The loss reads parameters of the model: {remedy}")
    return value


_Graph = TypeVar("_Graph")


class _Graphs(Generic[_Graph]):
    """The graph of each micro-batch, kept if memory allows and otherwise built when used."""

    def __init__(
        self,
        loss: LossAt,
        build: Callable[[LossAt, Batch, ParameterSpace | None], _Graph],
        memory: int | None,
    ) -> None:
        self._loss, self._build, self._memory = loss, build, memory
        self._batches = [batch for batch in loss.own if batch.weight > 0]
        self._kept: list[_Graph] = []
        self._num_kept: int | None = None

    def through(self, part: ParameterSpace | None) -> Iterator[_Graph]:
        """Go through the graphs; one that is not kept has no more than ``part`` needs."""
        check_recording()
        if self._num_kept is None and self._batches:
            self._num_kept = self._count_kept()
        for index, batch in enumerate(self._batches):
            if index < len(self._kept):
                yield self._kept[index]
                continue
            kept = index < (self._num_kept or 0)
            with torch.enable_grad():
                graph = self._build(self._loss, batch, None if kept else part)
            if kept:
                self._kept.append(graph)
            yield graph
            del graph

    def _count_kept(self) -> int:
        """Compute how many graphs fit, from the size of the first one."""
        device = self._loss.theta.device
        memory = self._memory
        if memory is None:
            memory = int(_KEPT_SHARE * available_memory(device))
        sizes: dict[int, int] = {}

        def record(tensor: Tensor) -> Tensor:
            tensor = tensor.detach()
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.enable_grad(), saved_tensors_hooks(record, lambda tensor: tensor):
            self._build(self._loss, self._batches[0], None)
        return memory // max(sum(sizes.values()), 1)


def _gradient(
    value: Tensor, inputs: Sequence[Tensor], cotangent: Tensor | None = None
) -> list[Tensor]:
    """Differentiate and keep the graph; zeros for inputs on which the value does not depend."""
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(grad(value, inputs, cotangent, create_graph=True, materialize_grads=True))


def _cut(row: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a flat vector into tensors of given shapes and dtypes."""
    pieces = zip(torch.split(row, [tensor.numel() for tensor in like]), like, strict=True)
    return [piece.view(tensor.shape).to(tensor.dtype) for piece, tensor in pieces]


def _pull_back(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Tensor:
    """Multiply cotangents by the transposed Jacobian of ``outputs`` in ``inputs``, flat."""
    # Where the loss is linear in a parameter its gradient is constant and has no graph.
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    if not pairs:
        return torch.cat([torch.zeros_like(tensor).view(-1) for tensor in inputs])
    differentiated, along = zip(*pairs, strict=True)
    try:
        found = grad(differentiated, inputs, along, retain_graph=True, materialize_grads=True)
    except NotImplementedError as error:
        raise InputError(
            f"torch has no second derivative of a function in the model or the loss ({error}), so "
            "its curvature cannot be computed. Write it with other functions, or exclude its "
            "parameters."
        ) from error
    return torch.cat([tensor.reshape(-1) for tensor in found])
