"""Every curvature operator against the dense matrix of torch.autograd, float64 on the CPU."""

import gc
import logging
import math
import weakref
from functools import cache

import numpy as np
import pytest
import torch
from cases import (
    MODELS,
    assert_unchanged,
    build,
    landscape,
    loader,
    quadratic_landscape,
    snapshot,
    vectors,
)
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from mining import InputError, Landscape, MatrixOperator, make_dense
from mining.curvature import CurvatureOperator
from mining.functional.execution_plan import ExecutionPlan
from mining.functional.fuse_batchnorm import Folding
from mining.functional.loss import LossFunction

#: Products of float64 arithmetic, up to some hundred terms of order one.
EXACT = {"rtol": 1e-10, "atol": 1e-10}
OPERATORS = ["hessian", "gauss_newton", "residual"]
POINTS = [
    *(pytest.param(name, "recalibrate", id=name) for name in MODELS if name != "counting"),
    pytest.param("batchnorm", "frozen", id="batchnorm-frozen"),
    pytest.param("batchnorm", "batch", id="batchnorm-batch"),
    pytest.param("shared", "batch", id="shared-batch"),
]
#: Without weight norm: torch's own second derivatives of it are wrong, central differences not.
DENSE_POINTS = [point for point in POINTS if point.id != "remembering"]


def one_hot_mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, F.one_hot(targets, outputs.shape[1]).to(outputs))


def reference(of: Landscape, kind: str, theta: Tensor, batches: list | None = None) -> Tensor:
    """Differentiate the loss of whole batches twice, one entry of θ after the other."""
    batches = of.batches if batches is None else batches
    network, statistics = of._prepared.network, of.statistics(theta)
    total = sum(batch.weight for batch in batches)
    size = of.space.size
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for inputs, targets, weight, *_ in batches:

        def outputs(flat: Tensor, inputs: Tensor = inputs) -> Tensor:
            tensors = network.tensors(flat, {n: b.clone() for n, b in statistics.items()})
            with network.modes(), network.substitution(tensors), sdpa_kernel(SDPBackend.MATH):
                return of.model(inputs)

        def loss(flat: Tensor, targets: Tensor = targets) -> Tensor:
            return of.loss_fn(outputs(flat), targets)

        if kind == "hessian":
            found = torch.autograd.functional.hessian(loss, theta)
        else:
            jacobian = torch.autograd.functional.jacobian(outputs, theta).flatten(0, 1)
            at = outputs(theta).detach()
            inner = torch.autograd.functional.hessian(
                lambda z, targets=targets: of.loss_fn(z, targets), at
            ).reshape(at.numel(), at.numel())
            found = jacobian.T @ inner @ jacobian
        matrix += weight / total * found
    return matrix


@cache
def dense(name: str, policy: str, loss: LossFunction) -> tuple[Landscape, dict[str, Tensor]]:
    # A ragged last batch, and no more examples than the mathematics needs.
    of = Landscape(build(name), loss, loader(20, 14), batchnorm=policy)
    matrices = {kind: reference(of, kind, away(of)) for kind in OPERATORS[:2]}
    return of, {**matrices, "residual": matrices["hessian"] - matrices["gauss_newton"]}


