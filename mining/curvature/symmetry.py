"""A random check that an operator is symmetric."""

import math

import torch

from mining import InputError
from mining.curvature.operators import CurvatureOperator
from mining.functional.random_vectors import standard_normal


def asymmetry_limit(dtype: torch.dtype) -> float:
    """How far vᵀHw and wᵀHv may differ by rounding, relative to the size of the products."""
    return 10.0 * math.sqrt(torch.finfo(dtype).eps)


def raise_asymmetric(difference: float, size: float) -> None:
    """Raise ``InputError`` for an operator whose two ways round differ."""
    raise InputError(
        f"The operator is not symmetric: v'Hw and w'Hv differ by {difference:.3g} for vectors "
        f"whose products have the size {size:.3g}."
    )


def check_symmetric(operator: CurvatureOperator, generator: torch.Generator) -> None:
    """Raise ``InputError`` unless vᵀHw = wᵀHv for two random vectors; takes two products."""
    size = operator.shape[0]
    v, w = (
        standard_normal(size, generator).to(operator.device, operator.dtype) / size**0.5
        for _ in range(2)
    )
    hv, hw = (operator @ torch.stack([v, w], 1)).double().T
    difference = abs(float(v.double() @ hw - w.double() @ hv))
    # Two random vectors in D dimensions are nearly orthogonal: v'Hw is about ‖Hw‖ / sqrt(D).
    products = max(float(hv.norm()), float(hw.norm())) / size**0.5
    if difference > asymmetry_limit(operator.dtype) * products:
        raise_asymmetric(difference, products)
