"""Directions found by optimization: where the answer is known, and how they behave."""

import math
from dataclasses import replace

import pytest
import torch
from cases import (
    assert_unchanged,
    build,
    examples,
    landscape,
    loader,
    mean_output,
    snapshot,
)
from torch import nn

from mining import (
    Descent,
    Evaluator,
    Landscape,
    Multipoint,
    Xu2024VVVBasin,
    Xu2024WPeak,
    classify,
    mine,
)
from mining.directions import cosine
from mining.evaluation.curves import Curve, rmse
from mining.explain.labels import Shape
from mining.functional.batches import joined
from mining.training import Loop, loop

SHORT = Descent(epochs=3, batch_size=16, lr=0.05)
MINERS = [
    Xu2024WPeak(SHORT),
    Xu2024VVVBasin(dict(build("batchnorm", seed=9).state_dict()), descent=SHORT),
    Multipoint(descent=SHORT),
    Xu2024WPeak(replace(SHORT, momentum=0.9)),
    Multipoint(basins=2, descent=replace(SHORT, optimizer="adam", schedule="cosine")),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class OneNumber(nn.Module):
    """Outputs a function of its parameters, so that the loss is that function."""

    def __init__(self, function, *start):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.function = function

    def forward(self, inputs):
        return self.function(self.theta).expand(len(inputs))


def landscape_of(function, *start, num_examples=64):
    loader = [(torch.zeros(num_examples, 1), torch.zeros(num_examples))]
    return Landscape(OneNumber(function, *start), mean_output, loader)


def saddle(theta):
    """Negative curvature along the second axis alone, bounded from below."""
    x, y, z = theta
    return x**2 - 0.5 * y**2 + 0.25 * y**4 + 0.5 * z**2


def wells(theta):
    """Minima along x at every half; midway only y = 0.2 is low, at 0 and 1 every y is."""
    x, y = theta
    return torch.sin(2 * math.pi * x) ** 2 + 4 * torch.sin(math.pi * x) ** 2 * (y - 0.2) ** 2


def test_w_peak_finds_the_negative_direction_of_a_saddle():
    # Off the saddle by a little: from it the gradient is zero, and nothing would move.
    of = landscape_of(saddle, 1e-3, 1e-3, 1e-3)
    source = Xu2024WPeak(Descent(epochs=60, batch_size=4, lr=0.2))
    (found,) = source.directions(of, 1, generator=generator())
    assert abs(cosine(found.vector, torch.tensor([0.0, 1.0, 0.0]))) > 0.999
    curve = Evaluator(of).curve(found, torch.linspace(-1, 1, 41))
    assert classify(curve).label == Shape.W_PEAK
    assert curve.loss.min() < of.loss(of.theta) - 0.1


def test_vvv_basin_finds_the_third_well():
    of = landscape_of(wells, 0.0, 0.0)
    start = {"theta": torch.tensor([1.1, -2.0], dtype=torch.float64)}
    recipe = Descent(epochs=300, batch_size=8, lr=0.005)
    source = Xu2024VVVBasin(start, gamma=0.5, descent=recipe)
    (found,) = source.directions(of, 1, generator=generator())
    # Low at φ itself says nothing of y; that y/2 is 0.2 comes of the loss midway.
    assert found.vector.tolist() == pytest.approx([1.0, 0.4], abs=1e-3)
    assert found.other_alpha == 1.0
    shape = classify(Evaluator(of).curve(found, torch.linspace(-0.2, 1.2, 57)))
    assert shape.label == Shape.VVV_BASIN
    assert [alpha for alpha, _ in shape.valleys] == pytest.approx([0, 0.5, 1], abs=1e-6)
    indifferent = replace(source, gamma=1e-9)
    (other,) = indifferent.directions(of, 1, generator=generator())
    assert other.vector[1] < 0


def test_vvv_basin_descends_along_the_printed_gradient():
    """One step from φ: φ - η(∇L(φ) + γλ∇L(φ̂)) with λ = ½."""
    of = landscape_of(lambda t: (t**3).sum(), 1.0, 2.0)
    start = {"theta": torch.tensor([2.0, -1.0], dtype=torch.float64)}
    recipe = Descent(epochs=1, batch_size=64, lr=0.1)
    source = Xu2024VVVBasin(start, gamma=0.4, descent=recipe)
    (found,) = source.directions(of, 1, generator=generator())
    theta, phi = of.theta, start["theta"]
    midway = (theta + phi) / 2
    expected = phi - 0.1 * (3 * phi**2 + 0.4 * 0.5 * 3 * midway**2)
    assert torch.allclose(theta + found.vector, expected, rtol=1e-12)


def test_vvv_basin_strays_from_midway_by_alpha():
    of = landscape_of(lambda t: (t**2).sum(), 0.0)
    start = {"theta": torch.tensor([1.0], dtype=torch.float64)}
    search = Xu2024VVVBasin(start, alpha=0.1, gamma=1.0).search(of, generator())
    (loss,) = of.mini_batches(64).shuffled(generator())
    midway = []  # the loss at λφ = λ is λ², and that at φ is 1
    for seed in range(200):
        value, _ = search.step(loss, search.start, 1.0, generator(seed))
        midway.append(math.sqrt(float(value) - 1))
    # Uniform on [0.4, 0.6]: 200 leave out a tenth of either end less than once in 10⁴ times.
    assert 0.4 <= min(midway) < 0.41
    assert 0.59 < max(midway) <= 0.6


def test_w_peak_descends_along_the_printed_gradient():
    """The first step from ε = 0 is -ηλ∇L(θ), with λ in [-1/E, 1/E]."""
    of = landscape_of(lambda t: (t**3).sum(), 1.0, 2.0)
    steps = []
    for seed in range(200):
        recipe = Descent(epochs=4, batch_size=64, lr=0.1)
        search = Xu2024WPeak(recipe).search(of, generator())
        (loss,) = of.mini_batches(64).shuffled(generator())
        value, descent = search.step(loss, search.start, 1 / 4, generator(seed))
        assert float(value) == pytest.approx(9)
        steps.append(descent / (3 * of.theta**2))
    shares = torch.stack(steps)
    assert torch.allclose(shares[:, 0], shares[:, 1])
    # Uniform on [-1/4, 1/4]: the largest of 200 is beyond 0.24 but once in 3,000 times.
    assert 0.24 < shares.abs().max() <= 0.25
    assert abs(shares.mean()) < 4 * 0.25 / math.sqrt(3 * 200)


def test_w_peak_widens_lambda_with_the_epochs():
    """Along a line of slope 1 epoch e of E, in one step, moves ε by ηλ with |λ| up to e/E."""
    of = landscape_of(lambda t: t.sum(), 1.0)
    recipe = Descent(epochs=2, batch_size=64, lr=0.1)
    mined = [mine(Xu2024WPeak(recipe), of, generator=generator(seed)) for seed in range(200)]
    first = torch.tensor([found.history.norm[0] for found in mined])
    # Of 200 draws none lies in the last twentieth but once in 3·10⁴ times.
    assert 0.95 * 0.05 < first.max() <= 0.05 * (1 + 1e-9)
    # The sum of both λ exceeds 1 in an eighth of all cases.
    assert max(float(found.direction.vector.norm()) for found in mined) > 0.1


def test_mining_follows_its_schedule():
    """Along a line of slope 1 every step of Algorithm 2 is η(1 + γ/2)."""
    of = landscape_of(lambda t: -t.sum(), 0.0)
    start = {"theta": torch.tensor([1.0], dtype=torch.float64)}
    recipe = Descent(epochs=4, batch_size=64, lr=0.1, schedule="cosine")
    mined = mine(Xu2024VVVBasin(start, descent=recipe), of, generator=generator())
    rates = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert mined.history.lr.tolist() == pytest.approx(rates)
    assert float(mined.direction.vector) == pytest.approx(1 + sum(rates) * 1.05)


def test_multipoint_descends_along_the_gradient_of_hubers_loss():
    """Far above a template of range 1 each point p pulls by p·∇L, however far it is."""
    of = landscape_of(lambda t: 100 * t.sum(), 1.0)
    search = Multipoint(template=[[0.0, None], [1.0, 101.0]]).search(of, generator())
    (loss,) = of.mini_batches(64).shuffled(generator())
    epsilon = torch.tensor([10.0], dtype=torch.float64)
    value, descent = search.step(loss, epsilon, 1.0, generator(0))
    p = (torch.arange(8) + torch.rand(8, generator=generator(0)).double()) / 8
    assert 999 * p.min() > 1  # beyond the parabola of Huber's loss, everywhere
    assert float(value) == pytest.approx(float((999 * p - 0.5).mean()))
    assert float(descent) == pytest.approx(float((100 * p).mean()))


def test_multipoint_draws_a_template_and_keeps_theta():
    """Of L(x) = x² in a plane any curve that is convex enough can be had; a ramp of two can."""
    of = landscape_of(lambda t: (t**2).sum(), 1.0, 0.0)
    template = [[0.0, None], [1.0, 5.0]]
    source = Multipoint(
        template=template,
        descent=Descent(epochs=300, batch_size=8, lr=0.02, optimizer="adam", schedule="cosine"),
    )
    (found,) = source.directions(of, 1, generator=generator())
    curve = Evaluator(of).curve(found, torch.linspace(0, 1, 21))
    assert float(curve.loss[0]) == 1.0
    drawn = torch.linspace(1, 5, 21)
    # The best parabola through 1 is off by at most 0.5 of the ramp's 4.
    assert (curve.loss - drawn).abs().max() < 0.5


def test_multipoint_makes_as_many_valleys_as_asked_for():
    """A wave with a well at θ and at every whole step from it: four of them up to 3.5."""
    of = landscape_of(lambda t: torch.sin(math.pi * (t[0] - 3.4)) ** 2, 3.4)
    recipe = Descent(epochs=200, batch_size=8, lr=0.05, optimizer="adam", schedule="cosine")
    source = Multipoint(basins=4, barrier=1.0, descent=recipe)
    search = source.search(of, generator())
    assert float(search.start.norm()) == pytest.approx(float(of.theta.norm()))
    (found,) = source.directions(of, 1, generator=generator())
    curve = Evaluator(of).curve(found, torch.linspace(0, 1, 61))
    shape = classify(curve)
    assert shape.label == "4-basin"
    assert len(shape.valleys) == 4


@pytest.mark.parametrize("source", MINERS, ids=lambda s: type(s).__name__)
def test_miner_keeps_the_contract(source):
    of = landscape("batchnorm")
    of.model.train()
    before = snapshot(of.model)
    theta = of.theta.clone()
    found = source.directions(of, 2, generator=generator())
    again = source.directions(of, 2, generator=generator())
    assert_unchanged(of.model, before)
    assert torch.equal(of.theta, theta)
    assert [d.index for d in found] == [0, 1]
    assert all(d.vector.shape == (of.space.size,) for d in found)
    assert all(torch.equal(a.vector, b.vector) for a, b in zip(found, again, strict=True))
    assert not torch.equal(found[0].vector, found[1].vector)
    assert all(math.isfinite(d.metadata["objective"]) for d in found)
    assert found[0].metadata["norm"] == pytest.approx(float(found[0].vector.norm()))
    with pytest.raises(ValueError, match=r"num_directions must be .* got 0"):
        source.directions(of, 0, generator=generator())


def test_a_checkpoint_that_was_moved_is_the_same(tmp_path):
    of, state = landscape("batchnorm"), build("batchnorm", seed=9).state_dict()
    for name in ("here.pt", "there.pt"):
        torch.save(state, tmp_path / name)
        source = Xu2024VVVBasin(tmp_path / name, descent=SHORT)
        mine(source, of, generator=generator(), checkpoint=tmp_path / "state.pt")
    torch.save(build("batchnorm", seed=8).state_dict(), tmp_path / name)
    with pytest.raises(ValueError, match="its miner, settings, seed, θ, loss or examples"):
        mine(source, of, generator=generator(), checkpoint=tmp_path / "state.pt")


@pytest.mark.parametrize("source", MINERS, ids=lambda s: type(s).__name__)
def test_killed_mining_goes_on_to_the_same_direction(source, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_SAVE_PAUSE", 0.0)
    of = landscape("batchnorm")
    whole = mine(source, of, generator=generator())
    state = tmp_path / "state.pt"
    passes = []

    def interrupted(*arguments):
        passes.append(1)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return run_epoch(*arguments)

    run_epoch = Loop._run_epoch
    monkeypatch.setattr(Loop, "_run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine(source, of, generator=generator(), checkpoint=state)
    resumed = mine(source, of, generator=generator(), checkpoint=state)
    assert len(passes) == 4  # two, the one that was cut off, and the last
    assert torch.equal(resumed.direction.vector, whole.direction.vector)
    columns = ["epoch", "lr", "objective", "norm"]
    assert resumed.history[columns].equals(whole.history[columns])
    with pytest.raises(ValueError, match="its miner, settings, seed, θ, loss or examples"):
        mine(source, of, generator=generator(1), checkpoint=state)
    other = landscape("batchnorm", "frozen")
    with pytest.raises(ValueError, match="its miner, settings, seed, θ, loss or examples"):
        mine(source, other, generator=generator(), checkpoint=state)
    torch.save(of.model.state_dict(), state)
    with pytest.raises(ValueError, match="holds no state of an optimization"):
        mine(source, of, generator=generator(), checkpoint=state)
    state.write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"cannot read .*state\.pt"):
        mine(source, of, generator=generator(), checkpoint=state)


def test_mining_that_diverges_keeps_the_last_finite_direction(caplog):
    of = landscape_of(lambda t: (t**4).sum(), 1.0)
    source = Xu2024WPeak(Descent(epochs=50, batch_size=8, lr=300.0))
    mined = mine(source, of, generator=generator())
    assert mined.diverged_epoch is not None
    assert len(mined.history) == mined.diverged_epoch - 1
    direction = mined.direction
    assert direction.convergence.diverged_epoch == mined.diverged_epoch
    assert direction.source == f"mined w-peak, diverged in epoch {mined.diverged_epoch}"
    assert torch.isfinite(of.loss(of.theta + direction.vector / 50))
    assert "the last direction before is kept" in caplog.text
    with pytest.raises(ValueError, match="diverged in its first steps"):
        mine(source, landscape_of(lambda t: (t / 0).sum(), 1.0), generator=generator())


def test_mining_that_overflows_in_mid_epoch_keeps_the_steps_before():
    """A ramp that ends at 3, climbed down from 1 in steps of 0.1, eight an epoch."""
    of = landscape_of(lambda t: torch.where(t < 3, -t, torch.inf).sum(), 0.0)
    start = {"theta": torch.tensor([1.0], dtype=torch.float64)}
    recipe = Descent(epochs=9, batch_size=8, lr=0.1 / 1.05)
    mined = mine(Xu2024VVVBasin(start, descent=recipe), of, generator=generator())
    assert mined.diverged_epoch == 3
    assert len(mined.history) == 2
    assert 2.89 < float(mined.direction.vector) < 3


def test_killed_mining_that_overflows_at_once_keeps_the_step_before(tmp_path, monkeypatch):
    """A ramp that ends at 3, climbed down from 1 in steps of 0.4, one an epoch."""
    of = landscape_of(lambda t: torch.where(t < 3, -t, torch.inf).sum(), 0.0, num_examples=1)
    start = {"theta": torch.tensor([1.0], dtype=torch.float64)}
    source = Xu2024VVVBasin(start, descent=Descent(epochs=9, batch_size=8, lr=0.4 / 1.05))
    whole = mine(source, of, generator=generator())
    monkeypatch.setattr(loop, "_SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_SAVE_PAUSE", 0.0)
    run_epoch = Loop._run_epoch

    def interrupted(self):
        if self.epoch + 1 == whole.diverged_epoch:
            raise KeyboardInterrupt
        run_epoch(self)

    monkeypatch.setattr(Loop, "_run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine(source, of, generator=generator(), checkpoint=tmp_path / "state.pt")
    monkeypatch.setattr(Loop, "_run_epoch", run_epoch)
    resumed = mine(source, of, generator=generator(), checkpoint=tmp_path / "state.pt")
    assert resumed.diverged_epoch == whole.diverged_epoch
    assert torch.equal(resumed.direction.vector, whole.direction.vector)
    assert 2.5 < float(whole.direction.vector) < 3


def test_mining_that_overflows_in_its_last_step_keeps_the_one_before():
    """Steps of 1.05·10³⁰⁸ down a line: the second leaves the numbers there are."""
    of = landscape_of(lambda t: -t.sum(), 0.0, num_examples=1)
    start = {"theta": torch.tensor([1.0], dtype=torch.float64)}
    recipe = Descent(epochs=2, batch_size=64, lr=1e308)
    mined = mine(Xu2024VVVBasin(start, descent=recipe), of, generator=generator())
    assert mined.diverged_epoch == 2
    assert float(mined.direction.vector) == pytest.approx(1.05e308)


def test_mining_that_leaves_its_scale_keeps_the_direction_of_the_epoch_before(
    tmp_path, monkeypatch
):
    """Nothing overflows here: the objective grows by a factor an epoch."""
    of = landscape_of(lambda t: 1 + (t**2).sum(), 1.0)
    start = {"theta": torch.tensor([1.5], dtype=torch.float64)}
    source = Xu2024VVVBasin(start, descent=Descent(epochs=50, batch_size=8, lr=1.02))
    state = tmp_path / "state.pt"
    mined = mine(source, of, generator=generator(), checkpoint=state)
    assert mined.diverged_epoch is not None
    assert 1 < len(mined.history) == mined.diverged_epoch - 1
    assert mined.history.objective.max() <= 10 * mined.history.objective[0]
    assert f"diverged in epoch {mined.diverged_epoch}" in mined.direction.source
    again = mine(source, of, generator=generator(), checkpoint=state)
    assert again.diverged_epoch == mined.diverged_epoch
    assert torch.equal(again.direction.vector, mined.direction.vector)
    # A θ whose loss is far below the chance level may rise by more, up to it.
    monkeypatch.setattr(Landscape, "chance_loss", 1e4)
    longer = mine(source, of, generator=generator())
    assert longer.diverged_epoch > mined.diverged_epoch
    assert 10 * mined.history.objective[0] < longer.history.objective.max() <= 1e4


def test_the_printed_progress_is_the_objective(capsys):
    of = landscape()
    mined = mine(Xu2024WPeak(SHORT), of, generator=generator(), progress=True)
    assert list(mined.history.epoch) == [1, 2, 3]
    assert "objective=" in capsys.readouterr().err


def test_mini_batches_take_every_example_once_in_nearly_equal_parts():
    of = landscape()  # 70 examples
    batches = of.mini_batches(32)
    losses = [loss(of.theta) for loss in batches.shuffled(generator())]
    assert batches.num_batches == len(losses) == 3
    sizes = [24, 23, 23]
    mean = sum(n * value for n, (value, _) in zip(sizes, losses, strict=True)) / 70
    gradient = sum(n * slope for n, (_, slope) in zip(sizes, losses, strict=True)) / 70
    assert float(mean) == pytest.approx(float(of.loss(of.theta)), rel=1e-12)
    assert torch.allclose(gradient, of.gradient(), rtol=1e-10, atol=1e-14)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        of.mini_batches(0)


@pytest.mark.parametrize("policy", ["recalibrate", "batch"])
def test_mini_batches_normalize_by_their_own_statistics(policy):
    """One mini-batch of all examples: the loss and gradient of training mode, dropout aside."""
    of = landscape("batchnorm", policy)
    (loss,) = of.mini_batches(70).shuffled(generator())
    model = build("batchnorm").train()
    model.dropout.eval()
    inputs, targets = (torch.cat(parts) for parts in zip(*of_examples(of), strict=True))
    expected = nn.functional.cross_entropy(model(inputs), targets)
    expected.backward()
    value, gradient = loss(of.theta)
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-10)
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(gradient, flat, rtol=1e-8, atol=1e-12)


def test_mini_batches_without_a_target_are_left_out():
    of = landscape()
    inputs, targets = examples()
    targets[:40] = -100
    of = Landscape(of.model, nn.CrossEntropyLoss(), [(inputs, targets)])
    losses = [loss(of.theta)[0] for loss in of.mini_batches(4).shuffled(generator())]
    assert 0 < len(losses) < of.mini_batches(4).num_batches
    assert torch.isfinite(torch.stack(losses)).all()
    mined = mine(Xu2024WPeak(replace(SHORT, batch_size=4)), of, generator=generator())
    assert mined.diverged_epoch is None


def test_batch_norm_never_gets_a_single_example():
    model = build("in_place")
    inputs, targets = examples(5)
    of = Landscape(model, nn.CrossEntropyLoss(), [(inputs, targets)])
    assert len([loss(of.theta) for loss in of.mini_batches(2).shuffled(generator())]) == 2


def test_mini_batches_under_frozen_keep_the_statistics():
    of = landscape("batchnorm", "frozen")
    (loss,) = of.mini_batches(70).shuffled(generator())
    value, gradient = loss(of.theta)
    assert float(value) == pytest.approx(float(of.loss(of.theta)), rel=1e-10)
    assert torch.allclose(gradient, of.gradient(), rtol=1e-8, atol=1e-12)


def test_mini_batches_in_a_lower_precision_are_near():
    model = build("batchnorm", torch.float32)
    inputs, targets = examples(dtype=torch.float32)
    of = Landscape(model, nn.CrossEntropyLoss(), [(inputs, targets)])
    (exact,), (rounded,) = (
        of.mini_batches(70, autocast).shuffled(generator()) for autocast in (None, torch.bfloat16)
    )
    (value, gradient), (near, slope) = exact(of.theta), rounded(of.theta)
    assert float(near) == pytest.approx(float(value), rel=0.02)  # eight bits
    assert near != value
    assert cosine(gradient, slope) > 0.99


def of_examples(of):
    return [(batch.inputs, batch.targets) for batch in of.batches]


def test_joined_tensors_are_not_copied():
    whole = torch.randn(10, 3)
    assert joined(torch.split(whole, 4)).data_ptr() == whole.data_ptr()
    backwards = torch.split(whole, 5)[::-1]
    assert torch.equal(joined(backwards), torch.cat(backwards))
    part = whole[:8]
    assert torch.equal(joined(torch.split(part, 4)), part)
    square = torch.randn(6, 4, 4)
    turned = square.transpose(1, 2)
    assert torch.equal(joined(torch.split(turned, 3)), turned)
    assert torch.equal(joined([turned]), turned)
    halves = [whole[0::2], whole[1::2]]
    assert torch.equal(joined(halves), torch.cat(halves))
    overlapping = [whole[:6], whole[4:8]]
    assert torch.equal(joined(overlapping), torch.cat(overlapping))
    with pytest.raises(ValueError, match="examples of one shape"):
        joined([torch.zeros(2, 3), torch.zeros(2, 4)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("source", MINERS, ids=lambda s: type(s).__name__)
def test_mining_on_a_gpu_agrees_with_the_cpu(source, tmp_path):
    cpu = landscape("batchnorm")
    gpu = Landscape(build("batchnorm").cuda(), nn.CrossEntropyLoss(), loader())
    expected = mine(source, cpu, generator=generator()).direction.vector
    found = mine(source, gpu, generator=generator(), checkpoint=tmp_path / "state.pt")
    # float64 on both; sums are taken in another order, and steps carry that on.
    assert torch.allclose(found.direction.vector.cpu(), expected, rtol=1e-6, atol=1e-9)
    again = mine(source, gpu, generator=generator(), checkpoint=tmp_path / "state.pt")
    assert torch.equal(again.direction.vector, found.direction.vector)


BAD = [
    (lambda: Xu2024VVVBasin("x", alpha=-0.1), "alpha must lie between 0 and 0.5, got -0.1"),
    (lambda: Xu2024VVVBasin("x", alpha=0.6), "alpha must lie between 0 and 0.5, got 0.6"),
    (lambda: Xu2024VVVBasin("x", gamma=0.0), "gamma must be positive, got 0.0"),
    (lambda: Xu2024VVVBasin("x", gamma=math.inf), "gamma must be positive, got inf"),
    (lambda: Descent(epochs=0), "descent.epochs must be at least 1, got 0"),
    (lambda: Descent(lr=-1.0), "descent.lr must be positive, got -1.0"),
    (lambda: Descent(optimizer="lbfgs"), "descent.optimizer must be one of .* got 'lbfgs'"),
    (lambda: Multipoint(basins=1), "basins must be at least 2, got 1"),
    (lambda: Multipoint(basins=3, template=[[0.0, None], [1.0, 2.0]]), "replaces direction.basins"),
    (lambda: Multipoint(template=[[0.0, None], [math.inf, 2.0]]), "finite alphas"),
    (lambda: Multipoint(points=0), "points must be at least 1, got 0"),
    (lambda: Multipoint(template=[[0.0, 1.0]]), "two pairs"),
    (lambda: Multipoint(template=[0.0, 1.0]), "two pairs"),
    (lambda: Multipoint(template=[[0.0, "x"], [1.0, 2.0]]), "two pairs .* of numbers"),
    (lambda: Multipoint(barrier=math.inf), "barrier must be finite, got inf"),
    (lambda: Multipoint(template=[[0.0, 1.0], [0.0, 2.0]]), "increasing, finite alphas"),
    (lambda: Multipoint(template=[[0.5, 1.0], [1.0, 2.0]]), "must include alpha = 0"),
    (lambda: Multipoint(template=[[0.0, 1.0], [1.0, math.nan]]), "finite losses"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_starting_at_theta_itself_is_refused():
    of = landscape("batchnorm")
    with pytest.raises(ValueError, match="the same gradient"):
        Xu2024VVVBasin(dict(build("batchnorm").state_dict())).directions(
            of, 1, generator=generator()
        )


def test_templates_that_do_not_fit_are_refused():
    of = landscape_of(lambda t: (t**2).sum(), 1.0, 1.0)  # loss 2
    wrong = Multipoint(template=[[0.0, 3.0], [1.0, 5.0]])
    with pytest.raises(ValueError, match="gives 3 at alpha = 0, but the loss of θ is 2"):
        wrong.directions(of, 1, generator=generator())
    flat = Multipoint(template=[[0.0, None], [1.0, 2.0]])
    with pytest.raises(ValueError, match="constant at 2"):
        flat.directions(of, 1, generator=generator())
    below = Multipoint(template=[[0.0, None], [1.0, -5.0]])
    with pytest.raises(ValueError, match="not be below 0 for cross-entropy, got -5"):
        below.directions(landscape(), 1, generator=generator())
    low = Multipoint(barrier=1.5)
    with pytest.raises(ValueError, match="barrier must exceed the loss of θ, 2, got"):
        low.directions(of, 1, generator=generator())
    with pytest.raises(ValueError, match=r"from 0 to 1, the grid only from -1 to 0\.5"):
        Multipoint().check_grid(torch.linspace(-1, 0.5, 21))
    with pytest.raises(ValueError, match="6 points, the grid only 3 between 0 and 1"):
        Multipoint().check_grid(torch.linspace(-1, 1, 5))
    Multipoint().check_grid(torch.linspace(-1, 1, 11))


def test_rmse_is_that_within_the_template():
    alphas = torch.linspace(-2, 1, 4, dtype=torch.float64)
    curve = Curve(alphas, loss=torch.tensor([9.0, 3.0, 1.0, 6.0], dtype=torch.float64))
    template = [(-1.0, 3.0), (1.0, 5.0)]  # 4 at α = 0
    assert rmse(curve, template) == pytest.approx(math.sqrt((0 + 9 + 1) / 3))


def test_basins_lie_at_equal_distances():
    assert Multipoint(basins=3).alphas == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert Multipoint(basins=3).losses(0.5, 2.0) == pytest.approx([0.5, 2.0] * 3)
    assert Multipoint(basins=2, barrier=7.0).losses(0.5, 2.0) == pytest.approx([0.5, 7.0] * 2)
    assert Multipoint(basins=2).losses(1.0, None) == pytest.approx([1.0, 2.0] * 2)