def away(of: Landscape) -> Tensor:
    """A point that is not the model's own θ."""
    generator = torch.Generator().manual_seed(3)
    return of.theta + 0.05 * torch.randn(of.space.size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize(("name", "policy"), DENSE_POINTS)
@pytest.mark.parametrize("loss", [F.cross_entropy, one_hot_mse], ids=["cross_entropy", "mse"])
def test_products_are_those_of_the_dense_matrix(kind, name, policy, loss):
    of, matrices = dense(name, policy, loss)
    operator, matrix = getattr(of, kind)(away(of)), matrices[kind]
    block = vectors(of.space.size)
    torch.testing.assert_close(operator @ block, matrix @ block, **EXACT)
    torch.testing.assert_close(operator @ block[:, 0], matrix @ block[:, 0], **EXACT)
    torch.testing.assert_close(make_dense(operator), (matrix + matrix.T) / 2, **EXACT)


@pytest.mark.parametrize(("name", "policy"), POINTS)
def test_hessian_is_the_derivative_of_the_gradient(name, policy):
    of = landscape(name, policy)
    theta, v = away(of), vectors(of.space.size, 1)[:, 0]
    step, fixed = 1e-6, of.statistics(theta)
    up, down = (of.gradient(theta + s * v, statistics=fixed) for s in (step, -step))
    difference = (up - down) / (2 * step)
    # Central differences: rounding 1e-16 / 1e-6 and truncation 1e-12 times third derivatives.
    torch.testing.assert_close(of.hessian(theta) @ v, difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize(("name", "policy"), POINTS)
def test_operator_is_symmetric_and_linear(kind, name, policy):
    operator = getattr(landscape(name, policy), kind)()
    v, w, x = vectors(operator.shape[0]).T
    hv, hw = operator @ v, operator @ w
    torch.testing.assert_close(v @ hw, w @ hv, **EXACT)
    torch.testing.assert_close(operator @ (2 * v - 3 * x), 2 * hv - 3 * (operator @ x), **EXACT)


@pytest.mark.parametrize("kind", OPERATORS)
def test_ragged_batches_and_micro_batches_weigh_every_example_the_same(kind):
    whole = Landscape(build("mlp"), nn.CrossEntropyLoss(), loader(70, 70))
    block = vectors(whole.space.size)
    expected = getattr(whole, kind)() @ block
    for size in (32, 7, 64):  # 70 = 2 * 32 + 6 = 64 + 6
        parts = Landscape(build("mlp"), nn.CrossEntropyLoss(), loader(70, size))
        torch.testing.assert_close(getattr(parts, kind)() @ block, expected, **EXACT)
        micro = getattr(whole, kind)(micro_batch=size)
        torch.testing.assert_close(micro @ block, expected, **EXACT)
        torch.testing.assert_close(
            getattr(parts, kind)(micro_batch=5, memory=0) @ block, expected, **EXACT
        )


def test_class_weights_and_ignored_targets_weigh_as_in_one_batch():
    weight = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
    inputs, targets = loader(70, 70)[0]
    targets = targets.clone()
    targets[::3] = -100
    targets[64:] = -100  # the last micro-batch counts for nothing
    of = Landscape(build("mlp"), nn.CrossEntropyLoss(weight), [(inputs, targets)])
    block = vectors(of.space.size)
    torch.testing.assert_close(
        of.hessian(micro_batch=32) @ block, of.hessian(micro_batch=70) @ block, **EXACT
    )


def test_batch_statistics_keep_batches_whole():
    of = landscape("batchnorm", "batch")
    block = vectors(of.space.size)
    torch.testing.assert_close(
        of.hessian(micro_batch=2) @ block, of.hessian() @ block, rtol=0, atol=0
    )


@pytest.mark.parametrize(("memory", "kept"), [(0, 0), (300_000, None), (None, 5)])
def test_kept_graphs_change_nothing(memory, kept):
    of = landscape("batchnorm")
    block = vectors(of.space.size)
    operator = of.hessian(micro_batch=16, memory=memory)  # 16, 16, 16, 16 and 6 of 32, 32 and 6
    expected = of.hessian(micro_batch=16, memory=0) @ block
    for _ in range(2):
        torch.testing.assert_close(operator @ block, expected, rtol=0, atol=1e-15)
    found = len(operator._graphs._kept)
    assert 0 < found < 5 if kept is None else found == kept


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_graphs_that_are_not_kept_go_one_by_one(kind, monkeypatch):
    of = landscape("batchnorm")
    operator = getattr(of, kind)(micro_batch=16, memory=0)
    v = vectors(of.space.size, 1)[:, 0]
    operator @ v
    build, alive, most = operator._graphs._build, weakref.WeakSet(), []

    def counted(loss, batch, part):
        gc.collect()
        most.append(len(alive))
        graph = build(loss, batch, part)
        leaves = graph[0] if kind == "hessian" else graph.leaves
        alive.add(next(iter(leaves.values())))
        return graph

    monkeypatch.setattr(operator._graphs, "_build", counted)
    operator @ v
    assert most == [0] * 5


@pytest.mark.parametrize("kind", OPERATORS)
def test_parameters_that_the_loss_does_not_use_have_no_curvature(kind):
    operator = getattr(landscape("partly_used"), kind)(parameters="unused")
    assert not make_dense(operator).any()


def test_micro_batches_of_a_loss_that_compares_examples_are_refused():
    def contrast(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs @ outputs.T).logsumexp(1).mean()

    of = Landscape(build("mlp"), contrast, loader(64, 64))
    with pytest.raises(ValueError, match=r"depend on each other\. Give micro_batch=64"):
        of.hessian(micro_batch=16)
    of.hessian(micro_batch=64)
    with pytest.raises(ValueError, match="micro_batch must be at least 1"):
        of.hessian(micro_batch=0)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", ["batchnorm", "partly_used", "shared"])
def test_restriction_is_a_block_of_the_matrix(kind, name):
    of = landscape(name)
    matrix = make_dense(getattr(of, kind)())
    chosen = of.space.names[::2]
    part = getattr(of, kind)(parameters=chosen)
    rows = torch.cat(
        [
            torch.full((size,), n in chosen)
            for n, size in zip(of.space.names, of.space.sizes, strict=True)
        ]
    )
    torch.testing.assert_close(make_dense(part), matrix[rows][:, rows], **EXACT)
    v = vectors(part.shape[0], 1)[:, 0]
    embedded = of.space.embed(v, part.space)
    assert torch.equal(embedded[rows], v)
    assert not embedded[~rows].any()


def test_one_layer_a_list_a_pattern_and_the_weights_can_be_chosen():
    of = landscape("batchnorm")
    assert of.hessian(parameters="linear").space.names == ("linear.weight", "linear.bias")
    assert of.hessian(parameters=["bn", "conv.bias"]).space.names == (
        "conv.bias",
        "bn.weight",
        "bn.bias",
    )
    assert of.hessian(parameters="*.bias").space.names == ("conv.bias", "bn.bias", "linear.bias")
    assert of.hessian(parameters="weights").space.names == ("conv.weight", "linear.weight")


def test_unknown_layers_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"'lineal'\. Give a layer \(conv, bn, linear\)"):
        landscape("batchnorm").hessian(parameters="lineal")
    with pytest.raises(ValueError, match="at least one"):
        landscape("batchnorm").hessian(parameters=[])


def test_logistic_regression_has_its_closed_form():
    of = Landscape(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)).double(),
        nn.CrossEntropyLoss(),
        loader(),
    )
    inputs = torch.cat([x for x, _ in loader()]).flatten(1)
    p = torch.softmax(inputs @ of.theta.view(3, 64).T, 1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("ncd,ni,nj->cidj", inner, inputs, inputs).reshape(192, 192) / 70
    torch.testing.assert_close(make_dense(of.hessian()), expected, **EXACT)
    torch.testing.assert_close(make_dense(of.gauss_newton()), expected, **EXACT)
    assert make_dense(of.residual()).abs().max() < 1e-12


def test_linear_regression_has_its_closed_form():
    inputs = torch.cat([x for x, _ in loader()]).flatten(1)
    pairs = [(x, x[:, :2]) for x in inputs.split(32)]
    of = Landscape(nn.Linear(64, 2, bias=False).double(), nn.MSELoss(), pairs)
    # The mean over 70 examples and 2 outputs of (Wx - y)².
    expected = torch.block_diag(*[2 * inputs.T @ inputs / 140] * 2)
    torch.testing.assert_close(make_dense(of.hessian()), expected, **EXACT)


def test_quadratic_loss_has_its_matrix():
    of = quadratic_landscape()
    torch.testing.assert_close(make_dense(of.hessian()), of.model.matrix, **EXACT)


def test_loss_without_curvature_in_the_outputs_has_a_zero_gauss_newton_matrix():
    of = quadratic_landscape()
    assert not make_dense(of.gauss_newton()).any()
    torch.testing.assert_close(make_dense(of.residual()), of.model.matrix, **EXACT)


@pytest.mark.parametrize("kind", OPERATORS)
def test_model_is_left_as_it_was(kind):
    model = build("shared")
    before = snapshot(model)
    of = Landscape(model, nn.CrossEntropyLoss(), loader())
    operator = getattr(of, kind)(away(of))
    operator @ vectors(of.space.size)
    assert_unchanged(model, before)
    with pytest.raises(ValueError, match="shape"):
        operator @ torch.zeros(3)
    assert_unchanged(model, before)


def test_second_product_is_the_same_as_the_first():
    operator = landscape("batchnorm", "batch").hessian()
    block = vectors(operator.shape[0])
    assert torch.equal(operator @ block, operator @ block)
    assert operator.products == 6


def test_scipy_multiplies_with_it():
    of = landscape("mlp")
    wrapped, matrix = of.hessian().to_scipy(), make_dense(of.hessian()).numpy()
    block = vectors(of.space.size).numpy()
    np.testing.assert_allclose(wrapped @ block, matrix @ block, **EXACT)
    np.testing.assert_allclose(wrapped.T @ block[:, 0], matrix @ block[:, 0], **EXACT)
    assert wrapped.dtype == np.float64


class Dropping(nn.Module):
    """Dropout that eval mode does not turn off."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x.flatten(1)), 0.01, training=True)


class DroppingDepth(Dropping):
    """Now and then skips a layer, for a whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.linear(x.flatten(1))
        return outputs if torch.rand(()) < 0.999 else 0 * outputs


def noisy_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs + 1e-9 * torch.randn_like(outputs), targets)


