"""The linear algebra of XTrace, once all products are there.

Epperly, Tropp and Webber (2024), XTrace: Making the Most of Every Sample in Stochastic Trace
Estimation, SIAM J. Matrix Anal. Appl. 45(1).
"""

from collections.abc import Callable

import torch
from torch import Tensor


def exchangeable_estimates(
    sums: Callable[[Tensor], Tensor],
    vectors: Tensor,
    sketch: Tensor,
    basis: Tensor,
    triangle: Tensor,
    image: Tensor,
) -> Tensor:
    """Estimate from each vector as a probe and the others as the sketch, shape ``(n, P)``.

    Args:
        sums: Sums entries, shape ``(D, K)``, over the P parameters: ``(K, P)``, float64.
        vectors: Ω, shape ``(D, n)``.
        sketch: HΩ, shape ``(D, n)``.
        basis: Q of its QR decomposition, shape ``(D, n)``.
        triangle: R, shape ``(n, n)``.
        image: HQ, shape ``(D, n)``.
    """
    core = basis.T @ image
    within = sums(basis * image).sum(0)
    twice = sums(basis * (basis @ core)).sum(0)
    # Of dependent vectors all but one span what all do, to rounding: nothing is left out.
    dependent = _dependent(triangle) or vectors.shape[0] == vectors.shape[1]
    left_out = torch.zeros_like(triangle) if dependent else _left_out(triangle)
    outside = basis @ left_out
    exact = 2 * (within - sums(outside * (image @ left_out))) - twice
    exact += sums(outside * (basis @ ((core + core.T) @ left_out)))
    exact -= sums(outside**2) * (left_out * (core @ left_out)).sum(0).double().cpu()[:, None]

    def inside(coordinates: Tensor) -> Tensor:
        return coordinates - left_out * (left_out * coordinates).sum(0)

    coordinates = inside(basis.T @ vectors)
    rest = sketch - image @ coordinates
    rest = rest - basis @ inside(basis.T @ rest)
    return exact + sums((vectors - basis @ coordinates) * rest)


def jackknife_factor(
    vectors: Tensor, sketch: Tensor, basis: Tensor, triangle: Tensor, image: Tensor
) -> float:
    """Compare the jackknife error of the mean with the one that independent samples would have.

    The estimates share the sketch, so they are not independent. The jackknife drops one vector
    after the other, from sketch and probes alike; by Efron and Stein (1981) its variance errs
    upwards. Arguments as for ``exchangeable_estimates``.

    Returns:
        The ratio of the two standard errors; 1 where the sketch spans the range of the operator.
    """
    num = vectors.shape[1]
    if num < 3 or num == len(vectors) or _dependent(triangle):
        return 1.0
    wide = [
        m.double().cpu()
        for m in (basis.T @ vectors, basis.T @ image, triangle, (vectors * sketch).sum(0))
    ]
    means = []
    for dropped in range(num):
        kept = [index for index in range(num) if index != dropped]
        turn, corner = torch.linalg.qr(wide[2][:, kept])
        means.append(
            _totals(
                turn.T @ wide[0][:, kept], turn.T @ wide[1] @ turn, corner, wide[3][kept]
            ).mean()
        )
    jackknife = torch.stack(means).var(correction=0) * (num - 1)
    independent = _totals(*wide).var() / num
    return float((jackknife / independent).sqrt()) if independent > 0 else 1.0


def _totals(coordinates: Tensor, core: Tensor, triangle: Tensor, quadratics: Tensor) -> Tensor:
    """Compute the exchangeable estimates of the whole trace from small matrices.

    Args:
        coordinates: QᵀΩ, shape ``(n, n)``.
        core: QᵀHQ, shape ``(n, n)``.
        triangle: R = QᵀHΩ, shape ``(n, n)``.
        quadratics: ωᵀHω, shape ``(n,)``.
    """
    left_out = _left_out(triangle)
    inside = coordinates - left_out * (left_out * coordinates).sum(0)
    exact = core.trace() - (left_out * (core @ left_out)).sum(0)
    return exact + quadratics + (inside * (core @ inside - 2 * triangle)).sum(0)


def _left_out(triangle: Tensor) -> Tensor:
    """Find what all vectors but the i-th do not span: column i, a unit vector in their basis.

    Column i of R⁻ᵀ, normalized, is orthogonal to all columns of R but the i-th.
    """
    columns: Tensor = torch.linalg.inv(triangle).T
    lengths: Tensor = torch.linalg.vector_norm(columns, dim=0)
    return columns / lengths


def _dependent(triangle: Tensor) -> bool:
    """Whether the columns of the sketch depend on each other, to rounding."""
    singular = torch.linalg.svdvals(triangle)
    return bool(singular[-1] <= 100 * torch.finfo(triangle.dtype).eps * singular[0])
