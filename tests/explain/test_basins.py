"""Basins of surfaces and of clouds of points, against closed forms and against gudhi."""

import gudhi
import numpy as np
import pytest
import torch

from mining import InputError, Surface, find_basins, find_basins_of_points

AXIS = torch.linspace(-2, 2, 41, dtype=torch.float64)


def surface(loss, **fields):
    return Surface(AXIS, AXIS, loss, **fields)


def double_well(tilt=0.0):
    """(α² - 1)² + β² + tilt·α: bottoms at α ≈ ±1, a saddle at α ≈ 0 of height 1."""
    a, b = torch.meshgrid(AXIS, AXIS, indexing="ij")
    return (a**2 - 1) ** 2 + b**2 + tilt * a


def test_a_double_well_has_two_basins_and_a_saddle():
    deep, shallow = find_basins(surface(double_well(0.2)))
    assert deep.at == pytest.approx((-1, 0))
    assert (deep.saddle, deep.joins) == (None, None)
    assert deep.depth == pytest.approx(float(double_well(0.2).max()) + 0.2)
    assert shallow.at == pytest.approx((1, 0))
    assert shallow.joins == 0
    # The top between them is at α = 0.05, half-way between two points.
    assert shallow.saddle == pytest.approx((0.1, 0))
    assert shallow.saddle_loss == pytest.approx(1, rel=1e-3)
    assert shallow.depth == pytest.approx(1 - 0.2, rel=1e-3)
    assert not shallow.on_edge


def test_the_loss_is_clipped_at_the_chance_level_and_gaps_are_walls():
    loss = double_well(0.2)
    loss[5, 5] = torch.nan
    found = find_basins(Surface(AXIS + 1, AXIS, loss * 10, chance_loss=5.0))
    # θ is in the deep basin. The saddle, of height 10, is above the chance level.
    assert [basin.depth for basin in found] == pytest.approx([7.0, 3.0])
    assert found[1].saddle_loss == 5.0


def test_shallow_basins_and_those_within_their_error_do_not_count():
    loss = double_well(0.2)
    assert len(find_basins(surface(loss), least_depth=0.5)) == 1
    errors = torch.full_like(loss, 0.18)  # of the depth of 0.8: 0.25, of which three are 0.76
    assert len(find_basins(surface(loss, loss_error=errors))) == 2
    assert len(find_basins(surface(loss, loss_error=errors * 1.1))) == 1


def test_a_slope_has_one_basin_at_its_edge():
    (only,) = find_basins(surface(AXIS[:, None].expand(41, 41) + 3))
    assert (only.at[0], only.on_edge) == (-2.0, True)


@pytest.mark.parametrize("seed", range(5))
def test_depths_are_the_persistence_that_gudhi_computes(seed):
    generator = torch.Generator().manual_seed(seed)
    loss = torch.randn(12, 9, generator=generator, dtype=torch.float64)
    found = find_basins(Surface(torch.arange(12.0), torch.arange(9.0), loss), least_depth=0)
    complex_ = gudhi.CubicalComplex(vertices=loss.numpy())
    complex_.compute_persistence(min_persistence=0)
    pairs = complex_.persistence_intervals_in_dimension(0)
    finite = sorted((death - birth for birth, death in pairs if np.isfinite(death)), reverse=True)
    assert [basin.depth for basin in found[1:]] == pytest.approx(finite)


def test_a_chain_of_basins_joins_the_deeper_neighbour():
    loss = torch.tensor([0.0, 3.0, 1.0, 2.0, 1.5, 5.0], dtype=torch.float64)
    rows = loss[:, None].expand(6, 2)
    found = find_basins(Surface(torch.arange(6.0), torch.arange(2.0), rows))
    assert [(b.at[0], b.depth, b.joins) for b in found] == [(0, 5, None), (2, 2, 0), (4, 0.5, 1)]
    # Without the one between them, the last joins the first.
    assert [b.joins for b in find_basins(Surface(AXIS[:6], AXIS[:2], rows), 0.3)] == [None, 0]


def test_scattered_points_find_the_basins_of_the_function():
    generator = torch.Generator().manual_seed(0)
    points = 4 * torch.rand(4000, 2, generator=generator, dtype=torch.float64) - 2
    a, b = points.T
    losses = (a**2 - 1) ** 2 + b**2 + 0.2 * a
    deep, shallow = find_basins_of_points(points, losses, least_depth=0.05)
    assert np.allclose(deep.at, (-1, 0), atol=0.1)
    assert np.allclose(shallow.at, (1, 0), atol=0.1)
    assert shallow.depth == pytest.approx(0.8, abs=0.05)
    assert shallow.on_edge is None


def test_bad_input_is_refused():
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="shape"):
        find_basins_of_points(points, torch.zeros(19))
    with pytest.raises(InputError, match="neighbors must be between 1 and 19"):
        find_basins_of_points(points, torch.zeros(20), neighbors=20)
    with pytest.raises(InputError, match=r"2 neighbors leave the points in \d+ parts"):
        find_basins_of_points(torch.cat([points, points + 100]), torch.zeros(40), neighbors=2)
    with pytest.raises(InputError, match="finite"):
        find_basins_of_points(points, torch.full((20,), torch.inf))
    with pytest.raises(InputError, match="least_depth"):
        find_basins(surface(double_well()), 1.0)
    with pytest.raises(InputError, match="no basin"):
        find_basins(surface(torch.full((41, 41), torch.nan)))
