import math

import pytest
import torch
from cases import (
    MODELS,
    BatchNormNet,
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

from mining import BatchNormPolicy, Landscape
from mining.batchnorm import modes, recalibrate

POLICIES = ("recalibrate", "frozen", "batch")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_gradient_matches_finite_differences(name, policy):
    of = landscape(name, policy)
    statistics = of.statistics(of.theta)  # held fixed by definition of the derivative
    for seed in range(3):
        vector = direction(of, seed).vector
        step = 1e-5
        ahead, behind = (
            of.evaluate(of.theta + s * vector, statistics=statistics).loss for s in (step, -step)
        )
        expected = (ahead - behind) / (2 * step)
        # Central differences in float64: truncation and rounding are both near 1e-9.
        assert float(of.gradient() @ vector) == pytest.approx(float(expected), rel=1e-6, abs=1e-8)


def test_loss_and_gradient_of_a_quadratic_are_its_own():
    of = quadratic_landscape()
    theta = of.theta + 0.3
    matrix, linear = of.model.matrix, of.model.linear
    assert float(of.loss(theta)) == pytest.approx(
        float(0.5 * theta @ matrix @ theta + linear @ theta), rel=1e-12
    )
    assert torch.allclose(of.gradient(theta), matrix @ theta + linear, rtol=1e-12)


def test_examples_weigh_the_same_in_a_ragged_last_batch():
    of = landscape("mlp")
    inputs, targets = examples()
    with torch.no_grad():
        expected = F.cross_entropy(of.model(inputs), targets)
        accuracy = (of.model(inputs).argmax(1) == targets).double().mean()
    found = of.evaluate(of.theta)
    assert float(found.loss) == pytest.approx(float(expected), rel=1e-12)
    assert float(found.accuracy) == float(accuracy)
    whole = Landscape(of.model, of.loss_fn, [(inputs, targets)])
    assert torch.allclose(of.gradient(), whole.gradient(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_model_untouched(policy, training):
    of = landscape("batchnorm", policy)
    of.model.train(training)
    before = snapshot(of.model)
    of.loss(of.theta + 0.1)
    of.gradient(of.theta + 0.1)
    of.statistics(of.theta)
    assert_unchanged(of.model, before)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_perturbed_model_is_restored_on_exception(policy, error):
    of = landscape("batchnorm", policy)
    of.model.train()
    before = snapshot(of.model)
    calls = 0

    def interrupt(module, inputs):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error

    handle = of.model.dropout.register_forward_pre_hook(interrupt)
    with pytest.raises(error):
        of.loss(of.theta + 1)
    handle.remove()
    assert_unchanged(of.model, before)


@pytest.mark.parametrize("policy", POLICIES)
def test_loss_at_theta_is_that_of_the_model_under_the_same_policy(policy):
    of = landscape("batchnorm", policy)
    inputs, targets = examples()
    model = build("batchnorm")
    if policy == "recalibrate":
        equal = list(zip(inputs.split(35), targets.split(35), strict=True))
        of = Landscape(of.model, of.loss_fn, equal, batchnorm=policy)
        model.dropout.p = 0.0  # update_bn would run it
        torch.optim.swa_utils.update_bn(equal, model)
        losses = [F.cross_entropy(model.eval()(x), y) for x, y in equal]
    elif policy == "frozen":
        losses = [F.cross_entropy(model.eval()(inputs), targets)]
    else:
        of = Landscape(of.model, of.loss_fn, [(inputs, targets)], batchnorm=policy)
        model.eval().bn.train()
        losses = [F.cross_entropy(model(inputs), targets)]
    assert float(of.loss(of.theta)) == pytest.approx(
        sum(x.item() for x in losses) / len(losses), rel=1e-12
    )


def test_stale_statistics_raise_the_loss_and_recalibration_does_not():
    """Scaling a layer before batch norm changes nothing unless statistics are stale."""
    stale, fresh = landscape("batchnorm", "frozen"), landscape("batchnorm", "recalibrate")
    scaled = {n: t.clone() for n, t in fresh.space.unflatten(fresh.theta).items()}
    scaled["conv.weight"] *= 50
    scaled["conv.bias"] *= 50
    theta = fresh.space.flatten(scaled)
    # The variance is 2500 times larger, so the 1e-5 added to it matters less: 1e-4 is its effect.
    assert float(fresh.loss(theta)) == pytest.approx(float(fresh.loss(fresh.theta)), rel=1e-4)
    assert float(stale.loss(theta)) > 5 * float(stale.loss(stale.theta))


def test_recalibration_weighs_a_ragged_batch_by_its_examples():
    of = landscape("batchnorm")
    found = of.statistics(of.theta)
    with torch.no_grad():
        batches = [of.model.conv(inputs) for inputs, _ in of.batches]
    weights = [len(b) / 70 for b in batches]
    mean = sum(w * b.mean((0, 2, 3)) for w, b in zip(weights, batches, strict=True))
    var = sum(w * b.var((0, 2, 3)) for w, b in zip(weights, batches, strict=True))
    assert torch.allclose(found["bn.running_mean"], mean, rtol=1e-12)
    assert torch.allclose(found["bn.running_var"], var, rtol=1e-12)


def test_recalibration_counts_every_use_of_a_shared_layer():
    layer = nn.BatchNorm1d(2).double()
    model = nn.Sequential(layer, layer)
    inputs = [torch.randn(8, 2, dtype=torch.float64) for _ in range(3)]
    found = recalibrate(
        model,
        dict(model.named_buffers()),
        inputs,
        lambda x, buffers: torch.func.functional_call(model, buffers, (x,)),
    )
    normalized = [(x - x.mean(0)) / (x.var(0, unbiased=False) + layer.eps).sqrt() for x in inputs]
    expected = torch.stack([x.mean(0) for x in (*inputs, *normalized)]).mean(0)
    assert torch.allclose(found["0.running_mean"], expected, rtol=1e-10, atol=1e-12)


def test_recalibration_uses_the_given_and_so_many_examples():
    inputs, targets = examples()
    train = [(inputs[:40], targets[:40]), (inputs[40:], targets[40:])]
    policy = BatchNormPolicy("recalibrate", num_examples=10)
    some = Landscape(build("batchnorm"), nn.CrossEntropyLoss(), loader(), batchnorm=policy)
    assert sum(map(len, some._recalibration)) == 10
    test = Landscape(
        build("batchnorm"), nn.CrossEntropyLoss(), [(inputs[:5], targets[:5])], recalibration=train
    )
    whole = Landscape(build("batchnorm"), nn.CrossEntropyLoss(), train)
    found, expected = test.statistics(test.theta), whole.statistics(whole.theta)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_batch_policy_differentiates_through_the_statistics():
    """A shift before batch norm has no effect then, so its derivative is zero."""
    of = landscape("batchnorm", "batch")
    gradient = of.space.unflatten(of.gradient())
    assert gradient["conv.bias"].abs().max() < 1e-12
    held = landscape("batchnorm", "frozen")
    assert held.space.unflatten(held.gradient())["conv.bias"].abs().max() > 1e-4


def test_dropout_is_off_under_every_policy():
    for policy in POLICIES:
        of = landscape("batchnorm", policy)
        of.model.train()
        assert float(of.loss(of.theta)) == float(of.loss(of.theta))


def test_unused_parameters_have_zero_gradient():
    of = landscape("partly_used")
    gradient = of.space.unflatten(of.gradient())
    assert not gradient["unused.weight"].any()
    assert gradient["used.weight"].any()


def test_theta_is_the_one_of_the_moment():
    of = landscape("mlp")
    before = float(of.loss(of.theta))
    with torch.no_grad():
        for parameter in of.model.parameters():
            parameter.add_(1)
    assert float(of.loss(of.theta)) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype(dtype):
    of = Landscape(build("mlp", dtype), nn.CrossEntropyLoss(), loader(dtype=dtype))
    assert of.theta.dtype == of.gradient().dtype == dtype
    assert math.isfinite(of.loss(of.theta))


def test_autocast_is_near_full_precision():
    plain = Landscape(
        build("mlp", torch.float32), nn.CrossEntropyLoss(), loader(dtype=torch.float32)
    )
    low = Landscape(
        plain.model, nn.CrossEntropyLoss(), loader(dtype=torch.float32), autocast=torch.bfloat16
    )
    # bfloat16 keeps 8 bits: relative errors near 4e-3 in each output.
    assert float(low.loss(low.theta)) == pytest.approx(float(plain.loss(plain.theta)), rel=2e-2)
    assert float(low.loss(low.theta)) != float(plain.loss(plain.theta))


def test_sample_draws_without_replacement_in_order():
    of = landscape("mlp")
    generator = torch.Generator().manual_seed(0)
    ((inputs, targets),) = of.sample(50, generator)
    everything, labels = examples()
    matches = (inputs[:, None] == everything[None]).flatten(2).all(2)
    assert (matches.sum(1) == 1).all()
    assert (matches.sum(0) <= 1).all()
    assert torch.equal(labels[matches.int().argmax(1)], targets)
    with pytest.raises(ValueError, match="between 1 and 70, got 71"):
        of.sample(71, generator)


def test_chance_loss_is_log_of_the_number_of_classes():
    assert landscape("mlp").chance_loss == pytest.approx(math.log(3))
    assert quadratic_landscape().chance_loss is None
    inputs, _ = examples()
    regression = Landscape(build("mlp"), nn.MSELoss(), [(inputs, torch.zeros(70, 3))])
    assert regression.chance_loss is None
    assert regression.evaluate(regression.theta).accuracy is None


def test_fingerprint_tells_landscapes_apart():
    same = {landscape("mlp").fingerprint(), landscape("mlp").fingerprint()}
    assert len(same) == 1
    other = build("mlp", seed=5)
    others = {
        landscape("batchnorm", "frozen").fingerprint(),
        landscape("batchnorm", "batch").fingerprint(),
        Landscape(other, nn.CrossEntropyLoss(), loader()).fingerprint(),
        Landscape(build("mlp"), nn.CrossEntropyLoss(), loader(num=60)).fingerprint(),
    }
    assert len(others | same) == 5


def test_modes_are_restored():
    model = BatchNormNet()
    model.train()
    model.dropout.eval()
    before = [m.training for m in model.modules()]
    with modes(model, batch_statistics=True):
        assert model.bn.training
        assert not model.conv.training
    assert [m.training for m in model.modules()] == before


def test_bad_input_is_named():
    model, loss_fn = build("mlp"), nn.CrossEntropyLoss()
    inputs, targets = examples()
    with pytest.raises(ValueError, match="loader is empty"):
        Landscape(model, loss_fn, [])
    with pytest.raises(ValueError, match="pair of tensors"):
        Landscape(model, loss_fn, [{"x": inputs}])
    with pytest.raises(ValueError, match="3 outputs, but there are labels up to 7"):
        Landscape(model, loss_fn, [(inputs, targets + 5)])
    with pytest.raises(ValueError, match="does not fit"):
        Landscape(model, nn.CrossEntropyLoss(), [(inputs, torch.zeros(70, 5, 5))])
    with pytest.raises(ValueError, match="reduction='mean'"):
        Landscape(model, nn.CrossEntropyLoss(reduction="sum"), [(inputs, targets)])
    with pytest.raises(ValueError, match="batchnorm must be one of"):
        Landscape(model, loss_fn, loader(), batchnorm="train")
    with pytest.raises(ValueError, match="must be positive"):
        BatchNormPolicy(num_examples=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("policy", POLICIES)
def test_gpu_agrees_with_cpu(policy):
    cpu = landscape("batchnorm", policy)
    gpu = Landscape(build("batchnorm").cuda(), nn.CrossEntropyLoss(), loader(), batchnorm=policy)
    assert gpu.theta.is_cuda
    # float64 on both; sums are taken in another order.
    assert float(gpu.loss(gpu.theta)) == pytest.approx(float(cpu.loss(cpu.theta)), rel=1e-10)
    assert torch.allclose(gpu.gradient().cpu(), cpu.gradient(), rtol=1e-8, atol=1e-10)
