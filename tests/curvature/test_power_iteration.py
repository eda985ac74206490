"""Power iteration against the iterates of a dense matrix and against its known rate."""

import math

import pytest
import torch

from mining import InputError, MatrixOperator
from mining.curvature.power_iteration import power_iteration


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_error_falls_by_the_square_of_the_ratio():
    """λ = 4, -3, 1: after some iterations the error falls by (3/4)² each."""
    dense = torch.diag(torch.tensor([4.0, -3.0, 1.0], dtype=torch.float64))
    found = power_iteration(MatrixOperator(dense), 30, generator=generator())
    errors = 4 - found.values
    ratios = errors[21:26] / errors[20:25]
    assert ratios.tolist() == pytest.approx([(3 / 4) ** 2] * 5, rel=1e-4)
    assert found.values[-1] == pytest.approx(4, rel=1e-5)


def test_residuals_bound_the_distance_to_an_eigenvalue():
    normal = torch.randn(20, 20, generator=generator(1), dtype=torch.float64)
    dense = (normal + normal.T) / 2
    known = torch.linalg.eigvalsh(dense)
    found = power_iteration(MatrixOperator(dense), 15, generator=generator())
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert float((known - value).abs().min()) <= float(residual) + 1e-12


def test_the_largest_magnitude_is_found_also_if_negative():
    dense = torch.diag(torch.tensor([2.0, -5.0, 1.0], dtype=torch.float64))
    found = power_iteration(MatrixOperator(dense), 40, generator=generator())
    assert float(found.values[-1]) == pytest.approx(-5, rel=1e-6)


def test_a_zero_operator_has_the_value_zero():
    found = power_iteration(MatrixOperator(torch.zeros(4, 4)), 5, generator=generator())
    assert found.values.tolist() == [0.0] * 5
    assert found.residuals.tolist() == [0.0] * 5


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="num must be at least 1, got 0"):
        power_iteration(MatrixOperator(torch.eye(3)), 0, generator=generator())
    with pytest.raises(ArithmeticError, match="not finite"):
        power_iteration(MatrixOperator(torch.full((3, 3), math.inf)), 2, generator=generator())
