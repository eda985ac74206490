"""Eigenpairs by methods that return vectors alone: ARPACK and power iteration."""

from typing import Final, Literal

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.curvature.krylov import RitzPairs
from mining.curvature.operators import CurvatureOperator
from mining.curvature.ritz import Which, largest_residuals, wanted_indices
from mining.curvature.symmetry import check_symmetric
from mining.functional.random_vectors import standard_normal

_ARPACK_NAMES: Final[dict[Which, Literal["LA", "SA", "LM", "BE"]]] = {
    "largest": "LA",
    "smallest": "SA",
    "magnitude": "LM",
    "both": "BE",
}


def find_by_vectors(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    method: Literal["eigsh", "power"],
    tol: float,
    max_products: int,
    generator: torch.Generator,
) -> RitzPairs:
    """Find vectors by eigsh or power iteration, and compute their values and residuals.

    Arguments as for ``eigenpairs``.
    """
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
