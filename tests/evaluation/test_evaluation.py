import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cases import (
    MODELS,
    assert_unchanged,
    build,
    direction,
    examples,
    landscape,
    loader,
    quadratic_landscape,
    snapshot,
)
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mining import (
    Direction,
    Evaluator,
    Gaussian,
    Gradient,
    Landscape,
    classify,
    stretch,
    with_scales,
)
from mining.evaluation.storage import load_curves, save_curves
from mining.storage.fingerprint import Fingerprint
from mining.storage.journal import Journal

ALPHAS = torch.linspace(-1, 1, 9)


def evaluator(of, **options):
    return Evaluator(of, progress=False, **options)


def test_curve_of_a_quadratic_loss_is_its_parabola():
    of = quadratic_landscape()
    vector = direction(of).vector
    curve = evaluator(of).curve(Direction(vector, "test"), torch.linspace(-2, 3, 11))
    slope = of.gradient() @ vector
    bend = vector @ of.model.matrix @ vector
    expected = of.loss(of.theta) + slope * curve.alphas + 0.5 * bend * curve.alphas**2
    assert torch.allclose(curve.loss, expected, rtol=1e-12, atol=1e-12)


def test_surface_of_a_quadratic_loss_is_its_paraboloid_on_a_non_square_grid():
    of = quadratic_landscape()
    x, y = direction(of, 0), direction(of, 1)
    surface = evaluator(of).surface(x, y, torch.linspace(-1, 1, 3), torch.linspace(-2, 1, 7))
    a, b = surface.alphas[:, None], surface.betas[None, :]
    matrix, gradient = of.model.matrix, of.gradient()
    expected = (
        of.loss(of.theta)
        + a * (gradient @ x.vector)
        + b * (gradient @ y.vector)
        + 0.5 * a**2 * (x.vector @ matrix @ x.vector)
        + 0.5 * b**2 * (y.vector @ matrix @ y.vector)
        + a * b * (x.vector @ matrix @ y.vector)
    )
    assert surface.loss.shape == (3, 7)
    assert torch.allclose(surface.loss, expected, rtol=1e-11, atol=1e-11)


def test_every_cell_of_a_surface_is_the_loss_at_its_own_coordinates():
    """Others evaluate after stepping, which shifts every second column by one cell."""
    of = landscape("batchnorm")
    x, y = direction(of, 0), direction(of, 1)
    surface = evaluator(of).surface(x, y, torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 5))
    for i, alpha in enumerate(surface.alphas.tolist()):
        for j, beta in enumerate(surface.betas.tolist()):
            expected = of.loss(of.theta + alpha * x.vector + beta * y.vector)
            assert float(surface.loss[i, j]) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("policy", ["recalibrate", "frozen", "batch"])
def test_alpha_zero_is_the_loss_of_theta(policy):
    of = landscape("batchnorm", policy)
    for alphas in (ALPHAS, torch.linspace(-1, 1, 4), torch.linspace(0.5, 1, 3)):
        curve = evaluator(of).curve(direction(of), alphas)
        assert curve.loss[curve.origin] == of.loss(of.theta)
        assert curve.accuracy[curve.origin] == of.evaluate(of.theta).accuracy
    surface = evaluator(of).surface(
        direction(of), direction(of, 1), ALPHAS, torch.linspace(0, 1, 2)
    )
    assert surface.loss[4, 0] == of.loss(of.theta)


def test_alpha_is_in_units_of_the_direction():
    """A displacement of one is the direction itself, whatever its length."""
    of = landscape("mlp")
    short, long = direction(of), Direction(4 * direction(of).vector, "test")
    a = evaluator(of).curve(short, torch.linspace(-1, 1, 5))
    b = evaluator(of).curve(long, torch.linspace(-0.25, 0.25, 5))
    assert torch.allclose(a.loss, b.loss, rtol=1e-12)
    assert float(a.loss[-1]) == pytest.approx(float(of.loss(of.theta + short.vector)), rel=1e-12)


def test_several_curves_are_the_single_ones():
    of = landscape("batchnorm")
    directions = Gaussian().directions(of, 3, generator=torch.Generator().manual_seed(0))
    together = evaluator(of).curves(directions, ALPHAS)
    for curve, alone in zip(together, directions, strict=True):
        assert torch.equal(curve.loss, evaluator(of).curve(alone, ALPHAS).loss)
    assert [c.name for c in together] == ["gaussian 1", "gaussian 2", "gaussian 3"]


