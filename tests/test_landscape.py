import math
from dataclasses import replace
from functools import partial

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

from mining import BatchNormPolicy, Evaluator, InputError, Landscape
from mining.functional.batchnorm import modes, recalibrate
from mining.functional.execution_plan import ExecutionPlan

POLICIES = ("recalibrate", "frozen", "batch")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_gradient_matches_finite_differences(name, policy):
    of = landscape(name, policy)
    theta = of.theta + 0.1 * direction(of, 9).vector
    statistics = of.statistics(theta)  # held fixed by definition of the derivative
    for seed in range(3):
        vector = direction(of, seed).vector
        step = 1e-7  # a longer one meets kinks of the rectifiers
        ahead, behind = (
            of.evaluate(theta + s * vector, statistics=statistics).loss for s in (step, -step)
        )
        expected = (ahead - behind) / (2 * step)
        # Rounding of float64 over the step: 1e-16 / 1e-7, times some.
        assert float(of.gradient(theta) @ vector) == pytest.approx(
            float(expected), rel=1e-6, abs=1e-7
        )


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
@pytest.mark.parametrize("name", MODELS)
def test_evaluation_leaves_the_model_untouched(name, policy, training):
    of = landscape(name, policy)
    of.model.train(training)
    before = snapshot(of.model)
    of.loss(of.theta + 0.1)
    of.gradient(of.theta + 0.1)
    of.statistics(of.theta)
    assert_unchanged(of.model, before)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_perturbed_model_is_restored_on_exception(policy, error):
    of = landscape("batchnorm", policy, plan=ExecutionPlan(None if policy == "batch" else 32))
    of.model.train()
    before = snapshot(of.model)
    calls = 0

    def interrupt(module, inputs):
        nonlocal calls
        calls += 1
        if calls == (5 if policy == "recalibrate" else 2):  # in the middle of the evaluation
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
        order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
        torch.optim.swa_utils.update_bn([inputs[chosen] for chosen in order.split(35)], model)
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
    model = build("batchnorm")
    inputs = examples()[0].split([32, 32, 6])
    with torch.no_grad():
        recalibrate(model, inputs, model)
        batches = [model.conv(x) for x in inputs]
    weights = [len(b) / 70 for b in batches]
    mean = sum(w * b.mean((0, 2, 3)) for w, b in zip(weights, batches, strict=True))
    var = sum(w * b.var((0, 2, 3)) for w, b in zip(weights, batches, strict=True))
    assert torch.allclose(model.bn.running_mean, mean, rtol=1e-12)
    assert torch.allclose(model.bn.running_var, var, rtol=1e-12)


def test_recalibration_counts_every_use_of_a_shared_layer():
    layer = nn.BatchNorm1d(2).double()
    model = nn.Sequential(layer, layer)
    inputs = [torch.randn(8, 2, dtype=torch.float64) for _ in range(3)]
    recalibrate(model, inputs, model)
    normalized = [(x - x.mean(0)) / (x.var(0, unbiased=False) + layer.eps).sqrt() for x in inputs]
    expected = torch.stack([x.mean(0) for x in (*inputs, *normalized)]).mean(0)
    assert torch.allclose(layer.running_mean, expected, rtol=1e-10, atol=1e-12)


def test_recalibration_uses_the_given_and_so_many_examples():
    inputs, targets = examples()
    train = [(inputs[:40], targets[:40]), (inputs[40:], targets[40:])]
    policy = BatchNormPolicy("recalibrate", num_examples=10)
    some = Landscape(build("batchnorm"), nn.CrossEntropyLoss(), loader(), batchnorm=policy)
    assert sum(map(len, some._prepared.statistics.inputs)) == 10
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
    ((inputs, targets, *_),) = of.sample(50, generator)
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
    for loss_fn in (
        Sharpened(),
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]).double(), label_smoothing=0.2),
    ):
        assert Landscape(build("mlp"), loss_fn, loader()).chance_loss is None


class Sharpened(nn.CrossEntropyLoss):
    """Not log C for outputs that are all the same."""

    def forward(self, input, target):
        return super().forward(2 * input, target) + 1


def permuted():
    return [(inputs, targets.flip(0)) for inputs, targets in loader()]


def other_frozen():
    model = build("partly_used")
    model.frozen.weight.add_(1)
    return model


