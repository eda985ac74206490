"""Extreme eigenpairs of a curvature operator."""

import logging
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.curvature.krylov import RitzPairs
from mining.curvature.lanczos import add_repeated, thick_restart_lanczos
from mining.curvature.operators import CurvatureOperator, check_operator
from mining.curvature.ritz import Which, largest_residuals, wanted_indices
from mining.curvature.symmetry import check_symmetric
from mining.functional.random_vectors import standard_normal, stream

log = logging.getLogger(__name__)

#: Largest size D at which repeated eigenvalues are searched for by default.
_VERIFIED_SIZE = 1000
_ARPACK_NAMES: Final[dict[Which, Literal["LA", "SA", "LM", "BE"]]] = {
    "largest": "LA",
    "smallest": "SA",
    "magnitude": "LM",
    "both": "BE",
}

Method = Literal["lanczos", "eigsh", "power"]


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenpairs (λ, v), the most extreme first.

    ``largest`` is in descending order, ``smallest`` in ascending order, ``magnitude`` in
    descending order of |λ|, and ``both`` is k of ``largest`` followed by k of ``smallest``.
    """

    values: Tensor  # (k,) float64, on the CPU
    vectors: Tensor  # (D, k), orthonormal
    residuals: Tensor  # (k,) float64, ‖Hv - λv‖
    converged: Tensor  # (k,) bool: whether the residual is within the tolerance
    products: int  # matrix-vector products, including those that check the result
    largest_magnitude: float  # largest |Hv| / |v| seen: the scale of rounding errors
    verified: bool  # whether a search for repeated eigenvalues was completed

    def __len__(self) -> int:
        return len(self.values)


def eigenpairs(
    operator: CurvatureOperator,
    k: int = 1,
    which: Which = "largest",
    method: Method = "lanczos",
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
    *,
    max_products: int | None = None,
    max_vectors: int | None = None,
    verify: bool | None = None,
    start: Tensor | None = None,
) -> Eigenpairs:
    """Compute k extreme eigenpairs.

    - ``lanczos``: thick-restart Lanczos on the operator's device, every vector orthogonalized
      twice against all others. One Krylov space serves both ends of the spectrum.
    - ``eigsh``: ARPACK through SciPy, on the CPU; Xu et al. (2024), Appendix B.1.
    - ``power``: power iteration with deflation, shifted to reach one end; Alabdulkareem
      (2022), Algorithm 1. The slowest, for comparison.

    A pair has converged when ‖Hv - λv‖ ≤ tol·|λ|, the criterion of ARPACK. It is relative to each
    eigenvalue because the negative ones of a network are small: with a tolerance relative to the
    largest eigenvalue, their eigenvectors would be arbitrary. The limit is never below the
    rounding error of the products.

    A Krylov space contains only one eigenvector of an exactly repeated eigenvalue. ``verify``
    searches the orthogonal complement of the pairs for others, at about the cost of the pairs. In
    networks repeated eigenvalues are zero, so by default only small operators are verified.

    Args:
        operator: Symmetric, of shape ``(D, D)``.
        k: Number of pairs; for ``both``, at each end.
        which: ``largest``, ``smallest`` (most negative), ``both`` ends, or largest ``magnitude``.
        method: One of the three.
        tol: Largest residual, relative to |λ|.
        generator: Source of the start vector, on the CPU; ``None``: one with seed 0.
        max_products: Maximum number of matrix-vector products; ``None``: 20 per pair, at least
            300.
        max_vectors: Maximum number of vectors of length D that ``lanczos`` keeps; ``None``: four
            per pair and at least 128, limited to half of the free memory.
        verify: Whether ``lanczos`` searches for repeated eigenvalues; ``None``: if D is at most
            1000.
        start: First vector of ``lanczos``, shape ``(D,)``, of any length; ``None``: a Gaussian. An
            eigenvector of a similar operator saves products.

    Returns:
        The pairs, including those that did not converge, which are flagged; a warning is logged.

    Raises:
        InputError: If k is not between 1 and D, an option is unknown, or the operator is not
            symmetric.
        MemoryError: If the vectors do not fit; the message states how many would.
        ArithmeticError: If a product is not finite.
    """
    check_operator(operator)
    pairs = 2 * k if which == "both" else k
    max_products = max(300, 20 * pairs) if max_products is None else max_products
    _check_options(operator.shape[0], k, which, method, tol, max_products)
    if start is not None:
        _check_start(start, operator, method)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    # Unconverged vectors contain much of the start vector. It must differ from the vector that
    # direction=gaussian draws with the same seed: the two would spuriously overlap.
    generator = stream(generator, "eigenpairs")
    before = operator.products
    verified = False
    if method == "lanczos":
        verify = operator.shape[0] <= _VERIFIED_SIZE if verify is None else verify
        if max_vectors is None:
            max_vectors = _default_vectors(operator, pairs)
        found, verified = _lanczos(
            operator, k, which, tol, max_products, max_vectors, generator, verify, start
        )
    else:
        found = _by_vectors(operator, k, which, method, tol, max_products, generator)
    values, vectors, residuals, scale = found
    converged = residuals <= largest_residuals(values, tol, scale, operator.dtype)
    result = Eigenpairs(
        values, vectors, residuals, converged, operator.products - before, scale, verified
    )
    if len(values) < pairs or not converged.all():
        log.warning(
            "%d of %d eigenpairs converged to a residual of %g |lambda| in %d matrix-vector "
            "products.",
            *(int(converged.sum()), pairs, tol, result.products),
        )
    return result


def _check_options(
    size: int, k: int, which: Which, method: Method, tol: float, max_products: int
) -> None:
    for name, value, allowed in (("which", which, Which), ("method", method, Method)):
        if value not in get_args(allowed):
            raise InputError(f"{name} must be one of {get_args(allowed)}, got {value!r}.")
    pairs = 2 * k if which == "both" else k
    if k < 1 or pairs > size:
        most = size // 2 if which == "both" else size
        raise InputError(
            f"k must be between 1 and {most} for which={which} of a {size} x {size} operator, "
            f"got {k}."
        )
    if not 0 < tol < 1:
        raise InputError(f"tol must be between 0 and 1, got {tol}.")
    # The others check symmetry, and every pair, with products of their own.
    fewest = 1 if method == "lanczos" else 3 + 2 * pairs
    if max_products < fewest:
        raise InputError(
            f"max_products must be at least {fewest} for {method}, got {max_products}."
        )


def _check_start(start: Tensor, operator: CurvatureOperator, method: Method) -> None:
    if method != "lanczos":
        raise InputError(f"start is the first vector of lanczos; {method} draws its own.")
    fits = start.shape == operator.shape[:1] and bool(start.isfinite().all())
    if not fits or not start.any():
        raise InputError(f"start must be finite, not zero, and of shape ({operator.shape[0]},).")


def _default_vectors(operator: CurvatureOperator, pairs: int) -> int:
    vector = operator.shape[0] * operator.dtype.itemsize
    fitting = operator.free_memory() // 2 // vector - pairs - 1
    return max(pairs + 2, min(max(128, 4 * pairs), fitting))


def _lanczos(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    tol: float,
    max_products: int,
    max_vectors: int,
    generator: torch.Generator,
    verify: bool,
    start: Tensor | None,
) -> tuple[RitzPairs, bool]:
    """Find the pairs and, with ``verify``, repeated ones; return whether that search completed."""
    before = operator.products
    found = thick_restart_lanczos(
        operator, k, which, tol, max_products, max_vectors, generator, start=start
    )
    if not verify:
        return found, False
    left = max_products - (operator.products - before)
    found, verified = add_repeated(operator, found, k, which, tol, left, max_vectors, generator)
    if not verified:
        log.warning(
            "The search for repeated eigenvalues did not complete in %d products; some may be "
            "missing.",
            max_products,
        )
    return found, verified


def _by_vectors(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    method: Method,
    tol: float,
    max_products: int,
    generator: torch.Generator,
) -> RitzPairs:
    """Find vectors by eigsh or power iteration, and compute their values and residuals."""
    pairs = 2 * k if which == "both" else k
    watched = _Watched(operator)
    check_symmetric(watched, generator)
    solve = _eigsh if method == "eigsh" else _power
    vectors = solve(watched, k, which, tol, max_products - 2 - pairs, generator)
    # Neither reports residuals: they take one more product per pair.
    products = watched @ vectors
    values = (vectors.double() * products.double()).sum(0)
    residuals = vector_norm(products.double() - vectors.double() * values, dim=0).cpu()
    values = values.cpu()
    order = wanted_indices(values, k, which)
    return RitzPairs(values[order], vectors[:, order], residuals[order], watched.largest)


class _Watched(CurvatureOperator):
    """Wraps an operator and records the largest ‖Hv‖ / ‖v‖."""

    def __init__(self, operator: CurvatureOperator) -> None:
        super().__init__(operator.shape[0], operator.device, operator.dtype, operator.space)
        self._operator, self.ranks = operator, operator.ranks
        self.largest = 0.0

    def _multiply(self, rows: Tensor) -> Tensor:
        products = (self._operator @ rows.T).T
        stretches = vector_norm(products, dim=1) / vector_norm(rows, dim=1).clamp(min=1e-30)
        self.largest = max(self.largest, float(stretches.max()))
        return products


def _eigsh(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    tol: float,
    max_products: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the vectors, shape ``(D, m)``: fewer than wanted if ARPACK did not converge."""
    size = operator.shape[0]
    start = standard_normal(size, generator).to(operator.dtype).numpy()
    pairs = 2 * k if which == "both" else k
    if pairs >= size:
        raise InputError(f"eigsh computes fewer than all {size} pairs. Use method=lanczos.")
    kept = min(size, max(2 * pairs + 1, 20))  # ARPACK's own choice
    restarts = max(1, (max_products - kept) // (kept - pairs))
    try:
        _, vectors = eigsh(
            operator.to_scipy(),
            pairs,
            which=_ARPACK_NAMES[which],
            v0=start,
            tol=tol,
            maxiter=restarts,
        )
    except ArpackNoConvergence as error:
        vectors = error.eigenvectors
    except ArpackError as error:
        raise ArithmeticError(f"{error} Use method=lanczos.") from error
    return torch.from_numpy(np.ascontiguousarray(vectors)).to(operator.device, operator.dtype)


def _power(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    tol: float,
    max_products: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the vectors, shape ``(D, k)`` or, for both ends, ``(D, 2k)``."""
    none = torch.zeros(operator.shape[0], 0, dtype=operator.dtype, device=operator.device)
    if which == "magnitude":
        return _deflated_power(operator, k, 0.0, tol, max_products, generator, none)
    # A shift makes the wanted end of the spectrum the largest in magnitude.
    before = operator.products
    (largest,) = _deflated_power(operator, 1, 0.0, 0.1, max_products // 4, generator, none).T
    radius = 1.1 * float(vector_norm(operator @ largest))
    shifts = {"largest": [radius], "smallest": [-radius]}.get(which, [radius, -radius])
    budget = max(1, max_products - operator.products + before) // len(shifts)
    found = none
    for shift in shifts:
        found = _deflated_power(operator, k, shift, tol, budget, generator, found)
    return found


def _deflated_power(
    operator: CurvatureOperator,
    k: int,
    shift: float,
    tol: float,
    max_products: int,
    generator: torch.Generator,
    found: Tensor,
) -> Tensor:
    """Iterate v ← (H + shift)v for k vectors, one after the other, orthogonal to those found.

    The accuracy of a vector is limited by the previous ones. Therefore each stops at a fifth of
    the tolerance, with its residual projected onto the complement of the others.

    Returns:
        The vectors found before, shape ``(D, m)``, and the new ones: ``(D, m + k)``.
    """
    left, scale = max_products, abs(shift)
    for pair in range(k):
        vector = _deflate(standard_normal(len(found), generator).to(found), found)
        last = max(0, left // (k - pair) - 1)
        for step in range(last + 1):
            product = operator @ vector
            left -= 1
            value = float(vector.double() @ product.double())
            scale = max(scale, abs(value))
            error = product - value * vector
            residual = float(vector_norm(error - found @ (found.T @ error)))
            limit = largest_residuals(torch.tensor(value), tol / 5, scale, operator.dtype)
            moved = product + shift * vector
            if residual <= limit or step == last or not moved.any():
                break
            vector = _deflate(moved, found)
        found = torch.cat([found, vector[:, None]], 1)
    return found


def _deflate(vector: Tensor, found: Tensor) -> Tensor:
    """Make a vector orthogonal to the columns of ``found``, and a unit vector."""
    for _ in range(2):
        vector = vector / vector_norm(vector)
        vector = vector - found @ (found.T @ vector)
    length: Tensor = vector_norm(vector)
    return vector / length