@pytest.mark.parametrize(
    ("model", "loss"),
    [(Dropping, F.cross_entropy), (DroppingDepth, F.cross_entropy), (nn.Flatten, noisy_loss)],
)
def test_stochastic_model_or_loss_is_refused(model, loss):
    network = model() if model is not nn.Flatten else build("mlp")
    of = Landscape(network.double(), loss, loader())
    with pytest.raises(ValueError, match="stochastic"):
        of.hessian()


def test_non_finite_loss_is_refused():
    of = landscape("mlp")
    with pytest.raises(ValueError, match="loss at theta is nan"):
        of.hessian(torch.full_like(of.theta, math.nan))


def test_attention_on_the_math_kernel_is_said_once(caplog):
    with caplog.at_level(logging.INFO):
        landscape("mlp").hessian()
        assert "math kernel" not in caplog.text
        landscape("attention").hessian()
    assert caplog.text.count("Attention uses the math kernel") == 1


def test_low_precision_is_refused():
    with pytest.raises(ValueError, match="noise"):
        landscape("mlp", autocast=torch.bfloat16).hessian()


def test_matrix_must_be_square():
    with pytest.raises(ValueError, match="square"):
        MatrixOperator(torch.zeros(2, 3))


def test_dense_matrix_that_is_not_symmetric_is_refused():
    with pytest.raises(ValueError, match="not symmetric"):
        make_dense(MatrixOperator(vectors(3)))


