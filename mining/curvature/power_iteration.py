"""How power iteration approaches the eigenvalue of largest magnitude."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.curvature.operators import CurvatureOperator, check_operator
from mining.functional.random_vectors import standard_normal


@dataclass(frozen=True, eq=False)
class PowerIteration:
    """Every iterate of one power iteration."""

    values: Tensor  # (K,) float64, Rayleigh quotients vᵀHv
    residuals: Tensor  # (K,) float64, ‖Hv - (vᵀHv) v‖: an eigenvalue lies this close


def power_iteration(
    operator: CurvatureOperator, num: int, *, generator: torch.Generator
) -> PowerIteration:
    """Iterate v ← Hv / ‖Hv‖ from a Gaussian vector; Alabdulkareem (2022), Eq. 17.

    With |λ₁| > |λ₂| the error of the vector falls by |λ₂ / λ₁| in an iteration, and that of the
    Rayleigh quotient, H being symmetric, by its square.

    Args:
        operator: Symmetric, of shape ``(D, D)``.
        num: Iterations, each of which is a product.
        generator: Source of the first vector, on the CPU.

    Returns:
        Values and residuals of the ``num`` unit vectors that were multiplied, the random one first.
        If a product is zero the values after it are zero.

    Raises:
        InputError: If ``num`` is not positive.
        ArithmeticError: If a product is not finite.
    """
    check_operator(operator)
    if num < 1:
        raise InputError(f"num must be at least 1, got {num}.")
    vector = standard_normal(operator.shape[0], generator).to(operator.device, operator.dtype)
    vector = vector / vector_norm(vector)
    values, residuals = torch.zeros(2, num, dtype=torch.float64)
    for place in range(num):
        product = operator @ vector
        values[place] = vector.double() @ product.double()
        residuals[place] = vector_norm(product.double() - values[place] * vector.double())
        if not bool(product.any()):
            break
        vector = product / vector_norm(product)
    return PowerIteration(values, residuals)