def test_test_examples_share_the_pass_and_the_statistics():
    inputs, targets = examples(30, seed=5)
    of = landscape("batchnorm")
    both = evaluator(of, test=[(inputs, targets)]).curve(direction(of), ALPHAS)
    alone = Landscape(of.model, of.loss_fn, [(inputs, targets)], recalibration=loader())
    expected = evaluator(alone).curve(direction(of), ALPHAS)
    assert torch.allclose(both.loss_test, expected.loss, rtol=1e-12)
    assert torch.equal(both.accuracy_test, expected.accuracy)
    assert torch.equal(both.loss, evaluator(of).curve(direction(of), ALPHAS).loss)


def test_non_finite_values_are_kept_and_counted():
    model = build("mlp", torch.float32)
    of = Landscape(model, nn.CrossEntropyLoss(), loader(dtype=torch.float32))
    curve = evaluator(of).curve(direction(of), torch.linspace(-1e30, 1e30, 5))
    assert curve.nonfinite == 4
    assert not torch.isfinite(curve.loss[[0, 1, 3, 4]]).any()
    assert curve.loss[2] == of.loss(of.theta)


def test_the_plotted_loss_is_that_of_the_data_alone():
    """An optimizer's weight decay has no part in it."""
    of = landscape("mlp")
    torch.optim.SGD(of.model.parameters(), lr=0.1, weight_decay=100.0)
    inputs, targets = examples()
    curve = evaluator(of).curve(direction(of), ALPHAS)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(of.model(inputs), targets)
    assert float(curve.loss[curve.origin]) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_evaluator_leaves_the_model_unchanged(name):
    of = landscape(name)
    of.model.train()
    before = snapshot(of.model)
    evaluator(of).curve(direction(of), ALPHAS)
    evaluator(of).surface(direction(of), direction(of, 1), ALPHAS[::4], ALPHAS[::4])
    assert_unchanged(of.model, before)


class Interrupting:
    """A loss that counts its calls, and is interrupted at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.calls = at, 0

    def __call__(self, outputs, targets):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return outputs.mean() - outputs.mean().detach() - 1.0  # negative and equal everywhere


def test_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    """Zero and negative values are values, not a sign of what is missing."""
    journal = tmp_path / "points.csv"
    inputs, targets = examples()

    def run(at):
        loss = Interrupting(None)
        of = Landscape(build("mlp"), loss, [(inputs, targets)])
        built = loss.calls
        of.identify("")
        started = 2 * loss.calls - built  # the evaluator identifies the journal once more
        loss.at = None if at is None else started + at
        points = evaluator(of, journal=journal, chunk=1)
        try:
            return points.curve(direction(of), ALPHAS), loss.calls - started
        except KeyboardInterrupt:
            return None, loss.calls - started

    _, before = run(at=6)
    assert len(journal.read_text().splitlines()) == 1 + before - 1
    with journal.open("a") as file:
        file.write("7,0.12")  # a kill in the middle of a line
    curve, after = run(at=None)
    assert before - 1 + after == len(ALPHAS)
    assert (curve.loss == -1.0).all()
    _, nothing = run(at=None)
    assert nothing == 0


def test_resumed_curve_equals_the_uninterrupted_one(tmp_path):
    of = landscape("batchnorm")
    expected = evaluator(of).curve(direction(of), ALPHAS)
    journal = tmp_path / "points.csv"
    evaluator(of, journal=journal).curve(direction(of), ALPHAS)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]))
    resumed = evaluator(of, journal=journal).curve(direction(of), ALPHAS)
    assert torch.equal(resumed.loss, expected.loss)
    assert torch.equal(resumed.accuracy, expected.accuracy)


@pytest.mark.parametrize("size", [1, 5])
def test_journal_takes_a_direction_however_it_lies_in_memory(size, tmp_path):
    of = quadratic_landscape(size)
    column = torch.randn(size, 3, generator=torch.Generator().manual_seed(0)).double()[:, 0]
    assert column.stride() == (3,)
    for vector in (column, column.clone()):  # the second finds what the first wrote
        journal = evaluator(of, journal=tmp_path / "points.csv")
        journal.curve(Direction(vector, "test"), ALPHAS)


class CountingLoss(nn.CrossEntropyLoss):
    calls = 0

    def forward(self, input, target):
        self.calls += 1
        return super().forward(input, target)


def test_journal_of_a_loss_that_counts_its_calls_goes_on(tmp_path):
    of = Landscape(build("mlp"), CountingLoss(), loader())
    for _ in range(2):
        evaluator(of, journal=tmp_path / "points.csv").curve(direction(of), ALPHAS)
    of.loss_fn.label_smoothing = 0.1  # a setting all the same
    with pytest.raises(ValueError, match="holds points of other"):
        evaluator(of, journal=tmp_path / "points.csv").curve(direction(of), ALPHAS)


def test_journal_of_something_else_is_refused(tmp_path):
    of = landscape("mlp")
    journal = tmp_path / "points.csv"
    evaluator(of, journal=journal).curve(direction(of), ALPHAS)
    for other, along, alphas in (
        (of, direction(of, 1), ALPHAS),
        (of, direction(of), ALPHAS * 2),
        (Landscape(build("mlp", seed=3), of.loss_fn, loader()), direction(of), ALPHAS),
    ):
        with pytest.raises(ValueError, match="other directions, grid, model, loss or data"):
            evaluator(other, journal=journal).curve(along, alphas)


class Scaled:
    """A loss as an object, with a constant that is not in its code."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, outputs, targets):
        return self.factor * F.cross_entropy(outputs, targets)