def test_dense_matrix_that_does_not_fit_is_refused():
    class Huge(CurvatureOperator):
        def _multiply(self, rows: Tensor) -> Tensor:
            raise AssertionError

    with pytest.raises(MemoryError, match="GiB"):
        make_dense(Huge(10**7, torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 3, 2)])
def test_batch_norm_as_an_affine_map_is_batch_norm(affine, shape):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    layer = kind(4, affine=affine).double()
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    inputs = vectors(math.prod(shape), 1).view(shape)
    expected = layer.eval()(inputs)
    run = Folding().fold(layer, {}, affine=True)
    torch.testing.assert_close(run(inputs), expected, rtol=1e-12, atol=1e-12)
    expected = layer.train()(inputs)
    assert torch.equal(run(inputs), expected)  # statistics of the batch are left to torch


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", OPERATORS)
def test_products_on_a_gpu_are_those_on_the_cpu(kind):
    on_cpu = landscape("batchnorm")
    on_gpu = Landscape(build("batchnorm").cuda(), nn.CrossEntropyLoss(), loader())
    block = vectors(on_cpu.space.size)
    found = getattr(on_gpu, kind)() @ block
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), getattr(on_cpu, kind)() @ block, **EXACT)


def test_second_derivatives_of_weight_norm_are_right():
    # torch's own are wrong by half of their size: the truth is that of the formula.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(64, 3, bias=False)),
        ).double()
    of = Landscape(model, F.cross_entropy, loader())

    def loss(flat: Tensor) -> Tensor:
        values = of.space.unflatten(flat)
        g, v = (values[f"1.parametrizations.weight.original{k}"] for k in range(2))
        weight = v * (g / v.square().sum(1, keepdim=True).sqrt())
        batches = [(F.linear(x.flatten(1), weight), y) for x, y in loader()]
        return F.cross_entropy(*(torch.cat(tensors) for tensors in zip(*batches, strict=True)))

    expected = torch.autograd.functional.hessian(loss, of.theta)
    torch.testing.assert_close(make_dense(of.hessian()), expected, **EXACT)


@pytest.mark.parametrize("running", [False, True])
def test_second_derivatives_of_instance_norm_are_right(running):
    # torch's own are wrong for one example whose channels are last in memory.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(2, 2, 3),
            torch.nn.InstanceNorm2d(2, affine=True, track_running_stats=running),
            torch.nn.Tanh(),
            torch.nn.Flatten(),
            torch.nn.Linear(72, 3),
        ).double()
        one = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    one = one.contiguous(memory_format=torch.channels_last)
    plan = ExecutionPlan(channels_last=True)
    of = Landscape(model, F.cross_entropy, [(one, torch.ones(1).long())], plan=plan)
    v, fixed = vectors(of.space.size, 1)[:, 0], of.statistics(of.theta)
    up, down = (of.gradient(of.theta + s * v, statistics=fixed) for s in (1e-6, -1e-6))
    # Central differences, as above.
    torch.testing.assert_close(of.hessian() @ v, (up - down) / 2e-6, rtol=1e-6, atol=1e-7)


