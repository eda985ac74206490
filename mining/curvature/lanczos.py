"""Krylov spaces of a symmetric operator: extreme eigenpairs, and tridiagonal matrices."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining.curvature.operators import CurvatureOperator
from mining.curvature.ritz import Which, largest_residuals, wanted_indices
from mining.curvature.symmetry import asymmetry_limit, raise_asymmetric
from mining.memory import available_memory, check_memory
from mining.random_vectors import rademacher, standard_normal

#: A rest of a product below this many units of rounding is nothing: the space is closed.
_NOTHING = 100


class RitzPairs(NamedTuple):
    """Approximate eigenpairs out of a Krylov space."""

    values: Tensor  # (k,) float64, on the CPU
    vectors: Tensor  # (D, k)
    residuals: Tensor  # (k,) float64
    scale: float  # largest |Ritz value|


def thick_restart_lanczos(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    tol: float,
    max_products: int,
    max_vectors: int,
    generator: torch.Generator,
    locked: RitzPairs | None = None,
) -> RitzPairs:
    """Find extreme eigenpairs by Lanczos with thick restarts.

    Wu and Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems,
    SIAM J. Matrix Anal. Appl. 22(2). Every new vector is orthogonalized twice against all others:
    once is not enough on clustered spectra, and without it eigenvalues that have converged come
    back as ghosts. The projection QᵀHQ is taken in full from those products and not assumed to be
    tridiagonal, so residuals contain the rounding of the products, and an operator that is not
    symmetric shows itself.

    Where the space closes (HQ lies in it), its pairs are exact, but of an eigenvalue that occurs
    several times it holds one vector. A random vector orthogonal to the space then goes on, until
    a space closes without having changed a wanted value.

    Arguments and errors are those of ``eigenpairs``; the search is orthogonal to the pairs
    ``locked``.
    """
    size = operator.shape[0] - (0 if locked is None else len(locked.values))
    pairs = 2 * k if which == "both" else k
    most = min(max_vectors, max_products, size)
    if max_vectors < min(pairs + 2, size):
        raise ValueError(
            f"max_vectors must be at least {min(pairs + 2, size)} for {pairs} eigenpairs, got "
            f"{max_vectors}."
        )
    check_basis(operator, most + 1 + pairs, f"max_vectors={most}", "max_vectors", 1 + pairs)
    space = _KrylovSpace(operator, most, generator, locked=locked)
    closings: list[Tensor] = []  # the wanted values whenever the space closed
    for used in range(1, max_products + 1):
        space.expand()
        values, vectors, residuals = space.ritz_pairs()
        wanted = wanted_indices(values, k, which)
        if space.num == size or used == max_products:
            break
        if space.closed:
            closings.append(values[wanted])
            if len(wanted) == pairs and _unchanged(closings, space.scale):
                break
        elif not closings and len(wanted) == pairs:
            limits = largest_residuals(values[wanted], tol, space.scale, operator.dtype)
            if (residuals[wanted] <= limits).all():
                break
        if space.num == most:
            # Half of the rest stays too, nearest to the wanted first: it speeds up what follows.
            extra = (most - pairs) // (4 if which == "both" else 2)
            space.restart(vectors[:, wanted_indices(values, k + extra, which)])
    scale = float(values.abs().max())
    return RitzPairs(values[wanted], space.lift(vectors[:, wanted]), residuals[wanted], scale)


def add_repeated(
    operator: CurvatureOperator,
    found: RitzPairs,
    k: int,
    which: Which,
    tol: float,
    max_products: int,
    max_vectors: int,
    generator: torch.Generator,
) -> RitzPairs:
    """Search what is orthogonal to the pairs found for one that belongs among them.

    A new random vector is not orthogonal to the other vectors of a repeated eigenvalue. The
    search ends when the best pair that it finds is none of the wanted.

    Args:
        operator: Of shape ``(D, D)``.
        found: What ``thick_restart_lanczos`` returned with the same arguments.
        k: As there.
        which: As there.
        tol: As there.
        max_products: Most products for all searches.
        max_vectors: As there.
        generator: As there.

    Returns:
        The pairs with those that were missing, in place of the least wanted ones.
    """
    size = operator.shape[0]
    before = operator.products
    while found.vectors.shape[1] < size:
        left = max_products - (operator.products - before)
        if left < 1:
            break
        end: Which = "largest" if which == "both" and found.vectors.shape[1] == size - 1 else which
        roughly = max(tol, 0.03)
        extra = thick_restart_lanczos(
            operator, 1, end, roughly, left, max_vectors, generator, found
        )
        if not _enters(extra, found, k, which):
            break
        left = max(1, max_products - (operator.products - before))
        extra = thick_restart_lanczos(operator, 1, end, tol, left, max_vectors, generator, found)
        if not _enters(extra._replace(residuals=torch.zeros(len(extra.values))), found, k, which):
            break
        values = torch.cat([found.values, extra.values])
        order = wanted_indices(values, k, which)
        found = RitzPairs(
            values[order],
            torch.cat([found.vectors, extra.vectors], 1)[:, order],
            torch.cat([found.residuals, extra.residuals])[order],
            max(found.scale, extra.scale),
        )
    return found


def _enters(extra: RitzPairs, found: RitzPairs, k: int, which: Which) -> bool:
    """Whether pairs, as good as their residuals may make them, push out one that was found."""
    gain = extra.residuals - 1e3 * torch.finfo(found.vectors.dtype).eps * found.scale
    if which == "magnitude":
        return bool((extra.values.abs() + gain > found.values.abs().min()).any())
    above = bool(extra.values[0] + gain[0] > found.values[:k].min())
    below = bool(extra.values[-1] - gain[-1] < found.values[-k:].max())
    return {"largest": above, "smallest": below}.get(which, above or below)


def tridiagonalize(
    operator: CurvatureOperator, num_steps: int, num_probes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Run Lanczos from several random vectors at once, each in its own space.

    Args:
        operator: Of shape ``(D, D)``.
        num_steps: Products for each start vector, at most D.
        num_probes: How many start vectors P, with entries ±1/√D.
        generator: Source of the start vectors.

    Returns:
        The eigenvalues of the P tridiagonal matrices, shape ``(P, m)``, and the squared first
        entries of their eigenvectors, shape ``(P, m)``, which sum to one: nodes and weights of a
        Gauss quadrature. m is ``num_steps``, or fewer where all spaces closed earlier; one that
        closed before the others repeats its last node with weight 0.

    Raises:
        ValueError: If the operator is not symmetric.
        MemoryError: If the vectors do not fit.
        ArithmeticError: If a product is not finite.
    """
    size = operator.shape[0]
    starts = [rademacher(size, generator) for _ in range(num_probes)]
    nodes = torch.zeros(num_probes, num_steps, dtype=torch.float64)
    weights = torch.zeros(num_probes, num_steps, dtype=torch.float64)
    at_once = _probes_at_once(operator, num_steps, num_probes)
    for chunk in torch.split(torch.arange(num_probes), at_once):
        spaces = [
            _KrylovSpace(operator, num_steps, generator, start=starts[probe])
            for probe in chunk.tolist()
        ]
        for _ in range(num_steps):
            growing = [space for space in spaces if not space.closed]
            if growing:
                products = operator @ torch.stack([space.next for space in growing], 1)
                for space, product in zip(growing, products.T, strict=True):
                    space.expand(product)
        for probe, space in zip(chunk.tolist(), spaces, strict=True):
            values, vectors, _ = space.ritz_pairs()
            nodes[probe] = values[-1]
            nodes[probe, : space.num] = values
            weights[probe, : space.num] = vectors[0] ** 2
    longest = int((weights > 0).any(0).nonzero().max()) + 1
    return nodes[:, :longest], weights[:, :longest]


