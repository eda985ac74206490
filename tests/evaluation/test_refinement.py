"""Refined surfaces against those of which every point is evaluated."""

import math

import pytest
import torch
from cases import direction, landscape
from torch import Tensor

from mining import Evaluator
from mining.evaluation.refinement import Refinement
from mining.evaluation.storage import load_surface, save_surface


def grid(num: int) -> tuple[Tensor, Tensor]:
    axis = torch.linspace(-1, 1, num, dtype=torch.float64)
    return torch.meshgrid(axis, axis, indexing="ij")


def refined(loss: Tensor, deviation: float, cap: float = math.inf):
    """Give the refined loss, which points were evaluated, and the order in which they were."""
    asked: list[int] = []

    def measure(numbers):
        asked.extend(numbers)
        return torch.stack([loss.flatten()[numbers], -loss.flatten()[numbers]], 1)

    origin = (loss.shape[0] // 2, loss.shape[1] // 2)
    values, evaluated = Refinement(tuple(loss.shape), origin, deviation, cap)(measure)
    assert len(asked) == len(set(asked)) == int(evaluated.sum())
    return values.view(*loss.shape, 2), evaluated.view(loss.shape)


def test_a_well_is_resolved_and_the_plain_around_it_interpolated():
    x, y = grid(41)
    loss = 0.2 * x - 0.1 * y - torch.exp(-((x - 0.1) ** 2 + y**2) / 0.02)
    found, evaluated = refined(loss, 0.01)
    assert (found[..., 0] - loss).abs().max() < 0.02 * float(loss.max() - loss.min())
    assert torch.equal(found[..., 0][evaluated], loss[evaluated])
    assert torch.equal(found[..., 1][evaluated], -loss[evaluated])
    assert evaluated.double().mean() < 0.5
    assert evaluated[20:25, 18:23].all()
    assert not evaluated[:8, :8].all()


def test_a_plane_needs_no_more_than_the_coarse_grid_and_one_look_at_every_cell():
    x, y = grid(33)
    found, evaluated = refined(x + 2 * y, 0.01)
    torch.testing.assert_close(found[..., 0], x + 2 * y, rtol=0, atol=1e-6)
    assert int(evaluated.sum()) == 9**2 + 8**2  # the coarse grid and the middles of its cells


def test_the_smallest_deviation_evaluates_a_rough_surface_everywhere():
    loss = torch.randn(20, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, evaluated = refined(loss, 1e-9)
    assert evaluated.all()
    assert torch.equal(found[..., 0], loss)


def test_what_overflows_far_away_is_not_resolved():
    x, y = grid(41)
    loss = (5 * (x**2 + y**2)).exp() ** 4
    loss[0] = math.inf
    loss[-1, 5] = math.nan
    found, evaluated = refined(loss, 0.02, cap=4.0)
    inside = loss < 4
    assert (found[..., 0] - loss)[inside].abs().max() < 0.2
    assert (found[..., 0][~evaluated] <= 4.5).all()
    assert evaluated.double().mean() < 0.8


@pytest.mark.parametrize("name", ["mlp", "batchnorm"])
def test_refined_surface_of_a_landscape(name, tmp_path):
    of, axis = landscape(name), torch.linspace(-1, 1, 17)
    x, y = direction(of, 0), direction(of, 1)
    evaluator = Evaluator(of, refine=0.05, progress=False, journal=tmp_path / "points.csv")
    found = evaluator.surface(x, y, axis, axis)
    exact = Evaluator(of, progress=False).surface(x, y, axis, axis)
    torch.testing.assert_close(found.loss[found.evaluated], exact.loss[found.evaluated])
    assert found.evaluated[8, 8]
    assert 0 < int(found.evaluated.sum()) < 17**2
    again = evaluator.surface(x, y, axis, axis)
    assert torch.equal(again.loss, found.loss)
    assert len((tmp_path / "points.csv").read_text().splitlines()) == 1 + found.evaluated.sum()
    save_surface(tmp_path / "surface.npz", found)
    assert torch.equal(load_surface(tmp_path / "surface.npz").evaluated, found.evaluated)


def test_wrong_refinements_are_refused():
    of = landscape()
    for refine in (0.0, 1.0):
        with pytest.raises(ValueError, match="refine must lie between 0 and 1"):
            Evaluator(of, refine=refine)
    with pytest.raises(ValueError, match="refine and tolerance cannot be combined"):
        Evaluator(of, tolerance=0.1, refine=0.1)