class ChannelsToTokens(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).tanh()


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("policy", ["frozen", "batch"])
def test_gradients_of_instance_norm_of_one_example_are_those_of_the_loss(running, policy):
    # torch's own are wrong where the gradient of the output has its channels last in memory.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3),
            torch.nn.InstanceNorm2d(3, affine=True, track_running_stats=running),
            ChannelsToTokens(),
            torch.nn.Flatten(),
            torch.nn.Linear(108, 3),
        ).double()
        one = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    of = Landscape(model, F.cross_entropy, [(one, torch.ones(1).long())], batchnorm=policy)
    v = vectors(of.space.size, 1)[:, 0]
    # Of a three times differentiable loss: an error of 1e-12 |v|^3, and rounding of 1e-10.
    slope = (of.loss(of.theta + 1e-6 * v) - of.loss(of.theta - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(of.gradient() @ v, slope, rtol=1e-6, atol=1e-8)
    up, down = (of.gradient(of.theta + s * v) for s in (1e-6, -1e-6))
    torch.testing.assert_close(of.hessian() @ v, (up - down) / 2e-6, rtol=1e-6, atol=1e-7)
    make_dense(of.gauss_newton())  # which refuses matrices that are not symmetric


def test_unsigned_targets_of_the_soft_margin_loss_are_refused():
    targets = torch.tensor([[1], [255]], dtype=torch.uint8)
    outputs = torch.tensor([[0.1], [0.2]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.soft_margin_loss(outputs, targets), outputs)
    # That of log(1 + exp(-255 x)) is -127.5 near 0; torch's shows why it is refused.
    assert not torch.isclose(gradient[1, 0], torch.tensor(-127.5, dtype=torch.float64), rtol=0.1)
    model = torch.nn.Linear(2, 1).double()
    pairs = [(torch.randn(2, 2, dtype=torch.float64), targets)]
    for loss in (torch.nn.SoftMarginLoss(), lambda o, t: F.soft_margin_loss(o, target=t)):
        with pytest.raises(InputError, match="must be signed"):
            Landscape(model, loss, pairs)


def test_functions_without_second_derivative_are_named():
    model = torch.nn.Sequential(torch.nn.EmbeddingBag(9, 4), torch.nn.Linear(4, 3))
    tokens = torch.randint(9, (6, 5), generator=torch.Generator().manual_seed(0))
    of = Landscape(model, F.cross_entropy, [(tokens, tokens[:, 0] % 3)])
    assert of.gradient().any()
    with pytest.raises(InputError, match="no second derivative of a function"):
        of.hessian() @ torch.ones(of.space.size)


def test_second_derivatives_of_sure_probabilities_are_right():
    # torch's own are wrong for probabilities within 1e-12 of 0 or 1.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 2), torch.nn.Sigmoid()
        ).double()
    model[1].weight.data *= 30
    batches = [(x, torch.stack([y > 0, y > 1], 1).double()) for x, y in loader()]
    of = Landscape(model, torch.nn.BCELoss(), batches)
    logits = Landscape(model[:2], F.binary_cross_entropy_with_logits, batches)
    v = vectors(of.space.size)
    outputs = model(batches[0][0])
    assert outputs.minimum(1 - outputs).min() < 1e-13
    # 1 - p has lost all but three digits where it is 1e-13.
    torch.testing.assert_close(of.hessian() @ v, logits.hessian() @ v, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("memory", [None, 0], ids=["kept", "rebuilt"])
@pytest.mark.parametrize("kind", ["hessian", "gauss_newton", "residual"])
@pytest.mark.parametrize("name", ["mlp", "batchnorm", "tied", "shared", "attention"])
def test_blocks_on_shared_graphs_are_diagonal_blocks_of_the_dense_matrix(name, kind, memory):
    of = landscape(name)
    operator = getattr(of, kind)(memory=memory)
    dense = make_dense(operator)
    places = dict(
        zip(of.space.names, torch.arange(of.space.size).split(of.space.sizes), strict=True)
    )
    total = 0.0
    for layer, names in of.space.layers.items():
        block = operator.block(names)
        inside = torch.cat([places[name] for name in names])
        found = make_dense(block)
        assert block.space.names == names, layer
        torch.testing.assert_close(found, dense[inside][:, inside], rtol=1e-10, atol=1e-10)
        alone = getattr(of, kind)(parameters=names)
        vector = vectors(len(inside), 1)[:, 0]
        torch.testing.assert_close(block @ vector, alone @ vector, rtol=1e-10, atol=1e-10)
        total += float(found.trace())
    assert total == pytest.approx(float(dense.trace()))
