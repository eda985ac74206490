"""Extreme eigenpairs of a curvature operator."""

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mining import InputError
from mining.curvature.krylov import RitzPairs
from mining.curvature.lanczos import add_repeated, thick_restart_lanczos
from mining.curvature.operators import CurvatureOperator, check_operator
from mining.curvature.ritz import Which, largest_residuals
from mining.curvature.vector_methods import find_by_vectors
from mining.functional.random_vectors import stream

log = logging.getLogger(__name__)

#: Largest size D at which repeated eigenvalues are searched for by default.
_VERIFIED_SIZE = 1000

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
        found = find_by_vectors(operator, k, which, method, tol, max_products, generator)
    values, vectors, residuals, scale = found
    converged = residuals <= largest_residuals(values, tol, scale, operator.dtype)
    result = Eigenpairs(
        values, vectors, residuals, converged, operator.products - before, scale, verified
    )
    if len(values) < pairs or not converged.all():
        log.warning(
            "%d of %d eigenpairs converged to a residual of %g |lambda| in %d matrix-vector "
            "products.",
            int(converged.sum()),
            pairs,
            tol,
            result.products,
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
