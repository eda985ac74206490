"""Batches of any structure and losses that are sums, against plain PyTorch in float64."""

from collections import UserDict, namedtuple
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining import (
    Direction,
    Evaluator,
    InputError,
    Landscape,
    eigenpairs,
    make_dense,
    trace,
)
from mining.functional import pytrees

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SIZES = (4, 4, 3)


def mlp(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs))


def conv(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, outputs)
    )


class FromDict(nn.Module):
    """Takes the whole mapping."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, data):
        return self.net(data["x"])


class ByName(nn.Module):
    """Takes the items of a mapping as arguments."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, features, scale=None):
        return self.net(features if scale is None else features * scale)


class TwoArguments(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, left, right):
        return self.net(left + right)


class OneTuple(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pair):
        return self.net(pair[0] + pair[1])


def features(shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, *shape, generator=generator).double() for n in SIZES]


def targets(kind: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    if kind == "classes":
        return [torch.randint(3, (n,), generator=generator) for n in SIZES]
    if kind == "bits":
        return [torch.randint(2, (n, 2), generator=generator).double() for n in SIZES]
    return [torch.randn(n, 2, generator=generator).double() for n in SIZES]


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss, "classes", 3),
    "MSE": (nn.MSELoss, "reals", 2),
    "BCE": (nn.BCEWithLogitsLoss, "bits", 2),
}


def problem(net: str, loss: str, reduction: str, wrap: str):
    kind, labels, outputs = LOSSES[loss]
    torch.manual_seed(2)
    model = (conv if net == "conv" else mlp)(outputs)
    x = features((1, 5, 5) if net == "conv" else (3,))
    if wrap == "whole mapping":
        model, inputs = FromDict(model), [UserDict(x=part) for part in x]
    elif wrap == "names":
        model = ByName(model)
        inputs = [{"features": part, "scale": torch.ones(len(part), 1).double()} for part in x]
    elif wrap == "two arguments":
        model, inputs = TwoArguments(model), [(part / 3, part) for part in x]
    elif wrap == "one tuple":
        model, inputs = OneTuple(model), [(part / 3, part) for part in x]
    else:
        inputs = x
    return (
        model.double(),
        kind(reduction=reduction),
        list(zip(inputs, targets(labels), strict=True)),
    )


def call(model: nn.Module, tensors: dict, inputs) -> Tensor:
    if isinstance(model, ByName):
        return functional_call(model, tensors, (), inputs)
    if isinstance(model, TwoArguments):
        return functional_call(model, tensors, inputs)
    return functional_call(model, tensors, (inputs,))


SUMS = [
    ("mlp", "cross-entropy", "sum", "tensor"),
    ("mlp", "MSE", "sum", "tensor"),
    ("mlp", "BCE", "sum", "tensor"),
    ("conv", "cross-entropy", "sum", "tensor"),
    ("conv", "MSE", "sum", "tensor"),
    ("conv", "BCE", "sum", "tensor"),
    ("mlp", "cross-entropy", "sum", "names"),
    ("mlp", "MSE", "sum", "whole mapping"),
]
STRUCTURES = [
    ("mlp", "cross-entropy", "mean", "whole mapping"),
    ("mlp", "MSE", "mean", "whole mapping"),
    ("mlp", "BCE", "mean", "whole mapping"),
    ("mlp", "cross-entropy", "mean", "names"),
    ("mlp", "MSE", "mean", "two arguments"),
    ("mlp", "BCE", "mean", "one tuple"),
]


@pytest.mark.parametrize("case", SUMS + STRUCTURES, ids="-".join)
def test_operators_are_the_dense_matrices_of_all_examples_at_once(case):
    model, loss_fn, batches = problem(*case)
    of = Landscape(model, loss_fn, batches, count=lambda batch: len(batch[1]))
    inputs = pytrees.cat([x for x, _ in batches])
    labels = torch.cat([y for _, y in batches])

    def outputs(theta: Tensor) -> Tensor:
        return call(model, of.space.unflatten(theta), inputs)

    def loss(theta: Tensor) -> Tensor:
        return loss_fn(outputs(theta), labels)

    assert of.num_examples == sum(SIZES)
    torch.testing.assert_close(of.loss(of.theta), loss(of.theta), **EXACT)
    expected = torch.autograd.functional.jacobian(loss, of.theta)
    torch.testing.assert_close(of.gradient(), expected, **EXACT)
    hessian = torch.autograd.functional.hessian(loss, of.theta)
    torch.testing.assert_close(make_dense(of.hessian()), hessian, **EXACT)
    torch.testing.assert_close(make_dense(of.hessian(micro_batch=2)), hessian, **EXACT)
    at = outputs(of.theta)
    jacobian = torch.autograd.functional.jacobian(outputs, of.theta).flatten(0, 1)
    curved = torch.autograd.functional.hessian(lambda z: loss_fn(z, labels), at)
    curved = curved.reshape(at.numel(), at.numel())
    gauss_newton = make_dense(of.gauss_newton())
    torch.testing.assert_close(gauss_newton, jacobian.T @ curved @ jacobian, **EXACT)
    torch.testing.assert_close(make_dense(of.residual()), hessian - gauss_newton, **EXACT)
    last = f"{of.space.names[-1]}"
    block = make_dense(of.hessian(parameters=last))
    torch.testing.assert_close(block, hessian[-len(block) :, -len(block) :], **EXACT)


