"""Losses of batches are averaged as the loss would over all examples, or it is said."""

import pytest
import torch
from cases import build, direction, examples, loader
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import Evaluator, Landscape


class Tokens(nn.Module):
    """Scores of five classes for each of six positions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 30)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).view(len(x), 5, 6)


def tokens(ignored: float = 0.5, start: int = 0, value: int = -100) -> tuple[Tensor, Tensor]:
    """Images, and a class for each position; some are ignored from example ``start`` on."""
    inputs, _ = examples()
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(1, 5, (len(inputs), 6), generator=generator)
    dropped = torch.rand(targets.shape, generator=generator) < ignored
    dropped[:start] = False
    return inputs, targets.masked_fill(dropped, value)


def cut(inputs: Tensor, targets: Tensor, size: int = 16) -> list:
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def masked(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def padded(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, ignore_index=0)


def root(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean().sqrt()


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    similarity = F.normalize(outputs) @ F.normalize(outputs).T / 0.5
    same = targets[:, None] == targets[None]
    return -(similarity.log_softmax(1) * same).sum() / same.sum()


def cox(outputs: Tensor, targets: Tensor) -> Tensor:
    order = targets.argsort(descending=True, stable=True)
    risk = outputs[:, 0][order]
    return (risk.logcumsumexp(0) - risk).mean()


def warnings(caplog) -> list[str]:
    found = [r for r in caplog.records if r.levelname == "WARNING"]
    return [r.message for r in found if "no mean over examples" in r.message]


@pytest.mark.parametrize(
    ("loss", "batches"),
    [
        (masked, cut(*tokens())),
        (masked, cut(*tokens(start=60), size=8)),  # nothing is ignored before the last batches
        (padded, cut(*tokens(start=60, value=0), size=8)),
        (root, [(x, y[:, None].expand(-1, 3).double()) for x, y in loader()]),
        (contrastive, loader()),
        (cox, [(x, torch.linspace(0, 1, len(x)).double()) for x, _ in loader()]),
    ],
    ids=["ignored", "late", "padding", "root", "contrastive", "cox"],
)
def test_a_loss_that_is_no_mean_over_examples_is_said_once_with_its_size(loss, batches, caplog):
    model = (
        Tokens().double()
        if batches[0][1].dtype == torch.long
        and loss
        in (
            masked,
            padded,
        )
        else build("mlp")
    )
    of = Landscape(model, loss, batches)
    Evaluator(of, progress=False).curve(direction(of), torch.linspace(-1, 1, 3))
    (warning,) = warnings(caplog)
    assert "weight=lambda" in warning
    assert 0 < of.averaging.gap < 1
    whole = Landscape(
        model, loss, [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    )
    assert len(warnings(caplog)) == 1  # one batch needs no warning
    exact = loss(model(whole.batches[0].inputs), whole.batches[0].targets)
    assert len(whole.batches) == 1
    assert float(whole.loss(whole.theta)) == pytest.approx(float(exact.detach()), rel=1e-10)


@pytest.mark.parametrize("start", [0, 60])
def test_a_weight_gives_the_loss_over_all_examples_at_once(start, caplog):
    inputs, targets = tokens(start=start)
    model = Tokens().double()

    def weight(batch):
        return (batch[1] != -100).sum()

    of = Landscape(model, masked, cut(inputs, targets), weight=weight)
    whole = Landscape(model, masked, [(inputs, targets)])
    point = of.theta + 0.1
    assert not warnings(caplog)
    assert of.plan.micro_batch is not None
    leaf = point.clone().requires_grad_()
    shapes = {"linear.weight": (30, 64), "linear.bias": (30,)}
    parts = zip(shapes, leaf.split([1920, 30]), strict=True)
    values = {name: part.view(shapes[name]) for name, part in parts}
    loss = masked(torch.func.functional_call(model, values, (inputs,)), targets)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert float(of.loss(point)) == pytest.approx(float(loss.detach()), rel=1e-12)
    assert torch.allclose(of.gradient(point), gradient, rtol=1e-10, atol=1e-14)
    vector = direction(of).vector
    product = whole.hessian(point) @ vector
    assert torch.allclose(of.hessian(point) @ vector, product, rtol=1e-9, atol=1e-12)
    batches = of.mini_batches(len(inputs))
    (one,) = batches.shuffled(torch.Generator())
    assert float(one(point)[0]) == pytest.approx(float(loss.detach()), rel=1e-12)
    with pytest.raises(ValueError, match="leave weight out"):
        Evaluator(of, tolerance=0.1)
    other = Landscape(model, masked, cut(inputs, targets))
    assert other.fingerprint() != of.fingerprint()


def test_a_wrong_weight_is_said(caplog):
    of = Landscape(Tokens().double(), masked, cut(*tokens()), weight=lambda batch: len(batch[0]))
    assert len(warnings(caplog)) == 1
    assert of.averaging.gap > 0
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        Landscape(build("mlp"), masked, loader(), weight=lambda batch: -1)
    with pytest.raises(ValueError, match=r"one number for a batch, got shape \(32,\)"):
        Landscape(build("mlp"), masked, loader(), weight=lambda batch: batch[1])


KINDS = {
    "indices": lambda n: torch.arange(n) % 3,
    "some ignored": lambda n: (torch.arange(n) % 3).masked_fill(torch.arange(n) > n // 2, -100),
    "signs": lambda n: torch.sin(torch.arange(3.0 * n).view(n, 3)).sign().double(),
    "shares": lambda n: torch.sin(torch.arange(3.0 * n).view(n, 3)).double().softmax(1),
    "classes": lambda n: torch.arange(3 * n).view(n, 3) % 3,
}
WEIGHTS = torch.tensor([0.2, 1.0, 3.0]).double()
OWN = {
    "cross entropy": (nn.CrossEntropyLoss(), "indices"),
    "ignored": (nn.CrossEntropyLoss(), "some ignored"),
    "class weights": (nn.CrossEntropyLoss(WEIGHTS), "some ignored"),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), "some ignored"),
    "smoothed, weights": (nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.1), "some ignored"),
    "soft targets": (nn.CrossEntropyLoss(WEIGHTS), "shares"),
    "other index": (nn.CrossEntropyLoss(ignore_index=1), "indices"),
    "nll": (nn.NLLLoss(WEIGHTS), "some ignored"),
    "F.nll_loss": (F.nll_loss, "some ignored"),
    "bce": (nn.BCEWithLogitsLoss(pos_weight=WEIGHTS, weight=WEIGHTS), "shares"),
    "mse": (nn.MSELoss(), "shares"),
    "huber": (nn.HuberLoss(), "shares"),
    "smooth l1": (F.smooth_l1_loss, "shares"),
    "poisson": (nn.PoissonNLLLoss(), "shares"),
    "kl": (nn.KLDivLoss(), "shares"),
    "kl batchmean": (nn.KLDivLoss(reduction="batchmean"), "shares"),
    "soft margin": (nn.SoftMarginLoss(), "signs"),
    "hinge embedding": (nn.HingeEmbeddingLoss(), "signs"),
    "multi margin": (nn.MultiMarginLoss(weight=WEIGHTS), "indices"),
    "multilabel margin": (nn.MultiLabelMarginLoss(), "classes"),
    "multilabel soft margin": (nn.MultiLabelSoftMarginLoss(WEIGHTS), "shares"),
}


@pytest.mark.filterwarnings("ignore:reduction.*mean:UserWarning")  # torch's advice about kl
@pytest.mark.parametrize("name", OWN)
def test_torchs_own_losses_are_averaged_as_over_all_examples_at_once(name, caplog):
    loss, kind = OWN[name]
    inputs, _ = examples()
    targets = KINDS[kind](len(inputs))
    model = build("mlp")
    of = Landscape(model, loss, cut(inputs, targets, 25))
    expected = float(loss(model(inputs), targets).detach())
    assert float(of.loss(of.theta)) == pytest.approx(expected, rel=1e-12)
    assert not warnings(caplog)


class Frames(nn.Module):
    """Log probabilities of four symbols in eight frames."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).view(len(x), 8, 4).log_softmax(2)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 32)