def tanh_instead_of_relu():
    model = build("mlp")
    model[2] = nn.Tanh()
    return model


def test_fingerprint_tells_landscapes_apart():
    cross_entropy = nn.CrossEntropyLoss()
    fingerprints = [
        of.fingerprint()
        for of in (
            landscape("mlp"),
            landscape("batchnorm", "frozen"),
            landscape("batchnorm", "batch"),
            landscape("partly_used"),
            Landscape(build("mlp", seed=5), cross_entropy, loader()),
            Landscape(build("mlp"), cross_entropy, loader(num=60)),
            Landscape(build("mlp"), cross_entropy, permuted()),
            Landscape(build("mlp"), nn.CrossEntropyLoss(label_smoothing=0.1), loader()),
            Landscape(build("mlp"), nn.CrossEntropyLoss(weight=torch.ones(3).double()), loader()),
            Landscape(build("mlp"), F.cross_entropy, loader()),
            Landscape(build("mlp"), F.multi_margin_loss, loader()),
            Landscape(other_frozen(), cross_entropy, loader()),
            Landscape(tanh_instead_of_relu(), cross_entropy, loader()),
        )
    ]
    fingerprints.append(landscape("mlp").fingerprint(landscape("mlp").hold(permuted())))
    assert len(set(fingerprints)) == len(fingerprints)
    assert landscape("mlp").fingerprint() == fingerprints[0]


def test_buffers_and_frozen_parameters_are_those_of_the_moment():
    for name, tensor in (("batchnorm", "bn.running_mean"), ("partly_used", "frozen.weight")):
        of = landscape(name, "frozen")
        before = float(of.loss(of.theta))
        of.model.state_dict()[tensor].add_(1)
        assert float(of.loss(of.theta)) == before


@pytest.mark.parametrize("policy", POLICIES)
def test_buffers_written_by_a_forward_pass_do_not_outlive_an_evaluation(policy):
    of = landscape("counting", policy)
    assert float(of.loss(of.theta)) == float(of.loss(of.theta))
    assert torch.equal(of.gradient(), of.gradient())


@pytest.mark.parametrize(
    "options",
    [{"ignore_index": 1}, {"weight": torch.tensor([1.0, 2.0, 5.0]).double()},
     {"ignore_index": 0, "weight": torch.tensor([1.0, 2.0, 5.0]).double(), "label_smoothing": 0.2}],
    ids=lambda options: "+".join(options),
)  # fmt: skip
def test_class_weights_and_ignored_targets_are_averaged_over_all_examples(options):
    inputs, targets = examples()
    targets[:32] = options.get("ignore_index", 0)  # a whole batch of them
    loss_fn = nn.CrossEntropyLoss(**options)
    batches = list(zip(inputs.split(32), targets.split(32), strict=True))
    of = Landscape(build("mlp"), loss_fn, batches)
    leaf = of.theta.clone().requires_grad_()
    outputs = torch.func.functional_call(of.model, of.space.unflatten(leaf), (inputs,))
    expected = loss_fn(outputs, targets)
    found = of.evaluate(of.theta)
    assert float(found.loss) == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(expected, leaf)
    assert torch.allclose(of.gradient(), gradient, rtol=1e-10, atol=1e-14)
    kept = targets != options.get("ignore_index", -100)
    accuracy = (outputs.argmax(1) == targets)[kept].double().mean()
    assert float(found.accuracy) == pytest.approx(float(accuracy))


