"""Losses from a subset of the examples against those of all of them."""

import math

import numpy as np
import pytest
import torch
from cases import build, direction, examples, landscape
from torch import Tensor, nn

from mining import (
    Curve,
    Evaluator,
    ExecutionPlan,
    Landscape,
    Surface,
    classify,
    classify_critical_point,
)
from mining.evaluation.adaptive import SampledValues, estimate_points
from mining.evaluation.sampling import StratifiedSample
from mining.evaluation.storage import load_curves, load_surface, save_curves, save_surface
from mining.explain.curve_shape import count_stationary_points
from mining.explain.noise import count_turns, difference_bounds, draw_values

NUM_EXAMPLES, NUM_POINTS, ORIGIN = 5000, 15, 7
CHANCE = 3.0


def losses_like_those_of_a_network(seed: int = 0) -> Tensor:
    """A few examples have nearly all of the loss at θ, and many get one farther away, (P, N)."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randn(NUM_EXAMPLES, generator=generator, dtype=torch.float64).mul(2).exp()
    slope = torch.randn(NUM_EXAMPLES, generator=generator, dtype=torch.float64)
    alphas = torch.linspace(-1, 1, NUM_POINTS, dtype=torch.float64)
    return 0.05 * size + (3 * alphas[:, None] * slope).clamp(min=0) ** 2


def estimate(
    losses: Tensor, tolerance: float = 0.02, seed: int = 0, correct: Tensor | None = None
) -> SampledValues:
    correct = (losses < 1).double() if correct is None else correct

    def measure(points, chosen: Tensor) -> Tensor:
        return torch.stack([rows[list(points)][:, chosen] for rows in (losses, correct)], -1)

    found, _ = estimate_points(
        measure,
        range(len(losses)),
        losses.shape[1],
        ORIGIN,
        tolerance=tolerance,
        chance_loss=CHANCE,
        generator=torch.Generator().manual_seed(seed),
    )
    return found


def test_estimates_reach_the_tolerance_and_their_errors_are_true():
    """Deviations in units of the standard error, over 40 draws, have a mean square near 1.

    Rare large losses, and stopping early where none was drawn, make it somewhat larger: 1.18 is
    what 30 other draws gave, with 1 % of deviations beyond 3.
    """
    losses = losses_like_those_of_a_network()
    truth = losses.mean(1)
    deviations, steps, evaluations = [], [], []
    for seed in range(40):
        found = estimate(losses, seed=seed)
        errors = found.covariance.diagonal().sqrt()
        assert found.loss[ORIGIN] == pytest.approx(float(truth[ORIGIN]), rel=1e-12)
        assert errors[ORIGIN] == 0
        below = found.loss < CHANCE
        assert (errors[below] <= 0.02 * found.loss[below]).all()
        estimated = errors > 0
        deviations.append(((found.loss - truth) / errors)[estimated])
        differences = found.loss.diff() - truth.diff()
        c = found.covariance
        step_errors = (c.diagonal()[1:] + c.diagonal()[:-1] - 2 * c.diagonal(1)).sqrt()
        steps.append((differences / step_errors)[step_errors > 0])
        evaluations.append(found.evaluations / losses.numel())
    for values in (torch.cat(deviations), torch.cat(steps)):
        assert 0.85 < values.square().mean().sqrt() < 1.3
        assert (values.abs() > 3).double().mean() < 0.025
    assert max(evaluations) < 0.6


def test_losses_of_a_few_examples_are_not_taken_for_none():
    """A hinge: one example in a hundred has a loss at θ, and others at other points.

    Of 16 other draws 1.6 % to 2.3 % of deviations were beyond 3 standard errors; where an error was
    taken for true however few examples it rested on, 4 %, a third of them far beyond.
    """
    generator = torch.Generator().manual_seed(0)
    margins = torch.randn(NUM_EXAMPLES, generator=generator, dtype=torch.float64) + 3.5
    noise = torch.randn(NUM_POINTS, NUM_EXAMPLES, generator=generator, dtype=torch.float64)
    alphas = torch.linspace(-1, 1, NUM_POINTS, dtype=torch.float64)[:, None]
    losses = (1 - margins + alphas * noise).clamp(min=0)
    truth = losses.mean(1)
    worst = []
    for seed in range(8):
        found = estimate(losses, tolerance=0.1, seed=seed)
        worst.append(float(((found.loss - truth) / truth).abs().max()))
    assert max(worst) < 0.4
    none = torch.zeros(NUM_POINTS, NUM_EXAMPLES, dtype=torch.float64)
    none[3, 17] = 5.0
    found = estimate(none)
    torch.testing.assert_close(found.loss, none.mean(1))


def test_differences_are_known_better_than_losses():
    """With a part common to all points, which cancels, the loss cannot be known so well."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(NUM_EXAMPLES, generator=generator, dtype=torch.float64).exp()
    own = 0.01 * torch.randn(NUM_POINTS, NUM_EXAMPLES, generator=generator, dtype=torch.float64)
    pilot = torch.randperm(NUM_EXAMPLES, generator=generator)[:500].sort().values
    sample = StratifiedSample(torch.empty(NUM_EXAMPLES, 0), pilot, generator)
    found = sample.estimate(list((common + own)[:, pilot]))
    c = found.covariance
    errors = (c[0, 0] + c[1, 1] - 2 * c[0, 1]).sqrt()
    assert errors < 0.05 * c[0, 0].sqrt()
    assert errors == pytest.approx(0.01 * math.sqrt(2 / 500), rel=0.15)
    assert float(c[0, 0].sqrt()) == pytest.approx(float(common.std() / math.sqrt(500)), rel=0.25)