@pytest.mark.parametrize("case", SUMS[:2] + STRUCTURES[3:5], ids="-".join)
def test_curves_and_accuracy(case):
    model, loss_fn, batches = problem(*case)
    of = Landscape(model, loss_fn, batches)
    inputs, labels = (pytrees.cat(column) for column in zip(*batches, strict=True))
    vector = torch.randn(of.space.size, generator=torch.Generator().manual_seed(0)).double()
    curve = Evaluator(of, progress=False, test=batches[:1]).curve(
        Direction(vector, "x"), torch.linspace(-1, 1, 3)
    )
    for alpha, found in zip(curve.alphas.tolist(), curve.loss, strict=True):
        outputs = call(model, of.space.unflatten(of.theta + alpha * vector), inputs)
        assert float(found) == pytest.approx(float(loss_fn(outputs, labels)), rel=1e-10)
    if of.scores_classes:
        right = (outputs.argmax(1) == labels).double().mean()
        assert float(curve.accuracy[-1]) == pytest.approx(float(right))
        chance = torch.tensor(3.0).log() * (sum(SIZES) if loss_fn.reduction == "sum" else 1)
        assert of.chance_loss == pytest.approx(float(chance), rel=1e-6)
    assert str(of)


def test_a_sum_may_be_the_keyword_of_a_partial_function():
    model, _, batches = problem(*SUMS[0])
    of = Landscape(model, partial(F.cross_entropy, reduction="sum"), batches)
    same = Landscape(model, nn.CrossEntropyLoss(reduction="sum"), batches)
    torch.testing.assert_close(of.loss(of.theta), same.loss(same.theta), **EXACT)


def test_a_sum_in_mini_batches_estimates_the_sum_over_all():
    model, loss_fn, batches = problem(*SUMS[0])
    of = Landscape(model, loss_fn, batches)
    found = [on(of.theta)[0] for on in of.mini_batches(1).shuffled(torch.Generator())]
    assert float(torch.stack(found).mean()) == pytest.approx(float(of.loss(of.theta)), rel=1e-10)
    with pytest.raises(InputError, match="plain mean"):
        Evaluator(of, tolerance=0.1)
    with pytest.raises(InputError, match="leave it out for a sum"):
        Landscape(model, loss_fn, batches, weight=lambda batch: 1)


@pytest.mark.parametrize("case", STRUCTURES[:1] + STRUCTURES[3:4], ids="-".join)
def test_structures_are_cut_and_picked_as_tensors_are(case):
    model, loss_fn, batches = problem(*case)
    of = Landscape(model, loss_fn, batches)
    generator = torch.Generator().manual_seed(0)
    assert sum(b.num_examples for b in of.sample(5, generator)) == 5
    everything = of.evaluate(of.theta, of.sample(of.num_examples, generator)).loss
    torch.testing.assert_close(everything, of.loss(of.theta), **EXACT)
    exact = Evaluator(of, progress=False)
    estimated = Evaluator(of, progress=False, tolerance=0.01)
    vector = Direction(torch.ones(of.space.size).double() / 10, "x")
    alphas = torch.linspace(-1, 1, 3)
    torch.testing.assert_close(
        estimated.curve(vector, alphas).loss, exact.curve(vector, alphas).loss, rtol=0.1, atol=0
    )
    assert of.fingerprint() == Landscape(model, loss_fn, batches).fingerprint()
    moved = [(pytrees.map_tensors(lambda x: x + 1, x), y) for x, y in batches]
    assert of.fingerprint() != Landscape(model, loss_fn, moved).fingerprint()


@pytest.mark.parametrize("policy", ["recalibrate", "frozen", "batch"])
def test_batch_norm_of_structures_is_that_of_tensors(policy):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    pairs = list(zip(features((3,)), targets("classes"), strict=True))
    of = Landscape(net, nn.CrossEntropyLoss(), pairs, batchnorm=policy)
    wrapped = [({"x": x}, y) for x, y in pairs]
    found = Landscape(FromDict(net), nn.CrossEntropyLoss(), wrapped, batchnorm=policy)
    point = of.theta + 0.1
    torch.testing.assert_close(found.loss(point), of.loss(point), **EXACT)
    torch.testing.assert_close(found.gradient(point), of.gradient(point), **EXACT)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens):
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])