@pytest.mark.parametrize("reduction", ["mean", "sum over symbols"])
def test_ctc_is_a_mean_over_examples_or_over_symbols(reduction, caplog):
    inputs, _ = examples()
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(1, 4, (len(inputs), 3), generator=generator)
    targets[:30, 2] = 0  # of two symbols

    def ctc(outputs: Tensor, targets: Tensor) -> Tensor:
        lengths = (targets > 0).sum(1)
        frames = torch.full((len(targets),), 8)
        how = "mean" if reduction == "mean" else "sum"
        loss = F.ctc_loss(outputs.transpose(0, 1), targets, frames, lengths, reduction=how)
        return loss if how == "mean" else loss / lengths.sum()

    model = Frames().double()
    of = Landscape(model, ctc, cut(inputs, targets))
    expected = float(ctc(model(inputs), targets).detach())
    if reduction == "mean":
        assert not warnings(caplog)
        assert float(of.loss(of.theta)) == pytest.approx(expected, rel=1e-10)
    else:
        assert len(warnings(caplog)) == 1
        weighted = Landscape(
            model, ctc, cut(inputs, targets), weight=lambda batch: (batch[1] > 0).sum()
        )
        assert len(warnings(caplog)) == 1
        assert float(weighted.loss(weighted.theta)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.long, torch.double, torch.bool])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_nothing_is_said_of_a_mean_over_examples_of_ones_own(shape, dtype, caplog):
    inputs, _ = examples()
    generator = torch.Generator().manual_seed(5)
    targets = (3 * torch.rand((len(inputs), *shape), generator=generator)).to(dtype)

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return (
            (outputs.mean(1) - targets.double().flatten(1).sum(1)).square().mean()
            if (targets.dim() > 1)
            else (outputs.mean(1) - targets.double()).square().mean()
        )

    of = Landscape(build("mlp"), mean, cut(inputs, targets))
    assert of.averaging is None
    assert of.plan.micro_batch is not None
    assert not warnings(caplog)


def test_derivatives_of_folded_layers_in_several_batches():
    """Batches that stay whole share folded weights, whose graph serves one derivative."""

    def offset(outputs: Tensor, targets: Tensor) -> Tensor:
        return root(outputs, F.one_hot(targets, 3).double())

    of = Landscape(build("batchnorm"), offset, loader(), batchnorm="frozen")
    assert len(of.plan.folding) == 1
    assert len(of.batches) == 3
    vector, step = direction(of).vector, 1e-5
    up, down = of.loss(of.theta + step * vector), of.loss(of.theta - step * vector)
    assert float(of.gradient() @ vector) == pytest.approx(float(up - down) / (2 * step), rel=1e-5)
