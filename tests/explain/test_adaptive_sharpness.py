"""Adaptive sharpness against its closed form, and its invariance."""

import math

import pytest
import torch
from cases import Quadratic, mean_output
from torch import nn

from mining import InputError, Landscape, eigenpairs
from mining.explain.adaptive_sharpness import adaptive_sharpness


def relu_network(scale=1.0, dtype=torch.float64):
    """Two layers, the first one multiplied by ``scale`` and the second divided by it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).to(dtype)
    with torch.no_grad():
        model[0].weight *= scale
        model[0].bias *= scale
        model[2].weight /= scale
    return model


def batches(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, 6, generator=generator).to(dtype)
    targets = torch.randint(3, (50,), generator=generator)
    return list(zip(inputs.split(32), targets.split(32), strict=True))


@pytest.mark.parametrize("scale", [0.25, 3.0, 100.0])
def test_it_does_not_change_when_layers_are_rescaled(scale):
    plain = Landscape(relu_network(), nn.CrossEntropyLoss(), batches())
    scaled = Landscape(relu_network(scale), nn.CrossEntropyLoss(), batches())
    before, after = (adaptive_sharpness(of, steps=4) for of in (plain, scaled))
    assert after.rises == pytest.approx(before.rises, rel=1e-9)
    largest = [float(eigenpairs(of.hessian()).values[0]) for of in (plain, scaled)]
    assert abs(largest[1] / largest[0] - 1) > 0.1


def test_of_a_quadratic_it_is_the_largest_eigenvalue_of_the_scaled_matrix():
    # At the minimum of ½ (θ - c)ᵀA(θ - c) the maximum is ½ ρ² λmax(TAT).
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix, centre = root @ root.T, torch.randn(6, generator=generator, dtype=torch.float64)
    model = Quadratic(matrix, -matrix @ centre, centre)
    of = Landscape(model, mean_output, [(torch.zeros(2, 1), torch.zeros(2))])
    found = adaptive_sharpness(of, 0.7, steps=200)
    scaled = centre.abs()[:, None] * matrix * centre.abs()
    expected = 0.5 * 0.7**2 * float(torch.linalg.eigvalsh(scaled)[-1])
    assert found.rise == pytest.approx(expected, rel=1e-6)
    relative = found.perturbation / centre.abs()
    assert float(relative.norm()) == pytest.approx(0.7)


def test_the_first_step_is_that_of_asam():
    of = Landscape(relu_network(), nn.CrossEntropyLoss(), batches())
    theta, gradient = of.theta, of.gradient()
    step = 0.5 * theta**2 * gradient / (theta.abs() * gradient).norm()
    expected = float(of.loss(theta + step) - of.loss(theta))
    found = adaptive_sharpness(of, 0.5, steps=3)
    assert found.one_step == pytest.approx(expected)
    assert found.rise >= found.one_step
    assert len(found.rises) == 3
    assert torch.equal(of.theta, theta)


def test_a_loss_that_overflows_is_infinite():
    model = Quadratic(
        1e308 * torch.eye(2).double(), torch.zeros(2).double(), torch.ones(2).double()
    )
    of = Landscape(model, mean_output, [(torch.zeros(2, 1), torch.zeros(2))])
    assert adaptive_sharpness(of, 10.0).rise == math.inf


def test_arguments_out_of_range_are_refused():
    of = Landscape(relu_network(), nn.CrossEntropyLoss(), batches())
    with pytest.raises(InputError, match="rho"):
        adaptive_sharpness(of, 0.0)
    with pytest.raises(InputError, match="steps"):
        adaptive_sharpness(of, steps=0)
    zero = Quadratic(torch.eye(2).double(), torch.ones(2).double(), torch.zeros(2).double())
    with pytest.raises(InputError, match="zero"):
        adaptive_sharpness(Landscape(zero, mean_output, [(torch.zeros(2, 1), torch.zeros(2))]))