def test_an_lstm_on_tokens():
    torch.manual_seed(0)
    model = Tagger().double()
    batches = [(torch.randint(7, (n, 4)), torch.randint(3, (n,))) for n in SIZES]
    of = Landscape(model, nn.CrossEntropyLoss(), batches)
    tokens, labels = (torch.cat(column) for column in zip(*batches, strict=True))

    def loss(theta: Tensor) -> Tensor:
        outputs = functional_call(model, of.space.unflatten(theta), (tokens,))
        return F.cross_entropy(outputs, labels)

    point = (of.theta + 0.1).requires_grad_()
    torch.testing.assert_close(of.loss(point.detach()), loss(point).detach(), **EXACT)
    (slope,) = torch.autograd.grad(loss(point), point, create_graph=True)
    torch.testing.assert_close(of.gradient(point.detach()), slope.detach(), **EXACT)
    vector = torch.randn(of.space.size, generator=torch.Generator().manual_seed(0)).double()
    (product,) = torch.autograd.grad(slope @ vector, point)
    torch.testing.assert_close(of.hessian(point.detach()) @ vector, product, **EXACT)
    dense = torch.autograd.functional.hessian(loss, of.theta)
    found = eigenpairs(of.hessian(), 2, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.eigvalsh(dense).flip(0)[:2]
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-8)
    # With a sketch of the whole space the trace is exact.
    estimate = trace(of.hessian(), "hutch++", num_products=3 * len(of.theta) + 6)
    assert estimate.mean == pytest.approx(float(dense.trace()), rel=1e-8)
    curve = Evaluator(of, progress=False).curve(
        Direction(vector, "random"), torch.linspace(-1, 1, 3)
    )
    losses = [loss(of.theta + a * vector).item() for a in curve.alphas.tolist()]
    torch.testing.assert_close(curve.loss, torch.tensor(losses).double(), rtol=1e-6, atol=0)


class WithLogits(nn.Module):
    """Returns no tensor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return SimpleNamespace(logits=self.net(x), hidden=x)


def whole(outputs, labels):
    return F.cross_entropy(outputs.logits, labels) + outputs.hidden.square().mean()


def of_logits(outputs, labels):
    return F.cross_entropy(outputs, labels)


@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), of_logits, whole])
def test_outputs_that_are_no_tensor(loss_fn):
    torch.manual_seed(0)
    model = WithLogits(mlp(3)).double()
    batches = list(zip(features((3,)), targets("classes"), strict=True))
    of = Landscape(model, loss_fn, batches)
    x, y = (torch.cat(column) for column in zip(*batches, strict=True))
    outputs = model(x) if loss_fn is whole else model(x).logits
    if loss_fn is whole:  # the penalty is a mean over examples
        assert not of.scores_classes
    else:
        assert of.scores_classes
        assert of.gauss_newton().shape == (of.space.size,) * 2
    assert float(of.loss(of.theta)) == pytest.approx(float(loss_fn(outputs, y)), rel=1e-12)


def test_targets_of_another_structure():
    torch.manual_seed(0)
    model = mlp(2).double()
    pairs = [
        (x, {"y": y, "w": y[:, 0].exp()})
        for x, y in zip(features((3,)), targets("reals"), strict=True)
    ]

    def weighted(outputs, found):
        return ((outputs - found["y"]).square().sum(1) * found["w"]).mean()

    of = Landscape(model, weighted, pairs)
    x, y = pytrees.cat(pairs)
    assert float(of.loss(of.theta)) == pytest.approx(float(weighted(model(x), y)), rel=1e-12)
    with pytest.raises(InputError, match="needs outputs"):
        of.gauss_newton()


Point = namedtuple("Point", "x y")


@dataclass
class Sample:
    x: Tensor
    scale: float


def test_structures_keep_their_kind():
    tree = {"a": [torch.ones(2), Point(torch.zeros(2, 3), None)], "b": Sample(torch.ones(2), 0.5)}
    mapped = pytrees.map_tensors(lambda x: x + 1, tree)
    assert isinstance(mapped["a"][1], Point)
    assert isinstance(mapped["b"], Sample)
    assert torch.equal(mapped["a"][1].x, torch.ones(2, 3))
    assert torch.equal(tree["b"].x, torch.ones(2))
    assert pytrees.num_examples(tree) == 2
    assert pytrees.is_divisible(tree)
    assert pytrees.signature(tree) == pytrees.signature(mapped)
    assert not pytrees.is_divisible((torch.ones(2), torch.ones(3)))
    assert not pytrees.is_divisible((torch.ones(2), ["a", "b"]))
    with pytest.raises(InputError, match="told apart"):
        pytrees.split((torch.ones(2), torch.ones(3)), 1)
