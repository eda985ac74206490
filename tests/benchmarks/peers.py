"""PyHessian and curvlinops on the same network and examples, with answers in one form."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from curvlinops import HessianLinearOperator, xtrace
from curvlinops.papyan2020traces.spectrum import fast_lanczos
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

# The package hides its module of this name behind the class.
_pyhessian = import_module("pyhessian.hessian")


class Pairs(NamedTuple):
    values: Tensor  # (k,)
    vectors: Tensor  # (D, k)
    products: int


class Moments(NamedTuple):
    """Of a spectral density, times D: the traces of H and of its square."""

    first: float
    second: float
    products: int


class PyHessian:
    """PyHessian 0.1 on one batch, the graph of whose gradient it keeps."""

    name = "PyHessian"

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        self.products = 0
        self._tool = _pyhessian.hessian(
            model, nn.CrossEntropyLoss(), data=(inputs, targets), cuda=inputs.is_cuda
        )

    def product(self, vector: Tensor) -> Tensor:
        pieces = vector.split([p.numel() for p in self._tool.params])
        shaped = [v.view_as(p) for v, p in zip(pieces, self._tool.params, strict=True)]
        found = _pyhessian.hessian_vector_product(self._tool.gradsH, self._tool.params, shaped)
        return _flat(found)

    def largest(self, k: int) -> Pairs:
        with self._counting():
            values, vectors = self._tool.eigenvalues(top_n=k)
        return Pairs(
            torch.tensor(values), torch.stack([_flat(v) for v in vectors], 1), self.products
        )

    def trace(self) -> Tensor:
        """Its samples, as many as its own rule takes."""
        return torch.tensor(self._tool.trace())

    def density(self, steps: int, probes: int) -> Moments:
        size = sum(p.numel() for p in self._tool.params)
        with self._counting(), _torch_eig():
            nodes, weights = map(np.array, self._tool.density(iter=steps, n_v=probes))
        moments = [float(size * (weights * nodes**n).sum(1).mean()) for n in (1, 2)]
        return Moments(*moments, self.products)

    def release(self) -> None:
        """Break the cycle of parameters, gradients and their graph, which is never freed."""
        for parameter in self._tool.params:
            parameter.grad = None
        del self._tool
        gc.collect()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the products, which the tool does not."""
        original = _pyhessian.hessian_vector_product
        self.products = 0

        def counted(*arguments: Any) -> Any:
            self.products += 1
            return original(*arguments)

        _pyhessian.hessian_vector_product = counted
        try:
            yield
        finally:
            _pyhessian.hessian_vector_product = original


class Curvlinops:
    """curvlinops on one batch: jvp of the gradient, built anew for every product."""

    name = "curvlinops"

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.operator = HessianLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            parameters,
            [(inputs, targets)],
            check_deterministic=False,
        )

    def product(self, vector: Tensor) -> Tensor:
        return self.operator @ vector

    def largest(self, k: int, tol: float) -> Pairs:
        wrapped, products = self.operator.to_scipy(), 0
        multiply = wrapped._matvec

        def counted(vector: np.ndarray) -> np.ndarray:
            nonlocal products
            products += 1
            return multiply(vector)

        wrapped._matvec = counted
        start = np.random.default_rng(0).standard_normal(wrapped.shape[0]).astype(wrapped.dtype)
        values, vectors = eigsh(wrapped, k, which="LA", tol=tol, v0=start)
        order = np.argsort(-values)
        return Pairs(
            torch.from_numpy(values[order].copy()),
            torch.from_numpy(vectors[:, order].copy()),
            products,
        )

    def trace(self, num_products: int) -> float:
        return float(xtrace(self.operator, num_products))

    def density(self, steps: int, probes: int) -> Moments:
        """Of its quadrature: broadening moves a share of D of the moments."""
        size = self.operator.shape[0]
        moments = torch.zeros(2)
        for _ in range(probes):
            nodes, vectors = fast_lanczos(self.operator, steps)
            weights = vectors[0] ** 2
            moments += size * torch.stack([(weights * nodes**n).sum() for n in (1, 2)]) / probes
        return Moments(*moments.tolist(), steps * probes)


def _flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


@contextmanager
def _torch_eig() -> Iterator[None]:
    """Give ``torch.eig`` back, which PyHessian's density calls and torch 2 no longer has."""

    def eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    torch.eig = eig
    try:
        yield
    finally:
        del torch.eig