def test_ignored_tokens_of_sequences_are_averaged_over_all_tokens():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(10, 4, 7, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (10, 7), generator=generator)
    targets[:5, 2:] = -100  # padding, in the first batch alone
    model = nn.Conv1d(4, 3, 1).double()
    batches = list(zip(inputs.split(5), targets.split(5), strict=True))
    for loss_fn in (nn.CrossEntropyLoss(), F.cross_entropy):
        of = Landscape(model, loss_fn, batches)
        expected = F.cross_entropy(model(inputs), targets).item()
        assert float(of.loss(of.theta)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_log_likelihoods_of_ignored_and_narrow_targets_are_averaged_over_all(dtype, as_function):
    inputs, targets = examples()
    ignored = -100 if dtype is torch.int64 else 2
    targets[:40] = torch.where(targets[:40] == 1, ignored, targets[:40])
    targets = targets.to(dtype)
    loss_fn = (
        F.nll_loss
        if as_function and ignored == -100
        else nn.NLLLoss(torch.tensor([1.0, 2.0, 5.0]).double(), ignore_index=ignored)
    )
    model = nn.Sequential(build("mlp"), nn.LogSoftmax(1))
    batches = list(zip(inputs.split(32), targets.split(32), strict=True))
    of = Landscape(model, loss_fn, batches)
    expected = loss_fn(model(inputs), targets.long()).item()
    assert float(of.loss(of.theta)) == pytest.approx(expected, rel=1e-12)


def tokens(num: int = 12):
    inputs = torch.randint(7, (num, 4), generator=torch.Generator().manual_seed(0))
    return inputs, inputs.sum(1) % 3


def embedding(kind=nn.Embedding, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [kind(7, 5, **options)] + [nn.Flatten()] * (kind is nn.Embedding)
        width = 20 if kind is nn.Embedding else 5
        return nn.Sequential(*layers, nn.Linear(width, 3)).double()


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("options", [{"sparse": True}, {"scale_grad_by_freq": True}])
def test_embeddings_have_the_gradient_of_the_loss(kind, options):
    inputs, targets = tokens()
    batches = list(zip(inputs.split(5), targets.split(5), strict=True))
    plain = Landscape(embedding(kind), nn.CrossEntropyLoss(), batches)
    model = embedding(kind, **options)
    of = Landscape(model, nn.CrossEntropyLoss(), batches)
    assert torch.equal(of.gradient(), plain.gradient())
    if kind is nn.Embedding:  # the other has no second derivative
        v = torch.randn(of.space.size, generator=torch.Generator().manual_seed(0)).double()
        assert torch.equal(of.hessian() @ v, plain.hessian() @ v)
    assert getattr(model[0], *options)


def test_gradient_of_the_padding_token_is_that_of_the_loss():
    of = Landscape(embedding(padding_idx=0), nn.CrossEntropyLoss(), [tokens()])
    step = torch.zeros_like(of.theta)
    step[:5] = 1e-6  # the first token
    difference = (of.loss(of.theta + step) - of.loss(of.theta - step)) / 2e-6
    assert float(of.gradient()[:5].sum()) == pytest.approx(float(difference), rel=1e-6)
    assert of.model[0].padding_idx == 0


def test_parameters_that_a_forward_pass_changes_are_refused():
    with pytest.raises(ValueError, match="changes parameters in place"):
        Landscape(embedding(max_norm=0.5), nn.CrossEntropyLoss(), [tokens()])


def test_a_batch_of_one_joins_its_neighbour():
    batches = loader(batch_size=23)  # 23, 23, 23, 1
    of = Landscape(build("shared"), nn.CrossEntropyLoss(), batches, plan=ExecutionPlan())
    assert [len(batch.inputs) for batch in of.batches] == [23, 23, 24]
    assert math.isfinite(of.loss(of.theta))


def test_scores_of_classes_are_those_of_a_cross_entropy():
    inputs, targets = examples()
    binary = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0)).double()

    def logistic(outputs, targets):
        return F.binary_cross_entropy_with_logits(outputs, targets.double())

    of = Landscape(binary, logistic, [(inputs, targets % 2)])
    assert not of.scores_classes
    counts = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    of = Landscape(counts, lambda o, t: (o.mean(1) - t).square().mean(), [(inputs, targets + 7)])
    assert not of.scores_classes
    assert of.evaluate(of.theta).accuracy is None


def test_the_recalibration_subset_is_random():
    policy = BatchNormPolicy(num_examples=10)
    of = Landscape(build("batchnorm"), nn.CrossEntropyLoss(), loader(), batchnorm=policy)
    chosen = torch.cat(list(of._prepared.statistics.inputs))
    inputs, _ = examples()
    assert not torch.equal(chosen, inputs[:10])
    assert all((inputs == x).flatten(1).all(1).any() for x in chosen)


def test_vectors_may_have_another_dtype_than_the_model():
    of = Landscape(build("mlp", torch.float32), nn.CrossEntropyLoss(), loader(dtype=torch.float32))
    assert float(of.loss(of.theta.double())) == float(of.loss(of.theta))


