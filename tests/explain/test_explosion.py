"""Value explosion: where a loss leaves its scale, and which module does so first."""

import math

import pytest
import torch
from cases import MODELS, assert_unchanged, build, examples, landscape, loader, snapshot
from published import AVAILABLE, resnet20_landscape
from torch import nn

from mining import (
    Curve,
    Evaluator,
    Gaussian,
    InputError,
    Landscape,
    Surface,
    find_explosion,
    find_overflow,
)

ALPHAS = torch.linspace(-1, 1, 5).double()
CHANCE = math.log(10)


def curve(losses, chance=CHANCE):
    return Curve(ALPHAS, torch.tensor(losses).double(), chance_loss=chance)


@pytest.mark.parametrize(
    ("losses", "chance", "bound", "start", "at", "nonfinite"),
    [
        ([9.0, 1, 0, 1, 9], CHANCE, None, None, None, None),
        ([99.0, 1, 0, 24, 9], CHANCE, None, 0.5, (0.5,), None),
        ([99.0, 24, 0, 1, 9], CHANCE, None, 0.5, (-0.5,), None),
        ([math.inf, 24, 0, 1, 9], CHANCE, None, 0.5, (-0.5,), 1.0),
        ([9.0, 1, 0, math.nan, 9], CHANCE, None, 0.5, (0.5,), 0.5),
        ([9.0, 1, 0, 1, 5], CHANCE, 8.0, 1.0, (-1.0,), None),
        ([1e9, 1, 0, 1, 5], None, None, None, None, None),  # without a chance level: no scale
        ([math.inf, 1, 0, 1, 5], None, None, 1.0, (-1.0,), 1.0),
        ([99.0, 99, 99, 99, 99], CHANCE, None, 0.0, (0.0,), None),  # θ itself
    ],
)
def test_an_explosion_starts_at_the_nearest_point_beyond_the_bound(
    losses, chance, bound, start, at, nonfinite
):
    found = find_explosion(curve(losses, chance), bound)
    assert (found.start, found.at, found.nonfinite_start) == (start, at, nonfinite)
    assert bool(found) == (start is not None)
    expected = bound if bound is not None else None if chance is None else 10 * CHANCE
    assert found.bound == expected
    if at is not None:
        loss = losses[ALPHAS.tolist().index(at[0])]
        assert found.loss == loss or (math.isnan(found.loss) and math.isnan(loss))


def test_an_explosion_of_a_surface_has_two_coordinates():
    betas = torch.tensor([0.0, 0.25]).double()
    loss = torch.zeros(5, 2)
    loss[0, 0], loss[3, 1] = 1e6, 1e6
    found = find_explosion(Surface(ALPHAS, betas, loss, chance_loss=CHANCE))
    assert found.at == (0.5, 0.25)
    assert found.start == pytest.approx(math.hypot(0.5, 0.25))


def test_a_bound_must_be_positive():
    for bound in (0.0, math.inf, math.nan):
        with pytest.raises(InputError, match="bound must be positive"):
            find_explosion(curve([1.0, 1, 1, 1, 1]), bound)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("policy", ["frozen", "recalibrate", "batch"])
def test_activations_leave_the_model_as_it_was_and_end_with_its_output(name, policy):
    of = landscape(name, policy)
    before = snapshot(of.model)
    hooks = [len(m._forward_hooks) for m in of.model.modules()]
    found = of.activations(1.1 * of.theta)
    assert_unchanged(of.model, before)
    assert [len(m._forward_hooks) for m in of.model.modules()] == hooks
    assert list(found)[-1] == "(output)"
    assert all(activation.finite for activation in found.values())


@pytest.mark.parametrize("name", ["batchnorm", "in_place", "mlp"])
def test_activations_are_those_of_the_modules_over_all_examples(name):
    """Also of layers that are fused where nobody looks, and of a smaller last batch."""
    of = landscape(name, "frozen")
    theta = of.theta + 0.3 * torch.randn(of.space.size, generator=torch.Generator().manual_seed(0))
    found = of.activations(theta)
    model = build(name)
    model.load_state_dict(of.space.unflatten(theta), strict=False)
    seen = {}

    def watch(key, module):
        def after(_module, _inputs, outputs):
            seen[key] = outputs.detach().clone()  # one layer works in place

        module.register_forward_hook(after)

    for key, module in model.eval().named_modules():
        watch(key or "(output)", module)
    model(examples()[0])
    assert list(found) == list(seen)  # in the order of execution
    for key, outputs in seen.items():
        assert found[key].rms == pytest.approx(float(outputs.square().mean().sqrt()), rel=1e-12)


