"""Extreme eigenpairs by Lanczos with thick restarts."""

import torch
from torch import Tensor

from mining import InputError
from mining.curvature.krylov import KrylovSpace, RitzPairs, check_basis, would_fit
from mining.curvature.operators import CurvatureOperator
from mining.curvature.ritz import Which, largest_residuals, wanted_indices


def thick_restart_lanczos(
    operator: CurvatureOperator,
    k: int,
    which: Which,
    tol: float,
    max_products: int,
    max_vectors: int,
    generator: torch.Generator,
    locked: RitzPairs | None = None,
    start: Tensor | None = None,
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
        raise InputError(
            f"max_vectors must be at least {min(pairs + 2, size)} for {pairs} eigenpairs, got "
            f"{max_vectors}."
        )
    check_basis(
        operator,
        most + 1 + pairs,
        f"max_vectors={most}",
        lambda fitting: would_fit("max_vectors", fitting - 1 - pairs, pairs + 2),
    )
    space = KrylovSpace(operator, most, generator, start, locked)
    closings: list[Tensor] = []  # the wanted values whenever the space closed
    for used in range(1, max_products + 1):
        space.expand()
        values, vectors, residuals = space.ritz_pairs()
        wanted = wanted_indices(values, k, which)
        if space.num == size or used == max_products:
            break
        limits = largest_residuals(values[wanted], tol, space.scale, operator.dtype)
        converged = len(wanted) == pairs and bool((residuals[wanted] <= limits).all())
        if space.closed:
            closings.append(values[wanted])
            if converged and _unchanged(closings, limits):
                break
        elif converged and not closings:
            break
        if space.num == most:
            # Half of the rest stays too, nearest to the wanted first: it speeds up what follows.
            extra = (most - pairs) // (4 if which == "both" else 2)
            space.restart(vectors[:, wanted_indices(values, k + extra, which)])
    found = values[wanted], space.lift(vectors[:, wanted]), residuals[wanted]
    return RitzPairs(*found, max(space.scale, float(values.abs().max())))


def add_repeated(
    operator: CurvatureOperator,
    found: RitzPairs,
    k: int,
    which: Which,
    tol: float,
    max_products: int,
    max_vectors: int,
    generator: torch.Generator,
) -> tuple[RitzPairs, bool]:
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
        The pairs with those that were missing, in place of the least wanted ones; and whether
        the search came to its end before the products did.
    """
    size = operator.shape[0]
    before = operator.products
    while found.vectors.shape[1] < size:
        left = max_products - (operator.products - before)
        if left < 1:
            return found, False
        end: Which = "largest" if which == "both" and found.vectors.shape[1] == size - 1 else which
        roughly = max(tol, 0.03)
        extra = thick_restart_lanczos(
            operator, 1, end, roughly, left, max_vectors, generator, found
        )
        if not _enters(extra, found, k, which):
            return found, _converged(extra, roughly, operator.dtype)
        left = max_products - (operator.products - before)
        if left < 1:
            return found, False
        extra = thick_restart_lanczos(operator, 1, end, tol, left, max_vectors, generator, found)
        if not _converged(extra, tol, operator.dtype):
            return found, False
        if not _enters(extra._replace(residuals=torch.zeros(len(extra.values))), found, k, which):
            return found, True
        values = torch.cat([found.values, extra.values])
        order = wanted_indices(values, k, which)
        found = RitzPairs(
            values[order],
            torch.cat([found.vectors, extra.vectors], 1)[:, order],
            torch.cat([found.residuals, extra.residuals])[order],
            max(found.scale, extra.scale),
        )
    return found, True


def _converged(pairs: RitzPairs, tol: float, dtype: torch.dtype) -> bool:
    limits = largest_residuals(pairs.values, tol, pairs.scale, dtype)
    return bool((pairs.residuals <= limits).all())


def _enters(extra: RitzPairs, found: RitzPairs, k: int, which: Which) -> bool:
    """Whether pairs, as good as their residuals may make them, push out one that was found."""
    gain = extra.residuals - 1e3 * torch.finfo(found.vectors.dtype).eps * found.scale
    if which == "magnitude":
        return bool((extra.values.abs() + gain > found.values.abs().min()).any())
    above = bool(extra.values[0] + gain[0] > found.values[:k].min())
    below = bool(extra.values[-1] - gain[-1] < found.values[-k:].max())
    return {"largest": above, "smallest": below}.get(which, above or below)


def _unchanged(closings: list[Tensor], limits: Tensor) -> bool:
    if len(closings) < 2 or len(closings[-2]) != len(closings[-1]):
        return False
    return bool(((closings[-2] - closings[-1]).abs() <= limits).all())