def test_autocast_hands_full_precision_to_the_loss():
    seen = []

    def loss_fn(outputs, targets):
        seen.append(outputs.dtype)
        return F.cross_entropy(outputs, targets)

    model = build("mlp", torch.float32)
    Landscape(model, loss_fn, loader(dtype=torch.float32), autocast=torch.bfloat16)
    assert set(seen) == {torch.float32}


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
    with pytest.raises(ValueError, match=r"Labels must be from 0 to 2, or -100.*got -1"):
        Landscape(model, loss_fn, [(inputs, targets - 1)])
    with pytest.raises(ValueError, match="labels up to 7"):
        Landscape(nn.Sequential(model, nn.LogSoftmax(1)), nn.NLLLoss(), [(inputs, targets + 5)])
    with pytest.raises(InputError, match=r"does not take inputs .* more than 1 value"):
        Landscape(nn.BatchNorm1d(3), loss_fn, [(torch.zeros(1, 3), targets[:1])], batchnorm="batch")
    with pytest.raises(InputError, match="bfloat16 are noise"):
        Landscape(build("mlp", torch.bfloat16), loss_fn, loader(dtype=torch.bfloat16)).hessian()
    ignored = Landscape(model, loss_fn, [(inputs, torch.full_like(targets, -100))])
    assert math.isnan(ignored.loss(ignored.theta))
    with pytest.raises(InputError, match="All targets are ignored"):
        ignored.gradient()
    with pytest.raises(InputError, match="All targets of a batch are ignored"):
        ignored.losses_of_examples([], [[]], ignored.batches)
    with pytest.raises(ValueError, match=r"does not take inputs \(70, 5\)"):
        Landscape(model, loss_fn, [(torch.zeros(70, 5), targets)])
    with pytest.raises(ValueError, match="must return a tensor, got tuple"):
        Landscape(nn.LSTM(8, 3), loss_fn, [(torch.zeros(70, 8), targets)])
    with pytest.raises(ValueError, match="3 outputs, but there are labels up to 9"):
        Landscape(model, loss_fn, loader()).hold([(inputs, targets + 7)])
    with pytest.raises(ValueError, match="does not fit"):
        Landscape(model, nn.CrossEntropyLoss(), [(inputs, torch.zeros(70, 5, 5))])
    with pytest.raises(ValueError, match="reduction='mean'"):
        Landscape(model, nn.CrossEntropyLoss(reduction="none"), [(inputs, targets)])
    with pytest.raises(ValueError, match="batchnorm must be one of"):
        Landscape(model, loss_fn, loader(), batchnorm="train")
    with pytest.raises(ValueError, match="must be at least 2"):
        BatchNormPolicy(num_examples=1)


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


def test_gradient_of_folded_batch_norm_over_several_passes():
    of = landscape("batchnorm", "frozen")
    several = landscape("batchnorm", "frozen", plan=replace(of.plan, micro_batch=16))
    assert len(of.plan.folding) == 1
    assert len(several.batches) == 5
    torch.testing.assert_close(several.gradient(), of.gradient())


def test_inputs_that_require_gradients_are_joined_without_a_common_graph():
    inputs, targets = examples()
    inputs = inputs.clone().requires_grad_()
    batches = list(zip(inputs.split(9), targets.split(9), strict=True))
    of = Landscape(build("mlp"), nn.CrossEntropyLoss(), batches)
    torch.testing.assert_close(of.gradient(), landscape("mlp").gradient())
    assert inputs.grad is None


@pytest.mark.parametrize("policy", POLICIES)
def test_inputs_that_require_gradients_are_normalized_in_the_same_batches(policy):
    inputs, targets = examples()
    inputs, targets = inputs[targets.argsort()].requires_grad_(), targets.sort().values
    of, plain = (
        Landscape(
            build("batchnorm"),
            nn.CrossEntropyLoss(),
            list(zip(x.split(9), targets.split(9), strict=True)),
            batchnorm=policy,
        )
        for x in (inputs, inputs.detach())
    )
    assert float(of.loss(of.theta)) == pytest.approx(float(plain.loss(plain.theta)), rel=1e-12)


def test_a_model_that_works_in_place_on_inputs_that_require_gradients_keeps_them():
    inputs, targets = examples()
    inputs.requires_grad_()
    before = inputs.detach().clone()
    model = nn.Sequential(nn.LeakyReLU(0.5, inplace=True), build("mlp"))
    of = Landscape(model, nn.CrossEntropyLoss(), [(inputs, targets)])
    plain = Landscape(model, nn.CrossEntropyLoss(), [(inputs.detach(), targets)])
    torch.testing.assert_close(of.loss(of.theta), plain.loss(of.theta))
    torch.testing.assert_close(of.gradient(), plain.gradient())
    assert torch.equal(inputs.detach(), before)


