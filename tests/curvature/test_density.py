"""Spectral densities against the eigenvalues of the dense matrix."""

import math

import pytest
import torch
from cases import landscape
from torch import Tensor

from mining import MatrixOperator, make_dense, spectral_density, trace


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotated(values: Tensor) -> Tensor:
    normal = torch.randn(len(values), len(values), generator=generator(), dtype=torch.float64)
    basis = torch.linalg.qr(normal).Q
    product = (basis * values.double()) @ basis.T
    return (product + product.T) / 2


@pytest.mark.parametrize("name", ["batchnorm", "tied", "attention"])
def test_moments_agree_with_the_dense_matrix(name):
    operator = landscape(name).hessian()
    dense = make_dense(operator)
    density = spectral_density(operator, 40, 16, generator=generator())
    power = torch.eye(len(dense), dtype=torch.float64)
    for order in range(5):
        estimate = density.moment(order)
        # Sixteen probes: five moments within four and a half standard errors.
        slack = 4.5 * estimate.standard_error + 1e-8 * abs(float(power.trace()))
        assert estimate.mean == pytest.approx(float(power.trace()), abs=slack), order
        power = power @ dense


def test_first_moment_is_the_trace_estimate_of_the_same_vectors():
    operator = landscape("batchnorm").hessian()
    density = spectral_density(operator, 20, 8, generator=generator(3))
    estimate = trace(operator, num_products=8, generator=generator(3))
    assert density.moment(1).mean == pytest.approx(estimate.mean, rel=1e-9)
    assert density.moment(1).standard_error == pytest.approx(estimate.standard_error, rel=1e-7)


def test_distribution_function_is_that_of_the_eigenvalues():
    dense = rotated(torch.randn(400, generator=generator(1)))
    exact = torch.linalg.eigvalsh(dense)
    density = spectral_density(MatrixOperator(dense), 60, 16, generator=generator())
    for point in (-1.0, 0.0, 0.5, 2.0):
        share = (density.weights * (density.nodes <= point)).sum(1).mean()
        # A node stands for up to its own weight, 1/60, of its surroundings.
        assert float(share) == pytest.approx(float((exact <= point).double().mean()), abs=0.04)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_integral_is_one_and_broadening_scales(scale):
    values = torch.cat([torch.tensor([50.0, 20.0, -4.0]), 0.1 * torch.randn(97)])
    dense = rotated(values)
    density = spectral_density(MatrixOperator(scale * dense), 30, 4, generator=generator())
    points = density.grid()
    found = density.evaluate(points)
    integrals = torch.trapezoid(found, points)
    torch.testing.assert_close(integrals, torch.ones_like(integrals), rtol=1e-6, atol=0)
    plain = spectral_density(MatrixOperator(dense), 30, 4, generator=generator())
    torch.testing.assert_close(found * scale, plain.evaluate(plain.grid()), rtol=1e-4, atol=1e-6)


def test_grid_covers_the_extremes_of_every_vector():
    values = torch.cat([torch.tensor([90.0, -30.0]), 0.1 * torch.randn(298)])
    density = spectral_density(MatrixOperator(rotated(values)), 12, 6, generator=generator())
    points = density.grid()
    assert points[0] < density.nodes.min() - 5 * density.width
    assert points[-1] > density.nodes.max() + 5 * density.width
    assert density.high == pytest.approx(90, rel=1e-6)
    assert density.low == pytest.approx(-30, rel=1e-6)


def test_low_rank_shows_each_eigenvalue_once():
    values = torch.tensor([10.0] * 5 + [0.0] * 45)
    density = spectral_density(MatrixOperator(rotated(values)), 30, 8, generator=generator())
    assert density.nodes.shape == (8, 2)
    torch.testing.assert_close(
        density.nodes, torch.tensor([[0.0, 10.0]]).double().expand(8, 2), rtol=0, atol=1e-10
    )
    assert density.products == 16
    share = density.weights[:, 1].mean()
    assert float(share) == pytest.approx(0.1, abs=0.05)


def test_spaces_that_close_early_add_no_other_nodes():
    # Of four entries ±1, a vector is a column of the Hadamard matrix or mixes all four equally.
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double()
    values = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    dense = signs @ (values[:, None] * signs) / 4
    density = spectral_density(MatrixOperator(dense), 4, 16, generator=generator())
    closed = (density.weights[:, 0] - 1).abs() < 1e-12
    assert 0 < closed.sum() < 16
    torch.testing.assert_close(density.nodes[closed], density.nodes[closed, :1].expand(-1, 4))
    torch.testing.assert_close(density.nodes[~closed], values.expand(int((~closed).sum()), 4))
    torch.testing.assert_close(
        density.weights[~closed], torch.full_like(density.nodes, 0.25)[~closed]
    )
    assert (density.low, density.high) == (pytest.approx(1), pytest.approx(4))


@pytest.mark.parametrize("level", [0.0, 1.0, -3.0])
def test_single_level_has_a_density(level):
    operator = MatrixOperator(level * torch.eye(9, dtype=torch.float64))
    density = spectral_density(operator, 30, 2, generator=generator())
    points = density.grid()
    found = density.evaluate(points).mean(0)
    assert float(torch.trapezoid(found, points)) == pytest.approx(1, rel=1e-6)
    assert float(points[found.argmax()]) == pytest.approx(level, abs=density.width)


def test_probes_in_several_blocks_are_the_same_probes(monkeypatch):
    operator = MatrixOperator(rotated(torch.randn(60)))
    together = spectral_density(operator, 10, 4, generator=generator())
    monkeypatch.setattr(
        "mining.curvature.operators.available_memory", lambda device: 2 * 60 * 8 * 13
    )
    apart = spectral_density(operator, 10, 4, generator=generator())
    torch.testing.assert_close(together.nodes, apart.nodes, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.weights, apart.weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("steps", "probes"), [(0, 2), (5, 1)])
def test_bad_numbers_are_refused(steps, probes):
    with pytest.raises(ValueError, match="must be at least"):
        spectral_density(MatrixOperator(torch.eye(4)), steps, probes, generator=generator())


def test_operator_that_is_not_symmetric_is_refused():
    lopsided = torch.randn(30, 30, generator=generator())
    with pytest.raises(ValueError, match="not symmetric"):
        spectral_density(MatrixOperator(lopsided), 5, 2, generator=generator())


def test_product_that_is_not_finite_is_said():
    with pytest.raises(ArithmeticError, match="not finite"):
        spectral_density(MatrixOperator(torch.full((5, 5), math.nan)), 5, 2, generator=generator())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_density_on_a_gpu_is_that_on_the_cpu():
    dense = rotated(torch.randn(60))
    found, expected = (
        spectral_density(MatrixOperator(m), 10, 4, generator=generator())
        for m in (dense.cuda(), dense)
    )
    torch.testing.assert_close(found.nodes, expected.nodes, rtol=1e-9, atol=1e-9)