def check_basis(
    operator: CurvatureOperator, num_vectors: int, what: str, option: str, besides: int = 0
) -> None:
    """Raise ``MemoryError`` unless ``num_vectors`` vectors of length D fit.

    Args:
        operator: Tells length, type and device of a vector.
        num_vectors: How many.
        what: What asks for them.
        option: The option whose value should be lower.
        besides: How many of the vectors that option does not govern.
    """
    vector = operator.shape[0] * operator.dtype.itemsize
    fitting = available_memory(operator.device) // vector - besides
    remedy = f"{option}={fitting} would fit" if fitting > 0 else "take fewer parameters"
    check_memory(num_vectors * vector, operator.device, what, remedy)


def _unchanged(closings: list[Tensor], scale: float) -> bool:
    if len(closings) < 2 or len(closings[-2]) != len(closings[-1]):
        return False
    before, after = closings[-2:]
    return bool(((before - after).abs() <= 1e-6 * scale).all())


def _probes_at_once(operator: CurvatureOperator, num_steps: int, num_probes: int) -> int:
    """How many spaces of ``num_steps`` vectors fit into half of the free memory."""
    check_basis(operator, num_steps + 2, f"num_steps={num_steps}", "num_steps", 2)
    space = (num_steps + 2) * operator.shape[0] * operator.dtype.itemsize
    return int(min(num_probes, max(1, available_memory(operator.device) // 2 // space)))


class _KrylovSpace:
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
        column, rest = self._orthogonalize(product, self.num + 1)
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
        if self.closed:
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
        return values, vectors, torch.hypot(inside, self._rest * vectors[-1])

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
        self.num = num

    def lift(self, vectors: Tensor) -> Tensor:
        """Turn vectors in the basis, shape ``(m, k)``, into vectors of length D, ``(D, k)``."""
        return self._basis[: self.num].T @ vectors.to(self._basis)

    def _set_next(self, vector: Tensor) -> None:
        vector = vector.to(self._basis)
        _, rest = self._orthogonalize(vector / vector_norm(vector), self.num)
        self._basis[self.num] = rest / vector_norm(rest)

    def _orthogonalize(self, vector: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Split a vector into coefficients in the first ``num`` basis vectors and the rest."""
        basis = self._basis[:num]
        coefficients = torch.zeros(num, dtype=torch.float64)
        for _ in range(2):
            if self._locked is not None:
                vector = vector - self._locked @ (self._locked.T @ vector)
            found = basis @ vector
            vector = vector - found @ basis
            coefficients += found.double().cpu()
        return coefficients, vector
