"""Which eigenvalues are wanted, and when they count as found."""

from typing import Literal

import torch
from torch import Tensor

Which = Literal["largest", "smallest", "both", "magnitude"]


def wanted_indices(values: Tensor, k: int, which: Which) -> Tensor:
    """Choose among eigenvalues.

    Args:
        values: Shape ``(m,)``, in any order.
        k: How many, at each end for ``both``; fewer where there are fewer.
        which: ``largest`` in descending order, ``smallest`` in ascending order, ``magnitude`` in
            descending order of |λ|, or ``both``: k of ``largest``, then k of ``smallest``.

    Returns:
        Indices into ``values``, none twice.
    """
    descending = values.argsort(descending=True)
    if which == "largest":
        return descending[:k]
    if which == "smallest":
        return descending.flip(0)[:k]
    if which == "magnitude":
        return values.abs().argsort(descending=True)[:k]
    top = descending[: min(k, (len(values) + 1) // 2)]
    bottom = descending.flip(0)[: min(k, len(values) - len(top))]
    return torch.cat([top, bottom])


def largest_residuals(values: Tensor, tol: float, scale: float, dtype: torch.dtype) -> Tensor:
    """Say how large the residual of each pair may be: tol·|λ|, but not below rounding.

    Args:
        values: Eigenvalues λ, shape ``(m,)``.
        tol: Relative to |λ|.
        scale: The largest |λ| there is, to which products are rounded.
        dtype: Of the products.

    Returns:
        Shape ``(m,)``.
    """
    return (tol * values.abs()).clamp(min=30 * torch.finfo(dtype).eps * scale)
