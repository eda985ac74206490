"""Gradient noise against its definition and against simulations."""

import pytest
import torch

from mining import InputError
from mining.curvature.gradient_noise import gradient_noise


def groups(num, size, mean, generator, scale=None):
    noise = torch.randn(num, size, generator=generator, dtype=torch.float64)
    return mean + noise * (torch.ones(size) if scale is None else scale)


def test_equal_groups_give_the_mean_of_products_of_pairs():
    generator = torch.Generator().manual_seed(0)
    gradients = groups(7, 4, 0.3, generator)
    found = gradient_noise(gradients, torch.full((7,), 1 / 7, dtype=torch.float64))
    gram = gradients @ gradients.T
    pairs = (gram.sum() - gram.trace()) / (7 * 6)
    assert found.norm == pytest.approx(float(gradients.mean(0).norm()))
    assert found.squared_norm == pytest.approx(float(pairs))
    assert found.noise**2 == pytest.approx(float(gradients.var(0).sum()) / 7)


def test_the_estimate_is_unbiased_for_unequal_groups_too():
    generator = torch.Generator().manual_seed(1)
    mean = torch.tensor([0.2, -0.1, 0.0, 0.0, 0.3], dtype=torch.float64)
    sizes = torch.tensor([30, 30, 30, 30, 7], dtype=torch.float64)
    shares = sizes / sizes.sum()
    found = [
        gradient_noise(mean + groups(5, 5, 0, generator) / sizes.sqrt()[:, None], shares)
        for _ in range(1000)
    ]
    squares = torch.tensor([f.squared_norm for f in found])
    assert float(squares.mean()) == pytest.approx(
        float(mean @ mean), abs=4 * float(squares.std()) / 1000**0.5
    )
    noise = torch.tensor([f.noise**2 for f in found]).mean()
    assert float(noise) == pytest.approx(5 / float(sizes.sum()), rel=0.05)
    # The jackknife is conservative.
    errors = torch.tensor([f.squared_norm_error for f in found]).square().mean().sqrt()
    assert 0.95 < float(errors / squares.std()) < 1.6


@pytest.mark.parametrize("spread", ["even", "one dimension"])
def test_the_p_value_of_a_zero_gradient_is_uniform(spread):
    generator = torch.Generator().manual_seed(2)
    scale = torch.ones(20) if spread == "even" else torch.tensor([10.0] + [0.1] * 19)
    shares = torch.full((8,), 1 / 8, dtype=torch.float64)
    found = torch.tensor(
        [gradient_noise(groups(8, 20, 0, generator, scale), shares).p_value for _ in range(400)]
    )
    for level in (0.1, 0.5):  # four standard errors of 400 draws
        share = float((found <= level).double().mean())
        assert share == pytest.approx(level, abs=4 * (level * (1 - level) / 400) ** 0.5)


def test_a_gradient_beyond_the_noise_is_found():
    generator = torch.Generator().manual_seed(3)
    found = gradient_noise(groups(16, 50, 2.0, generator), torch.full((16,), 1 / 16).double())
    assert found.p_value < 0.001
    assert found.norm > 3 * found.noise
    assert abs(found.squared_norm - 200) < 3 * found.squared_norm_error


def test_what_are_no_groups_is_refused():
    with pytest.raises(InputError, match="two groups"):
        gradient_noise(torch.ones(1, 3), torch.ones(1))
    with pytest.raises(InputError, match="sum to 1"):
        gradient_noise(torch.ones(2, 3), torch.tensor([0.5, 0.6]))
