import math

import pytest
import torch

from mining.evaluation.grid import Grid, grid_with_origin


def test_grid_defaults_and_second_axis():
    grid = Grid()
    assert len(grid.alphas) == 41
    assert (float(grid.alphas[0]), float(grid.alphas[-1])) == (-1, 1)
    assert torch.equal(grid.alphas, grid.betas)
    other = Grid(y_low=0, y_high=3, y_num=4)
    assert other.betas.tolist() == [0, 1, 2, 3]
    assert len(Grid(num=4).alphas) == 5


@pytest.mark.parametrize("num", [2, 3, 40, 41, 101])
@pytest.mark.parametrize(
    ("low", "high"), [(-1, 1), (-0.3, 0.7), (-1, 2), (0, 1), (0.5, 1), (-2, -1)]
)
def test_zero_is_always_on_the_grid(low, high, num):
    points = torch.linspace(low, high, num)
    found = grid_with_origin(points)
    assert (found == 0).sum() == 1
    assert (found.diff() > 0).all()
    assert len(found) in (num, num + 1)
    kept = torch.isclose(found[:, None], points.double()[None], atol=1e-6).any(0)
    assert kept.all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"grid.low must lie below grid.high, got 1 and 1"):
        Grid(1, 1)
    with pytest.raises(ValueError, match=r"grid.y_low must lie below"):
        Grid(y_low=3)
    with pytest.raises(ValueError, match=r"grid.num must be at least 2 points, got 1"):
        Grid(num=1)
    for points in ([1.0], [0.0, 0.0], [1.0, 0.0], [0.0, math.inf]):
        with pytest.raises(ValueError, match="alphas must be"):
            grid_with_origin(torch.tensor(points))