def test_covariance_of_nested_subsets_by_simulation():
    """Two points that have seen 200 and 400 of 1,000 examples."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.randn(2, 1000, generator=generator, dtype=torch.float64)
    losses[1] += losses[0]
    means, predicted = [], []
    for _ in range(2000):
        order = torch.randperm(1000, generator=generator)[:400]
        sample = StratifiedSample(torch.empty(1000, 0), order, generator)
        found = sample.estimate([losses[0, order[:200]], losses[1, order]])
        means.append(found.mean)
        predicted.append(found.covariance)
    observed = torch.cov(torch.stack(means).T)
    # 2,000 draws know a covariance to 3 %.
    torch.testing.assert_close(torch.stack(predicted).mean(0), observed, rtol=0.12, atol=0)


def test_what_controls_explain_has_no_error():
    generator = torch.Generator().manual_seed(0)
    controls = torch.rand(1000, 2, generator=generator, dtype=torch.float64)
    losses = controls @ torch.tensor([2.0, -1.0], dtype=torch.float64) + 3
    pilot = torch.randperm(1000, generator=generator)[:100].sort().values
    sample = StratifiedSample(controls, pilot, generator)
    found = sample.judge(losses[pilot])
    assert found.mean == pytest.approx(float(losses.mean()), rel=1e-10)
    assert found.error < 1e-10
    assert found.num_effective == 0  # and so no error to be trusted


def test_all_examples_leave_no_error():
    losses = losses_like_those_of_a_network()
    found = estimate(losses, tolerance=1e-6)
    below = losses.mean(1) < CHANCE
    torch.testing.assert_close(found.loss[below], losses.mean(1)[below], rtol=1e-5, atol=0)
    assert (found.covariance.diagonal()[below].sqrt() <= 1e-6 * found.loss[below]).all()


def test_examples_draw_themselves_and_none_twice():
    generator = torch.Generator().manual_seed(0)
    controls = torch.rand(1000, 1, generator=generator)
    pilot = torch.randperm(1000, generator=generator)[:100].sort().values
    sample = StratifiedSample(controls, pilot, generator)
    spreads = torch.zeros(6, dtype=torch.float64)
    spreads[-1] = 1.0
    while not sample.exhausted:
        before = len(sample.order)
        new = sample.grow(spreads)
        assert len(new) > 0
        assert len(sample.order) == before + len(new)
    assert sample.order.sort().values.tolist() == list(range(1000))


def test_points_that_are_not_finite_are_said_to_be_so():
    losses = losses_like_those_of_a_network()
    losses[0, 3::7] = math.inf
    losses[1, 5::9] = math.nan
    found = estimate(losses)
    assert found.loss[0] == math.inf
    assert math.isnan(found.loss[1])
    assert not found.covariance[0].isfinite().any()
    assert found.covariance[2:, 2:].isfinite().all()


def learnt(name: str, num: int) -> list[tuple[Tensor, Tensor]]:
    """Examples of which a network knows nine in ten."""
    inputs, targets = examples(num)
    with torch.no_grad():
        known = build(name).eval()(inputs).argmax(1)
    targets[: num * 9 // 10] = known[: num * 9 // 10]
    return list(zip(inputs.split(128), targets.split(128), strict=True))


def large_landscape(name: str = "batchnorm", policy: str = "frozen", loss_fn=None):
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    return Landscape(build(name), loss_fn, learnt(name, 1500), batchnorm=policy)


@pytest.mark.parametrize(("name", "policy"), [("batchnorm", "recalibrate"), ("mlp", "frozen")])
def test_curve_to_a_tolerance(name, policy, tmp_path):
    of = large_landscape(name, policy)
    test = learnt(name, 1200)
    alphas = torch.linspace(-0.3, 0.3, 9)
    exact, found = (
        Evaluator(of, test=test, tolerance=tolerance, progress=False).curve(direction(of), alphas)
        for tolerance in (None, 0.02)
    )
    assert exact.loss_error is None
    assert exact.difference_error(0, 1) == 0
    assert found.loss[found.origin] == pytest.approx(float(exact.loss[exact.origin]), rel=1e-12)
    for key in ("loss", "loss_test"):
        covariance = getattr(found, f"{key}_covariance")
        errors = covariance.diagonal().sqrt()
        assert ((getattr(found, key) - getattr(exact, key)).abs() <= 4 * errors + 1e-12).all()
    assert (found.accuracy - exact.accuracy).abs().max() < 0.1
    assert 0 < found.relative_error <= 0.02
    assert found.difference_error(3, 3) == 0
    assert found.difference_error(3, found.origin) == pytest.approx(float(found.loss_error[3]))
    save_curves(tmp_path / "curves.npz", [found])
    (loaded,) = load_curves(tmp_path / "curves.npz")
    assert torch.equal(loaded.loss_covariance, found.loss_covariance)
    assert torch.equal(loaded.accuracy_error, found.accuracy_error)


def test_surface_to_a_tolerance(tmp_path):
    of = large_landscape()
    axis = torch.linspace(-0.5, 0.5, 3)
    x, y = direction(of, 0), direction(of, 1)
    exact, found = (
        Evaluator(of, tolerance=tolerance, progress=False).surface(x, y, axis, axis)
        for tolerance in (None, 0.02)
    )
    assert ((found.loss - exact.loss).abs() <= 4 * found.loss_error + 1e-12).all()
    assert found.loss_error[1, 1] == 0
    # One step from θ, which is exact, has the error of where it leads.
    torch.testing.assert_close(found.x_step_error[1, 1], found.loss_error[2, 1])
    torch.testing.assert_close(found.y_step_error[1, 0], found.loss_error[1, 0])
    save_surface(tmp_path / "surface.npz", found)
    loaded = load_surface(tmp_path / "surface.npz")
    for name in ("x_step_error", "accuracy_error", "lines_covariance"):
        assert torch.equal(getattr(loaded, name), getattr(found, name))
    x_variances = found.lines_covariance.diagonal()[:3]
    torch.testing.assert_close(x_variances.sqrt(), found.loss_error[:, 1])
    assert found.accuracy_error[1, 1] == 0
    assert (found.accuracy_error[0] > 0).all()
    assert exact.accuracy_error is None


def test_interrupted_estimate_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    of, journal = large_landscape(), tmp_path / "points.csv"

    def run():
        evaluator = Evaluator(of, tolerance=0.01, journal=journal, progress=False)
        return evaluator.curve(direction(of), torch.linspace(-0.2, 0.2, 5))

    expected = run()
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) > 7  # more than θ and the first tries
    journal.write_text("".join(lines[:7]) + lines[7][:20])
    found = run()
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.loss_covariance, expected.loss_covariance)
    assert journal.read_text().splitlines(keepends=True) == lines


def test_what_tolerance_does_not_work_for_is_refused():
    of = landscape()
    for tolerance in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="tolerance must lie between 0 and 1"):
            Evaluator(of, tolerance=tolerance)
    with pytest.raises(ValueError, match="batchnorm=recalibrate or frozen"):
        Evaluator(large_landscape(policy="batch"), tolerance=0.1)
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64))
    with pytest.raises(ValueError, match="plain mean"):
        Evaluator(large_landscape("mlp", loss_fn=weighted), tolerance=0.1)


def test_losses_without_accuracy_are_estimated():
    inputs, _ = examples(1500)
    targets = torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)).double()
    batches = list(zip(inputs.split(100), targets.split(100), strict=True))
    of = Landscape(build("mlp"), nn.MSELoss(), batches)
    found = Evaluator(of, tolerance=0.05, progress=False).curve(
        direction(of), torch.linspace(-1, 1, 5)
    )
    assert found.accuracy is None
    assert 0 < found.relative_error <= 0.05


def test_passes_stay_as_large_as_those_of_the_loader():
    sizes = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return self.linear(x.flatten(1))

    of = Landscape(
        Watching().double(), nn.CrossEntropyLoss(), learnt("mlp", 1500), plan=ExecutionPlan()
    )
    Evaluator(of, tolerance=0.05, progress=False).curve(direction(of), torch.linspace(-1, 1, 3))
    assert max(sizes) == 128


def test_class_weights_are_seen_in_half_precision():
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 0.2], dtype=torch.bfloat16))
    model = build("mlp", torch.bfloat16)
    inputs, targets = examples(1000, torch.bfloat16)
    of = Landscape(model, weighted, [(inputs, targets)])
    with pytest.raises(ValueError, match="plain mean"):
        Evaluator(of, tolerance=0.1)


def test_few_examples_are_all_evaluated():
    of = landscape()
    inputs, _ = examples()
    assert len(inputs) == of.num_examples == 70
    alphas = torch.linspace(-1, 1, 5)
    exact, found = (
        Evaluator(of, tolerance=tolerance, progress=False).curve(direction(of), alphas)
        for tolerance in (None, 0.5)
    )
    torch.testing.assert_close(found.loss, exact.loss)
    assert (found.loss_error == 0).all()


@pytest.mark.parametrize(("tolerance", "threshold"), [(0.1, 0.02), (0.04, 1.0), (0.1, 60.0)])
def test_errors_of_the_accuracy_cover_it(threshold, tolerance):
    """An example is correct where its loss is low: between 16 % and all but one of them are."""
    losses = losses_like_those_of_a_network()
    correct = (losses < threshold).double()
    truth, covered = correct.mean(1), []
    for seed in range(12):
        found = estimate(losses, tolerance, seed, correct)
        assert found.accuracy_error[ORIGIN] == 0
        assert found.accuracy[ORIGIN] == pytest.approx(float(truth[ORIGIN]), rel=1e-12)
        rest = torch.arange(NUM_POINTS) != ORIGIN
        assert (found.accuracy_error[rest] > 0).all()  # also where all of a subset were correct
        inside = (found.accuracy - truth).abs() <= 2 * found.accuracy_error
        covered.append(inside[rest].double().mean())
    # 60 other draws gave 95.4 % to 100 %. The points share the examples, so the 14 of one draw are
    # hardly more than one: four standard deviations of the mean of 12 are 25 %.
    assert torch.stack(covered).mean() > 0.7


@pytest.mark.parametrize("share", [0.0, 0.003, 0.01, 0.99, 0.997, 1.0])
def test_errors_of_rare_mistakes_cover_them(share):
    """One subset in twenty has none where three are expected: its error says so all the same."""
    generator = torch.Generator().manual_seed(0)
    draws, inside, narrowest = 250, 0, math.inf
    for _ in range(draws):
        correct = (torch.rand(1000, generator=generator) < share).double()
        controls = torch.rand(1000, 1, generator=generator, dtype=torch.float64)
        pilot = torch.randperm(1000, generator=generator)[:300].sort().values
        sample = StratifiedSample(controls, pilot, generator)
        mean, error = sample.share(correct[pilot])
        assert 0 <= mean <= 1
        narrowest = min(narrowest, error)
        inside += abs(mean - float(correct.mean())) <= 2 * error
    # Of 250 draws 92 % are inside with a probability of 99 % where 95 % are meant.
    assert inside / draws > 0.92
    assert narrowest > 1 / 300


def test_accuracy_of_a_point_that_overflows_late_is_weighted_too():
    """Examples that are drawn more often than others must not count more often."""
    losses = losses_like_those_of_a_network()
    correct = (losses < 1).double()
    rare = losses.clone()
    rare[1, losses[ORIGIN].argmax()] = math.inf  # of one example, drawn sooner or later
    deviations = []
    for seed in range(6):
        found = estimate(rare, 0.05, seed, correct)
        deviations.append(float((found.accuracy[1] - correct[1].mean()) / found.accuracy_error[1]))
    assert max(map(abs, deviations)) < 4
    assert abs(sum(deviations) / 6) < 1.7  # four standard errors of the mean


def test_labels_know_the_errors():
    """Losses estimated to a few per cent: labels that stay are certain, one that might is not."""
    axis = torch.linspace(-1, 1, 41, dtype=torch.float64)
    axis[20] = 0.0
    generator = torch.Generator().manual_seed(0)

    def curve(loss: Tensor, error: float) -> Curve:
        """θ is exact, and errors are independent: the worst case for labels."""
        covariance = error**2 * torch.diag((axis != 0).double())
        noise = error * torch.randn(41, generator=generator, dtype=torch.float64) * (axis != 0)
        return Curve(axis, loss + noise, loss_covariance=covariance)

    peak = 4 * (axis**2 - 0.4) ** 2  # 0.64 at θ, 1.44 at the ends
    exact = classify(Curve(axis, peak))
    assert exact.label_probability == 1
    assert exact.certain
    for error in (0.003, 0.03):
        found = classify(curve(peak, error))
        assert found.label == "w-peak"
        assert found.certain
        assert found.stationary_points == 3  # and not the ten to twenty of the noise
        assert found.description == "w-peak"
    lost = classify(curve(peak, 0.4))
    assert not lost.certain
    assert "(uncertain: " in lost.description
    # A barrier of a tenth of the range is there, unless it is no more than the errors.
    ripple = axis**2 + 0.25 * torch.exp(-((axis - 0.5) ** 2) / 0.005)
    assert len(classify(Curve(axis, ripple)).valleys) == 2
    blurred = classify(curve(ripple, 0.06))
    assert len(blurred.valleys) == 1
    nothing = classify(curve(torch.full_like(axis, 2.0), 0.01))
    assert nothing.label == "flat"
    assert nothing.stationary_points == 0
    # Errors that all points share move the curve, not its shape.
    common = Curve(axis, peak, loss_covariance=torch.full((41, 41), 0.04, dtype=torch.float64))
    assert classify(common).certain


def test_no_more_stationary_points_than_errors_allow():
    """Of a parabola with noise the paper's count is five to twenty, and one exceeds its errors."""
    axis = torch.linspace(-1, 1, 41, dtype=torch.float64)
    covariance = 0.02**2 * torch.eye(41, dtype=torch.float64)
    bounds = difference_bounds(covariance, np.zeros(41, dtype=bool))
    drawn = draw_values(axis**2, covariance)
    assert np.mean([count_stationary_points(torch.from_numpy(loss)) for loss in drawn]) > 5
    # 95 % are meant; four standard deviations of a share of 200 are 6 %.
    assert np.mean([count_turns(loss, bounds) == 1 for loss in drawn]) > 0.89
    assert count_turns((axis**2).numpy(), np.zeros((41, 41))) == 1
    assert count_turns(torch.sin(9 * axis).numpy(), np.zeros((41, 41))) == 6


def test_kind_of_a_critical_point_knows_the_errors():
    axis = torch.linspace(-1, 1, 9, dtype=torch.float64)
    saddle = axis[:, None] ** 2 - axis**2
    num = sum(len(i) for i, _ in Surface(axis, axis, saddle).lines.values())
    for error, certain in ((0.01, True), (0.5, False)):
        covariance = error**2 * torch.eye(num, dtype=torch.float64)
        found = classify_critical_point(Surface(axis, axis, saddle, lines_covariance=covariance))
        assert (found.probability >= 0.95) == certain
        assert found.lines["x"].certain == certain
        assert ("uncertain" in str(found)) != certain
    assert classify_critical_point(Surface(axis, axis, saddle)).probability == 1