class ScaledNet(nn.Module):
    """A model with a constant that neither its description nor its tensors show."""

    def __init__(self, factor):
        super().__init__()
        self.net, self.factor = build("mlp"), factor

    def forward(self, x):
        return self.factor * self.net(x)


def scaled(factor):
    return lambda o, t: factor * F.cross_entropy(o, t)


def smoothed(o, t, *, amount):
    return F.cross_entropy(o, t, label_smoothing=amount)


OTHER_LOSSES = {
    "constant": (
        lambda o, t: F.cross_entropy(o, t) * 1.0,
        lambda o, t: F.cross_entropy(o, t) * 1.1,
    ),
    "closure": (scaled(1.0), scaled(1.0 + 1e-12)),
    "partial": (partial(smoothed, amount=0.0), partial(smoothed, amount=0.1)),
    "object": (Scaled(1.0), Scaled(1.001)),
}


@pytest.mark.parametrize("kind", OTHER_LOSSES)
def test_journal_of_another_loss_is_refused(tmp_path, kind):
    first, second = OTHER_LOSSES[kind]
    journal = tmp_path / "points.csv"
    for loss, expectation in ((first, nullcontext()), (first, nullcontext()), (second, None)):
        of = Landscape(build("mlp"), loss, loader())
        with expectation or pytest.raises(ValueError, match=r"points of other .* loss or data"):
            evaluator(of, journal=journal).curve(direction(of), ALPHAS[::5])


def test_journal_of_another_constant_of_the_model_is_refused(tmp_path):
    journal = tmp_path / "points.csv"
    for factor, expectation in ((1.0, nullcontext()), (1.001, pytest.raises(ValueError))):
        of = Landscape(ScaledNet(factor), nn.CrossEntropyLoss(), loader())
        with expectation:
            evaluator(of, journal=journal).curve(direction(of), ALPHAS[::5])


def test_journal_goes_on_whatever_the_number_of_threads(tmp_path):
    of = Landscape(build("mlp", torch.float32), nn.CrossEntropyLoss(), loader(dtype=torch.float32))
    fingerprint = of.identify("it")
    near = replace(fingerprint, values=tuple(v * (1 + 1e-6) for v in fingerprint.values))
    assert fingerprint.matches(str(near))
    far = replace(fingerprint, values=tuple(v * (1 + 1e-3) for v in fingerprint.values))
    assert not fingerprint.matches(str(far))
    assert not fingerprint.matches(None)
    assert not fingerprint.matches("it x y")


def test_journal_of_other_test_examples_is_refused(tmp_path):
    of = landscape("mlp")
    journal = tmp_path / "points.csv"
    for seed, expectation in ((2, nullcontext()), (3, pytest.raises(ValueError, match="other"))):
        with expectation:
            test = [examples(30, seed=seed)]
            evaluator(of, test=test, journal=journal).curve(direction(of), ALPHAS)


def test_a_direction_may_have_another_dtype():
    of = Landscape(build("mlp", torch.float32), nn.CrossEntropyLoss(), loader(dtype=torch.float32))
    vector = direction(of).vector
    curves = [evaluator(of).curve(Direction(v, "x"), ALPHAS) for v in (vector, vector.double())]
    assert torch.equal(curves[0].loss, curves[1].loss)