def test_further_calls_of_a_module_are_told_apart():
    found = landscape("shared").activations(landscape("shared").theta)
    names = ["layers.0", "layers.0 (call 2)", "layers.0 (call 3)", "norm (call 2)"]
    assert [name for name in names if name in found] == names


def chain(width=6):
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(4)), nn.Linear(width, 3))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)  # so that all later outputs grow by the same factor
    return model.double()


def chain_landscape(**options):
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    return Landscape(chain(), nn.CrossEntropyLoss(), [(inputs, torch.arange(20) % 3)], **options)


def scaled(of, name, factor):
    pieces = {n: p.clone() for n, p in of.space.unflatten(of.theta).items()}
    pieces[f"{name}.weight"] *= factor
    pieces[f"{name}.bias"] *= factor
    return of.space.flatten(pieces)


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_the_layer_whose_outputs_leave_their_scale_first_is_named(layer):
    of = chain_landscape()
    found = find_overflow(of, scaled(of, layer, 100))
    assert found.module == layer
    assert found.ratio == pytest.approx(100, rel=1e-9)
    assert found.nonfinite_module is None
    assert find_overflow(of, scaled(of, layer, 100), factor=100.001).module is None
    least = find_overflow(of, scaled(of, layer, 2))
    assert (least.module, least.factor) == (None, 10.0)
    assert least.largest_module == layer or least.largest_ratio > 1.9


def test_the_layer_that_overflows_first_is_named():
    of = chain_landscape()
    huge = find_overflow(of, scaled(of, "2", 1e300))  # whose squares are not finite
    assert (huge.module, huge.nonfinite_module) == ("2", None)
    assert huge.ratio == pytest.approx(1e300, rel=1e-9)
    beyond = find_overflow(of, scaled(of, "3", 1e308 * 5))
    assert beyond.module == "3"
    assert beyond.nonfinite_module in ("3", "4")
    lost = find_overflow(of, scaled(of, "1", math.inf))
    assert lost.nonfinite_module == lost.module == "1"


def test_a_factor_must_exceed_one():
    of = chain_landscape()
    with pytest.raises(InputError, match="factor must exceed 1"):
        find_overflow(of, of.theta, 1.0)


def test_modules_of_a_models_own_loss_are_measured():
    model = chain()
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    of = Landscape(
        model,
        objective=lambda model, batch: model(batch["x"]).square().mean(),
        batches=[{"x": inputs[:16]}, {"x": inputs[16:]}],
    )
    assert find_overflow(of, scaled(of, "1", 1000)).module == "1"


@pytest.mark.skipif(not AVAILABLE, reason="needs the published weights")
def test_the_published_resnet20_explodes_with_frozen_statistics_only():
    found = {}
    for policy in ("frozen", "recalibrate", "batch"):
        of = resnet20_landscape(200, policy)
        (d,) = Gaussian().directions(of, 1, generator=torch.Generator().manual_seed(0))
        losses = Evaluator(of, progress=False).curve(d, torch.linspace(0, 1, 5))
        found[policy] = explosion = find_explosion(losses)
        if explosion:
            overflow = find_overflow(of, of.at([d.vector], explosion.at))
            assert overflow.module is not None
            assert overflow.ratio > 10
    assert found["frozen"]
    assert not found["recalibrate"]
    assert not found["batch"]


def test_loaders_of_unequal_batches_weigh_every_example():
    one, other = (
        Landscape(build("mlp"), nn.CrossEntropyLoss(), loader(batch_size=size)) for size in (70, 32)
    )
    for a, b in zip(
        one.activations(one.theta).values(), other.activations(other.theta).values(), strict=True
    ):
        assert a.rms == pytest.approx(b.rms, rel=1e-12)
