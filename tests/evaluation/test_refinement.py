"""Refined surfaces against those of which every point is evaluated."""

import math

import pytest
import torch
from cases import direction, landscape
from torch import Tensor, nn

from mining import Evaluator, Landscape
from mining.evaluation.adaptive import estimate_points, interpolate
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
    assert found[..., 0][~evaluated].isfinite().all()
    smooth = loss[8:-8, 8:-8].log() - found[8:-8, 8:-8, 0].log()  # not next to what is lost
    assert smooth.abs().max() < 0.05
    assert evaluated.double().mean() < 0.5


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


def sampled_surface(seed: int):
    """Estimate a surface whose few hard examples have most of the loss; and the exact one."""
    generator = torch.Generator().manual_seed(0)
    x, y = grid(NUM)
    size = torch.randn(3000, generator=generator, dtype=torch.float64).mul(1.5).exp()
    slope = torch.randn(2, 3000, generator=generator, dtype=torch.float64)
    along = x.reshape(-1, 1) * slope[0] + y.reshape(-1, 1) * slope[1]
    losses = 0.05 * size + (2 * along).clamp(min=0) ** 2 + 0.3 * torch.sin(3 * along) ** 2
    rows = torch.stack([losses, (losses < 0.5).double()], -1)
    evaluations = []

    def measure(points, chosen: Tensor) -> Tensor:
        evaluations.append(len(points) * len(chosen))
        return rows[list(points)][:, chosen]

    origin = NUM // 2 * NUM + NUM // 2
    found, between = estimate_points(
        measure,
        Refinement((NUM, NUM), (NUM // 2, NUM // 2), 0.02, 6.0),
        3000,
        origin,
        tolerance=0.02,
        chance_loss=3.0,
        generator=torch.Generator().manual_seed(seed),
    )
    return interpolate(found, between), between, rows.mean(1), sum(evaluations)


NUM = 17


def test_sampled_and_refined_surfaces_have_errors_that_cover_them():
    between = []
    for seed in range(8):
        found, chosen, exact, evaluations = sampled_surface(seed)
        evaluated = chosen.evaluated
        assert evaluations < 0.25 * 3000 * NUM**2
        assert int(evaluated.sum()) < 0.7 * NUM**2
        error = found.covariance.diagonal().sqrt()
        assert error[NUM // 2 * NUM + NUM // 2] == 0
        for column, (value, spread) in enumerate(
            [(found.loss, error), (found.accuracy, found.accuracy_error)]
        ):
            off = (value - exact[:, column]).abs()
            near = exact[:, 0] < 6  # beyond twice the chance level nothing is resolved
            for points in (evaluated & near, ~evaluated & near):
                covered = (off <= 2 * spread + 1e-12)[points].double().mean()
                between.append((column, float(covered)))
    for column in range(2):
        shares = [share for number, share in between if number == column]
        assert sum(shares) / len(shares) > 0.93


@pytest.mark.parametrize("cap", [math.inf, 0.5])
def test_weights_of_an_interpolation_are_its_derivative(cap):
    generator = torch.Generator().manual_seed(0)
    x, y = grid(17)
    values = torch.stack([(2 + x**2 + y + x * y**3).flatten()] * 2, 1)
    between, known = Refinement((17, 17), (8, 8), 0.05, cap).explore(lambda n: values[n])
    assert not between.evaluated.all()
    change = torch.randn(len(known), generator=generator, dtype=torch.float64)
    step = 1e-3 * torch.stack([change, torch.zeros_like(change)], 1)
    moved = (between.fill(known + step) - between.fill(known - step))[:, 0]
    expected = between.weights(known[:, 0]) @ change
    torch.testing.assert_close(500 * moved, expected, rtol=0, atol=2e-3)


def test_next_to_a_loss_that_overflows_there_is_no_error():
    x, y = grid(17)
    losses = (x**2 + y**2).flatten()[:, None].expand(-1, 50).clone()
    losses[:3] = math.inf

    def measure(points, chosen: Tensor) -> Tensor:
        rows = losses[list(points)][:, chosen]
        return torch.stack([rows, (rows < 1).double()], -1)

    found, between = estimate_points(
        measure, Refinement((17, 17), (8, 8), 0.2, 1.0), 50, 8 * 17 + 8,
        tolerance=0.1, chance_loss=0.5, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    error = interpolate(found, between).covariance.diagonal()
    assert not between.evaluated[1]
    assert error[1].isnan()
    assert (error.view(17, 17)[8:] >= 0).all()


def test_refined_surface_to_a_tolerance(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.BatchNorm1d(16), nn.Linear(16, 3))
    batches = [(torch.randn(250, 4), torch.randint(3, (250,))) for _ in range(6)]
    of = Landscape(model, nn.CrossEntropyLoss(), batches)
    test = [(torch.randn(700, 4), torch.randint(3, (700,)))]
    x, y, axis = direction(of, 0), direction(of, 1), torch.linspace(-0.3, 0.3, 17)
    exact = Evaluator(of, test=test, progress=False).surface(x, y, axis, axis)

    def run():
        options = {"tolerance": 0.02, "refine": 0.05, "journal": tmp_path / "points.csv"}
        return Evaluator(of, test=test, progress=False, **options).surface(x, y, axis, axis)

    found = run()
    assert 0 < int(found.evaluated.sum()) < 17**2
    for name in ("loss", "loss_test"):
        off = (getattr(found, name) - getattr(exact, name)).abs()
        error = getattr(found, f"{name}_error")
        assert (off <= 4 * error + 1e-6).all()  # they share examples, and are off together
        assert error[8, 8] == 0
        assert (error[~found.evaluated] > 0).all()
    lines = (tmp_path / "points.csv").read_text().splitlines(keepends=True)
    (tmp_path / "points.csv").write_text("".join(lines[: len(lines) // 2]))
    assert torch.equal(run().loss, found.loss)
    assert (tmp_path / "points.csv").read_text().splitlines(keepends=True) == lines
    save_surface(tmp_path / "surface.npz", found)
    loaded = load_surface(tmp_path / "surface.npz")
    assert torch.equal(loaded.evaluated, found.evaluated)
    assert torch.equal(loaded.loss_error, found.loss_error)


def test_wrong_refinements_are_refused():
    of = landscape()
    for refine in (0.0, 1.0):
        with pytest.raises(ValueError, match="refine must lie between 0 and 1"):
            Evaluator(of, refine=refine)