def test_batches_of_one_have_no_statistics_wherever_they_come():
    inputs, targets = examples(9)
    batches = list(zip(inputs.split([3, 1, 5]), targets.split([3, 1, 5]), strict=True))
    with pytest.raises(InputError, match="a batch of 1, which has no variance"):
        of = Landscape(build("in_place"), nn.CrossEntropyLoss(), batches, batchnorm="batch")
        of.loss(of.theta)


def test_a_first_batch_of_ignored_targets_leaves_the_hessian_of_the_others():
    inputs, targets = examples()
    batches = list(zip(inputs.split(35), [torch.full((35,), -100), targets[35:]], strict=True))
    others = Landscape(build("mlp"), nn.CrossEntropyLoss(), batches[1:])
    plan = ExecutionPlan()  # batches as they come
    of = Landscape(build("mlp"), nn.CrossEntropyLoss(), batches, plan=plan)
    v = torch.ones_like(of.theta)
    torch.testing.assert_close(of.hessian() @ v, others.hessian() @ v)


def test_outputs_that_are_broadcast_against_targets_are_warned_of(caplog):
    model = nn.Sequential(build("mlp"), nn.Linear(3, 1).double())
    inputs, targets = examples()
    batches = list(zip(inputs.split(32), targets.double().split(32), strict=True))
    with pytest.warns(UserWarning, match="target size"), caplog.at_level("WARNING"):
        Landscape(model, nn.MSELoss(), batches)  # (32, 1) and (32,): all pairs of examples
    assert "do not average" in caplog.text or "mean" in caplog.text


def test_parameters_that_a_loss_was_given_beforehand_are_refused():
    model = build("mlp")
    parameters = list(model.parameters())

    def kept(outputs, targets):
        return F.cross_entropy(outputs, targets) + sum(p.square().sum() for p in parameters)

    with pytest.raises(InputError, match=r"read 3.bias from a list"):
        Landscape(model, kept, loader())


def test_labels_without_a_class_weight_are_named():
    inputs, targets = examples()
    targets[3] = -100
    loss_fn = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]).double(), ignore_index=1)
    with pytest.raises(InputError, match=r"Labels must be from 0 to 2.*or 1, .*-100 to 2"):
        Landscape(build("mlp"), loss_fn, [(inputs, targets)])


def test_a_loss_that_compares_examples_is_warned_of_in_batches_of_one_too(caplog):
    def spread(outputs, targets):
        return F.cross_entropy(outputs, targets) - outputs.std(0, unbiased=False).mean()

    inputs, targets = examples(7)
    batches = list(zip(inputs.split(1), targets.split(1), strict=True))
    with caplog.at_level("WARNING"):
        Landscape(build("mlp"), spread, batches)
    assert "no mean over examples" in caplog.text


def test_a_loss_that_is_nearly_a_mean_has_no_losses_of_examples():
    def nearly(outputs, targets):
        return F.cross_entropy(outputs, targets) + 1e-6 * outputs.std()

    of = Landscape(build("mlp"), nearly, loader())
    with pytest.raises(InputError, match="plain mean"):
        of.losses_of_examples([], [[]], of.batches)


@pytest.mark.parametrize("size", [1, 2])
def test_ignored_targets_of_a_partial_are_warned_of_wherever_they_come(size, caplog):
    inputs, _ = examples(12)
    targets = torch.tensor([0, 0, 2, 0, 1, 0, 1, 0, 2, 2, 2, 0])
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    with caplog.at_level("WARNING"):
        Landscape(build("mlp"), partial(F.cross_entropy, ignore_index=1), batches)
    assert "no mean over examples" in caplog.text


def test_one_example_without_a_target_has_no_loss_under_any_policy():
    inputs, targets = examples(2)
    loss_fn = nn.CrossEntropyLoss(ignore_index=int(targets[0]))
    of = Landscape(build("batchnorm"), loss_fn, [(inputs[:1], targets[:1])])
    curve = Evaluator(of, progress=False).curve(direction(of), torch.linspace(-1, 1, 3))
    assert curve.loss.isnan().all()