def test_points_and_paths_may_come_in_any_form(tmp_path):
    of = landscape("mlp")
    expected = evaluator(of).curve(direction(of), torch.linspace(-1, 1, 5)).loss
    journal = str(tmp_path / "points.csv")
    found = evaluator(of, journal=journal).curve(direction(of), np.linspace(-1, 1, 5))
    assert torch.equal(found.loss, expected)
    assert torch.equal(evaluator(of).curve(direction(of), [-1, -0.5, 0, 0.5, 1]).loss, expected)


def test_journal_keeps_values_exactly(tmp_path):
    journal = Journal(tmp_path / "points.csv", Fingerprint("it"))
    values = [0.1 + 0.2, math.inf, -math.inf, math.nan, 5e-324]
    journal.append(3, values)
    (found,) = Journal(tmp_path / "points.csv", Fingerprint("it")).read().values()
    assert list(map(repr, found)) == list(map(repr, values))


def test_every_flipped_bit_of_a_journal_is_noticed(tmp_path, caplog):
    path, it = tmp_path / "points.csv", Fingerprint("it", (0.5,))
    points = {0: [2.25, 0.5], 12: [math.inf, math.nan]}
    journal = Journal(path, it)
    for index, values in points.items():
        journal.append(index, values)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = Journal(path, it).read()
        except ValueError as error:  # in the first line: it is of something else
            assert "points of other" in str(error)
            assert path.read_bytes() == damaged
            continue
        assert all(repr(values) == repr(points[index]) for index, values in found.items())
        header, *lines = path.read_bytes().splitlines(keepends=True)
        assert whole.startswith(header)
        assert set(lines) <= set(whole.splitlines(keepends=True))
        assert len(lines) == len(found)
    assert "1 damaged lines. Evaluating their points again" in caplog.text


def test_a_journal_does_not_overwrite_what_it_did_not_write(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a line without its end")
    with pytest.raises(ValueError, match="holds points of other"):
        Journal(path, Fingerprint("it"))
    assert path.read_text() == "a line without its end"
    path.write_text("i")  # killed in the first line
    Journal(path, Fingerprint("it")).append(0, [1.0])
    assert Journal(path, Fingerprint("it")).read() == {0: [1.0]}


def test_bad_input_is_named():
    of = landscape("mlp")
    with pytest.raises(ValueError, match="flat vector must have shape"):
        evaluator(of).curve(Direction(torch.ones(3), "test"), ALPHAS)
    with pytest.raises(ValueError, match="strictly increasing"):
        evaluator(of).curve(direction(of), ALPHAS.flip(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_curve_agrees_with_cpu():
    cpu = landscape("batchnorm")
    gpu = Landscape(build("batchnorm").cuda(), nn.CrossEntropyLoss(), loader())
    along = direction(cpu)
    expected = evaluator(cpu).curve(along, ALPHAS)
    found = evaluator(gpu).curve(Direction(along.vector.cuda(), "test"), ALPHAS)
    # float64 on both; sums are taken in another order.
    assert torch.allclose(found.loss, expected.loss, rtol=1e-9)


def test_a_surface_of_parallel_directions_is_refused():
    of = landscape()
    x = direction(of)
    for factor in (2.0, -0.5):
        y = Direction(factor * x.vector, "other")
        with pytest.raises(ValueError, match="test 1 and other 1 are parallel"):
            Evaluator(of).surface(x, y, torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 3))


@pytest.mark.parametrize(("dtype", "label"), [(torch.bfloat16, "flat"), (torch.float64, "v-side")])
def test_steps_of_half_precision_are_no_shape(dtype, label, tmp_path):
    """A fall of 2 % of the loss is two steps of bfloat16, which noise turns into many labels."""
    of = Landscape(build("mlp", dtype), nn.CrossEntropyLoss(), loader(dtype=dtype))
    step = Gradient().directions(of, 1, generator=torch.Generator())[0]
    alphas = torch.linspace(-1, 1, 21)
    slope = float(of.gradient().double().norm()) * float(step.vector.double().norm())
    share = 0.01 * float(of.loss(of.theta)) / slope
    (scaled,) = with_scales(of, [step], share)
    curve = Evaluator(of, progress=False).curve(stretch(scaled), alphas)
    assert classify(curve).label == label
    save_curves(tmp_path / "curves.npz", [curve])
    (loaded,) = load_curves(tmp_path / "curves.npz")
    assert loaded.rounding == curve.rounding
    assert classify(loaded).label == label
