"""Symmetric linear operators defined by their matrix-vector products."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from mining import InputError
from mining.functional.memory import available_memory
from mining.functional.parameters import ParameterSpace
from mining.ranks import ONE, Ranks


class CurvatureOperator(ABC):
    """A symmetric linear operator defined by its matrix-vector products.

    ``operator @ v`` multiplies one vector, shape ``(d,)``, or a block of vectors, ``(d, K)``.
    ``products`` counts the multiplied vectors.

    Args:
        size: The number d of rows and columns.
        device: Device of the vectors.
        dtype: Dtype of the vectors.
        space: The parameters to which the rows belong, if any.
    """

    def __init__(
        self,
        size: int,
        device: torch.device,
        dtype: torch.dtype,
        space: ParameterSpace | None = None,
    ) -> None:
        self.shape = (size, size)
        self.device = device
        self.dtype = dtype
        self.space = space
        self.products = 0
        #: The ranks that share its products.
        self.ranks: Ranks = ONE

    def __repr__(self) -> str:
        """Say what it is, in one line."""
        size = self.shape[0]
        return f"{type(self).__name__}({size} x {size}, {self.dtype}, {self.device})"

    @abstractmethod
    def _multiply(self, rows: Tensor) -> Tensor:
        """Multiply each row, shape ``(K, d)`` contiguous; returns ``(K, d)``."""

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Multiply the operator with vectors.

        Args:
            vectors: Shape ``(d,)`` or ``(d, K)``, on the operator's device.

        Returns:
            The products, of the same shape, in the operator's dtype.

        Raises:
            InputError: If the shape does not fit.
            ArithmeticError: If the product is not finite.
        """
        size = self.shape[0]
        if vectors.dim() not in (1, 2) or len(vectors) != size:
            raise InputError(
                f"A vector must have shape ({size},) and a block ({size}, K), got "
                f"{tuple(vectors.shape)}."
            )
        rows = vectors.detach().to(self.device, self.dtype)
        rows = rows[None] if rows.dim() == 1 else rows.T
        self.products += len(rows)
        products = self._multiply(rows.contiguous()) if len(rows) else torch.empty_like(rows)
        if not torch.isfinite(products).all():
            raise ArithmeticError(
                "A matrix-vector product is not finite: the loss overflows near theta, or "
                "the precision is too low."
            )
        return products[0] if vectors.dim() == 1 else products.T

    def free_memory(self) -> int:
        """Return the bytes for vectors that each of its ranks can still allocate on its device."""
        return self.ranks.smallest(available_memory(self.device))

    def to_scipy(self) -> LinearOperator:
        """Wrap the operator for ``scipy.sparse.linalg``; vectors are NumPy arrays on the CPU."""

        def multiply(vectors: np.ndarray) -> np.ndarray:
            return (self @ torch.as_tensor(vectors)).cpu().numpy()

        return LinearOperator(
            self.shape,
            matvec=lambda vector: multiply(vector.reshape(-1)),
            matmat=multiply,
            rmatvec=lambda vector: multiply(vector.reshape(-1)),
            rmatmat=multiply,
            dtype=torch.empty(0, dtype=self.dtype).numpy().dtype,
        )


def check_operator(operator: object) -> None:
    """Raise ``InputError`` unless it is a ``CurvatureOperator``."""
    if not isinstance(operator, CurvatureOperator):
        raise InputError(
            f"operator must be a CurvatureOperator, got {type(operator).__name__}: take "
            "landscape.hessian() or landscape.gauss_newton(), or MatrixOperator(matrix)."
        )


class MatrixOperator(CurvatureOperator):
    """A dense symmetric matrix, shape ``(d, d)``.

    Raises:
        InputError: If the matrix is not square. Symmetry is checked by the functions that use
            the operator.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"The matrix must be square, got {tuple(matrix.shape)}.")
        super().__init__(len(matrix), matrix.device, matrix.dtype)
        self._matrix = matrix

    def _multiply(self, rows: Tensor) -> Tensor:
        return rows @ self._matrix.T
