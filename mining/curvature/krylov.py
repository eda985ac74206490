"""Krylov spaces of a symmetric operator."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining.curvature.operators import CurvatureOperator
from mining.curvature.symmetry import asymmetry_limit, raise_asymmetric
from mining.functional.memory import available_memory, check_memory
from mining.functional.random_vectors import standard_normal

#: A rest of a product below this many units of rounding is nothing: the space is closed.
_NOTHING = 10


class RitzPairs(NamedTuple):
    """Approximate eigenpairs out of a Krylov space."""

    values: Tensor  # (k,) float64, on the CPU
    vectors: Tensor  # (D, k)
    residuals: Tensor  # (k,) float64
    scale: float  # largest |Ritz value|


class KrylovSpace:
    """An orthonormal basis Q, the projection QᵀHQ, and what HQ has outside the space.

    Args:
        operator: H.
        most: Most basis vectors.
        generator: Source of random vectors.
        start: The first one, not normalized; by default a Gaussian.
        locked: Pairs that the space avoids.
    """

    def __init__(
        self,
        operator: CurvatureOperator,
        most: int,
        generator: torch.Generator,
        start: Tensor | None = None,
        locked: RitzPairs | None = None,
    ) -> None:
        self._operator = operator
        self._generator = generator
        self._locked = None if locked is None else locked.vectors
        size = operator.shape[0]
        self._most = size - (0 if locked is None else len(locked.values))
        # One more than the space holds: the vector that comes next.
        self._basis = torch.empty(most + 1, size, dtype=operator.dtype, device=operator.device)
        self._projection = torch.zeros(most + 1, most + 1, dtype=torch.float64)
        self._rest = 0.0  # norm of what the last product has outside the space
        # What each product lost: along the locked vectors, and as a norm where the space closed.
        num_locked = 0 if locked is None else len(locked.values)
        self._along = torch.zeros(num_locked, most + 1, dtype=torch.float64)
        self._lost = torch.zeros(most + 1, dtype=torch.float64)
        self.num = 0
        self.scale = (
            0.0 if locked is None else locked.scale
        )  # the largest norm of a product with a unit vector
        self.closed = False
        self._set_next(standard_normal(size, generator) if start is None else start)

    @property
    def next(self) -> Tensor:
        """The vector to multiply next, shape ``(D,)``."""
        if self.closed and self.num < self._most:
            self._set_next(standard_normal(self._operator.shape[0], self._generator))
            self.closed = False
        return self._basis[self.num]

    def expand(self, product: Tensor | None = None) -> None:
        """Take the next vector into the space.

        Args:
            product: H times ``next``, shape ``(D,)``; by default it is computed.
        """
        vector = self.next
        product = self._operator @ vector if product is None else product
        self.scale = max(self.scale, float(vector_norm(product, dtype=torch.float64)))
        column, rest, along = self._orthogonalize(product, self.num + 1)
        last = self.num
        skew = column[:last] - self._projection[last, :last]
        difference = float(skew.abs().max()) if last else 0.0
        if difference > asymmetry_limit(self._operator.dtype) * self.scale:
            raise_asymmetric(difference, self.scale)
        self._projection[: last + 1, last] = column
        self.num += 1
        self._rest = float(vector_norm(rest, dtype=torch.float64))
        nothing = _NOTHING * torch.finfo(self._operator.dtype).eps * self.scale
        self.closed = self._rest <= nothing or self.num == self._most
        self._along[:, last] = along
        if self.closed:
            self._lost[last] = self._rest
            self._rest = 0.0
        else:
            self._projection[self.num, last] = self._rest
            self._basis[self.num] = rest / self._rest

    def ritz_pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the projected problem.

        Returns:
            Values in ascending order, shape ``(m,)``; vectors in the basis, shape ``(m, m)``;
            residual norms ‖Hv - λv‖, shape ``(m,)``. All float64, on the CPU.
        """
        projection = self._projection[: self.num, : self.num]
        values, vectors = torch.linalg.eigh((projection + projection.T) / 2)
        inside = vector_norm(projection @ vectors - vectors * values, dim=0)
        parts = [
            inside,
            self._rest * vectors[-1],
            vector_norm(self._along[:, : self.num] @ vectors, dim=0),
            vector_norm(self._lost[: self.num, None] * vectors, dim=0),
        ]
        return values, vectors, vector_norm(torch.stack(parts), dim=0)

    def restart(self, vectors: Tensor) -> None:
        """Shrink the space to some of its Ritz vectors and what follows the last product.

        Args:
            vectors: In the basis, orthonormal, shape ``(m, p)``.
        """
        num = vectors.shape[1]
        turn = vectors.T.to(self._basis)
        for columns in torch.split(self._basis, 2**16, 1):  # in place: no second basis is needed
            columns[:num] = turn @ columns[: self.num]
        self._basis[num] = self._basis[self.num]
        projection = vectors.T @ self._projection[: self.num, : self.num] @ vectors
        self._projection.zero_()
        self._projection[:num, :num] = projection
        self._projection[num, :num] = self._rest * vectors[-1]
        along = self._along[:, : self.num] @ vectors
        lost = vector_norm(self._lost[: self.num, None] * vectors, dim=0)
        self._along.zero_()
        self._along[:, :num] = along
        self._lost.zero_()
        self._lost[:num] = lost
        self.num = num

    def lift(self, vectors: Tensor) -> Tensor:
        """Turn vectors in the basis, shape ``(m, k)``, into vectors of length D, ``(D, k)``."""
        return self._basis[: self.num].T @ vectors.to(self._basis)

    def _set_next(self, vector: Tensor) -> None:
        vector = vector.to(self._basis)
        _, rest, _ = self._orthogonalize(vector / vector_norm(vector), self.num)
        self._basis[self.num] = rest / vector_norm(rest)

    def _orthogonalize(self, vector: Tensor, num: int) -> tuple[Tensor, Tensor, Tensor]:
        """Split a vector.

        Returns:
            Coefficients in the first ``num`` basis vectors; the rest; and the coefficients along
            the locked vectors. Coefficients are float64, on the CPU.
        """
        basis = self._basis[:num]
        coefficients = torch.zeros(num, dtype=torch.float64)
        along = torch.zeros(len(self._along), dtype=torch.float64)
        for _ in range(2):
            if self._locked is not None:
                part = self._locked.T @ vector
                vector = vector - self._locked @ part
                along += part.double().cpu()
            found = basis @ vector
            vector = vector - found @ basis
            coefficients += found.double().cpu()
        return coefficients, vector, along


def check_basis(
    operator: CurvatureOperator, num_vectors: int, what: str, remedy: Callable[[int], str]
) -> None:
    """Raise ``MemoryError`` unless ``num_vectors`` vectors of length D fit.

    Args:
        operator: Tells length, type and device of a vector.
        num_vectors: How many.
        what: What asks for them.
        remedy: Says what would fit, given the number of vectors that do.
    """
    vector = operator.shape[0] * operator.dtype.itemsize
    fitting = available_memory(operator.device) // vector
    check_memory(num_vectors * vector, operator.device, what, remedy(fitting))


def would_fit(option: str, value: int, fewest: int) -> str:
    """Name the value of an option that fits, or what else would help."""
    if value >= fewest:
        return f"{option}={value} would fit"
    return "take fewer parameters, or another method"
