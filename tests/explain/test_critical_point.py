"""The kind of critical point of surfaces for which it is known."""

import math

import pytest
import torch

from mining import Surface, classify_critical_point
from mining.evaluation.grid import grid_with_origin
from mining.explain.critical_point import Kind, lines_through_theta
from mining.explain.labels import Shape


def surface(function, num=21, extent=(1.0, 1.0), chance=None):
    steps = torch.arange(num, dtype=torch.float64) / (num // 2) - 1  # 0 is exactly among them
    alphas, betas = extent[0] * steps, extent[1] * steps
    loss = function(alphas[:, None], betas[None, :]) * torch.ones(num, num)
    return Surface(alphas=alphas, betas=betas, loss=loss, chance_loss=chance)


CASES = [
    (lambda x, y: x**2 + 2 * y**2, Kind.MINIMUM),
    (lambda x, y: 5 - x**2 - 2 * y**2, Kind.MAXIMUM),
    (lambda x, y: 3 + x**2 - 2 * y**2, Kind.SADDLE),
    (lambda x, y: 3 - x**2 + 2 * y**2, Kind.SADDLE),
    (lambda x, y: 3 + x * y, Kind.SADDLE),  # flat along both axes
    (lambda x, y: 3 + x**2 + y**2 - 4 * x * y, Kind.SADDLE),  # minimum along both axes
    (lambda x, y: (x**2 + y**2 - 0.5) ** 2, Kind.MAXIMUM),  # the bottom of a bottle
    (lambda x, y: 3 + x + y**2, Kind.SLOPE),
    (lambda x, y: 3 + x**3 + y, Kind.SLOPE),
    (lambda x, y: 3 + x**2 + 0 * y, Kind.MINIMUM),  # a valley
    (lambda x, y: 3 - y**2 + 0 * x, Kind.MAXIMUM),  # a ridge
    (lambda x, y: 3 + 0 * x * y, Kind.FLAT),
    (lambda x, y: 3 + x**2 + 1e-5 * y, Kind.MINIMUM),  # flat beside the other axis
    (lambda x, y: 1 - torch.cos(2.4 * math.pi * (x - 0.2)) + y**2, Kind.SLOPE),  # of a wave
    (lambda x, y: torch.cos(4 * math.pi * x) + 0 * y, Kind.MAXIMUM),  # of many valleys
    (lambda x, y: 1 - torch.cos(5 * math.pi * x) + y**2, Kind.MINIMUM),
]


@pytest.mark.parametrize(("function", "kind"), CASES)
@pytest.mark.parametrize("extent", [(1.0, 1.0), (0.5, 3.0)])
def test_critical_point_of_a_known_surface(function, kind, extent):
    wide = surface(lambda x, y: function(x / extent[0], y / extent[1]), extent=extent)
    found = classify_critical_point(wide)
    assert found.kind == kind
    assert set(found.lines) == {"x", "y", "diagonal", "antidiagonal"}


def test_lines_are_cuts_through_the_origin():
    cuts = lines_through_theta(surface(lambda x, y: x + 10 * y, num=5, extent=(1.0, 2.0)))
    points = torch.tensor([-1, -0.5, 0, 0.5, 1], dtype=torch.float64)
    assert torch.allclose(cuts["x"].loss, points)
    assert torch.allclose(cuts["y"].loss, 20 * points)
    assert torch.allclose(cuts["y"].alphas, 2 * points)
    assert torch.allclose(cuts["diagonal"].loss, 21 * points)
    assert torch.allclose(cuts["antidiagonal"].loss, -19 * points)


def test_axes_without_common_points_have_no_diagonals():
    alphas = grid_with_origin(torch.linspace(-1, 1, 21))
    betas = grid_with_origin(torch.linspace(-1, 1.55, 11))
    loss = alphas[:, None] ** 2 - betas[None, :] ** 2
    point = classify_critical_point(Surface(alphas=alphas, betas=betas, loss=loss))
    assert point.kind == Kind.SADDLE
    assert point.lines["x"].label == Shape.V_BASIN
    assert point.lines["y"].label == Shape.W_PEAK
    assert str(point).startswith("saddle (x v-basin, y w-peak")


def test_a_surface_that_overflows_still_has_a_minimum():
    steep = surface(lambda x, y: torch.exp(20 * (x**2 + y**2)), chance=1.0)
    found = classify_critical_point(steep)
    assert found.lines["x"].label == Shape.EXPLODED
    assert found.kind == Kind.MINIMUM


def test_the_side_of_a_valley_that_explodes_is_a_slope():
    def loss(x, y):
        return 0.1 + 1.5 * (x - 0.5) ** 2 + 1e7 * torch.relu(-x - 0.6) ** 4 + y**2

    found = classify_critical_point(surface(loss, chance=1.0))
    assert found.lines["x"].label == Shape.EXPLODED
    assert found.kind == Kind.SLOPE


def test_at_the_edge_of_the_window_theta_is_on_a_slope():
    alphas, betas = grid_with_origin(torch.linspace(-1, 1, 21)), torch.linspace(0, 1, 21).double()
    loss = alphas[:, None] ** 2 + betas[None, :]
    assert (
        classify_critical_point(Surface(alphas=alphas, betas=betas, loss=loss)).kind == Kind.SLOPE
    )


def test_a_surface_without_a_finite_point_is_flat():
    assert classify_critical_point(surface(lambda x, y: x * math.nan)).kind == Kind.FLAT


def test_points_without_the_origin_are_refused():
    alphas = torch.tensor([0.5, 1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="must contain 0"):
        classify_critical_point(Surface(alphas=alphas, betas=alphas, loss=torch.zeros(2, 2)))
