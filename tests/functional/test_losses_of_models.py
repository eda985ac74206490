"""Losses that read the model, against plain PyTorch with nothing of ours."""

from collections.abc import Callable

import pytest
import torch
from cases import build, direction, examples, loader, vectors
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import Evaluator, ExecutionPlan, InputError, Landscape, make_dense

#: Sums in another order, in float64.
EXACT = {"rtol": 1e-9, "atol": 1e-10}
ALPHAS = torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)


class Tempered(nn.Module):
    """A learnable temperature that the loss, not the model, divides by."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3))
        self.log_temperature = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Remembering(nn.Module):
    """Leaves a part of the loss behind, as variational autoencoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.penalty = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x)).tanh().mean((2, 3))
        self.penalty = features.square().sum(1).mean()
        return self.head(features)


def smooth_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3))


def watched() -> nn.Module:
    """A hook keeps what the convolution gives, which folding would change."""
    model = Remembering()
    model.conv.register_forward_hook(lambda module, _, output: setattr(model, "seen", output))
    return model


def weight_decay(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o, t) + 0.1 * sum(p.pow(2).sum() for p in net.parameters())


def decay_of_first_weight(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o, t) * net[1].weight.norm()


class ModuleLoss(nn.Module):
    """A loss that has the model, and a parameter of its own that is no part of it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.scale = net, nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        decay = sum(p.pow(2).sum() for p in self.net.parameters())
        return F.cross_entropy(outputs, targets) + self.scale * decay


def temperature(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o / net.log_temperature.exp(), t)


def consistency(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Runs the model again, on other inputs."""
    others = examples(7, seed=5)[0]
    return lambda o, t: F.cross_entropy(o, t) + net(others).square().mean()


def gradient_penalty(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Runs the model again and differentiates it by its inputs."""
    others = examples(7, seed=5)[0]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        with torch.enable_grad():
            inputs = others.clone().requires_grad_()
            (slope,) = torch.autograd.grad(net(inputs).sum(), inputs, create_graph=True)
        return F.cross_entropy(outputs, targets) + slope.square().sum(1).mean()

    return loss


def left_behind(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o, t) + net.penalty


def seen_by_a_hook(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda o, t: F.cross_entropy(o, t) + net.seen.square().mean()


def modes_and_buffers(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        factor = 5.0 if net.training else 1.0
        return factor * F.cross_entropy(outputs, targets) + 0.1 * net.norm.running_var.sum()

    return loss


CASES = {
    "weight decay": (smooth_mlp, weight_decay, True),
    "first weight": (smooth_mlp, decay_of_first_weight, True),
    "module": (smooth_mlp, ModuleLoss, True),
    "temperature": (Tempered, temperature, True),
    "consistency": (smooth_mlp, consistency, True),
    "gradient penalty": (smooth_mlp, gradient_penalty, True),
    "left behind": (Remembering, left_behind, True),
    "hook": (watched, seen_by_a_hook, True),
    "modes and buffers": (Remembering, modes_and_buffers, False),
}


def make(name: str) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], bool]:
    torch.manual_seed(0)
    model, loss, reads_parameters = CASES[name]
    net = model().double()
    return net, loss(net), reads_parameters


def truth(name: str) -> Callable[[Tensor], Tensor]:
    """The loss as a function of flat parameters, written into the model itself."""
    net, loss, _ = make(name)
    net.eval()
    inputs, targets = examples()
    sizes = [p.numel() for p in net.parameters()]
    slots = [(m, key) for m in net.modules() for key in m._parameters]
    shapes = [p.shape for p in net.parameters()]

    def evaluate(theta: Tensor) -> Tensor:
        for (module, key), piece, shape in zip(slots, theta.split(sizes), shapes, strict=True):
            module._parameters[key] = piece.view(shape)
        return loss(net(inputs), targets)

    return evaluate


@pytest.mark.parametrize("name", CASES)
def test_a_loss_that_reads_the_model_is_evaluated_where_parameters_are_substituted(name):
    net, loss, reads_parameters = make(name)
    of = Landscape(net, loss, loader(), batchnorm="frozen")
    expected = truth(name)
    along = direction(of)
    points = [of.theta + alpha * along.vector for alpha in ALPHAS]
    losses = torch.stack([expected(point).detach() for point in points])
    for chunk in (1, None):
        curve = Evaluator(of, progress=False, chunk=chunk).curve(along, ALPHAS)
        torch.testing.assert_close(curve.loss, losses, **EXACT)
    torch.testing.assert_close(of.loss(points[1]), losses[1], **EXACT)
    theta = points[1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(expected(theta), theta, create_graph=True)
    torch.testing.assert_close(of.gradient(points[1]), slope.detach(), **EXACT)
    block = vectors(of.space.size, 2)
    products = [torch.autograd.grad(slope @ v, theta, retain_graph=True)[0] for v in block.T]
    for memory in (0, None):  # graphs built anew, and kept
        hessian = of.hessian(points[1], memory=memory)
        torch.testing.assert_close(hessian @ block, torch.stack(products, 1), **EXACT)
    if reads_parameters:
        for operator in (of.gauss_newton, of.residual):
            with pytest.raises(InputError, match=r"reads parameters of the model|more than the"):
                operator(points[1]) @ block
    else:
        of.gauss_newton(points[1]) @ block


@pytest.mark.parametrize("name", ["weight decay", "temperature", "consistency"])
def test_tolerance_and_mini_batches_of_a_loss_that_reads_the_model(name):
    net, loss, _ = make(name)
    of = Landscape(net, loss, loader(), batchnorm="frozen")
    expected = truth(name)
    along = direction(of)
    curve = Evaluator(of, progress=False, tolerance=0.01).curve(along, ALPHAS)
    losses = [expected(of.theta + alpha * along.vector).detach() for alpha in ALPHAS]
    torch.testing.assert_close(curve.loss, torch.stack(losses), **EXACT)  # 70 are all evaluated
    theta = (of.theta + 0.1).requires_grad_()
    (slope,) = torch.autograd.grad(expected(theta), theta)
    (step,) = of.mini_batches(70).shuffled(torch.Generator().manual_seed(0))
    value, gradient = step(theta.detach())
    torch.testing.assert_close(value, expected(theta).detach(), **EXACT)
    torch.testing.assert_close(gradient, slope, **EXACT)


def test_gauss_newton_of_layers_that_the_loss_does_not_read():
    """A penalty on other parameters is a constant."""
    net, loss, _ = make("first weight")
    of = Landscape(net, loss, loader())
    plain = Landscape(net, nn.CrossEntropyLoss(), loader())
    norm = net[1].weight.detach().norm()
    found, expected = (make_dense(x.gauss_newton(parameters="3")) for x in (of, plain))
    torch.testing.assert_close(found, expected * norm, **EXACT)


def test_fast_plans_are_refused_only_where_the_loss_needs_what_they_leave_out():
    plans = {}
    for name in CASES:
        net, loss, _ = make(name)
        plans[name] = Landscape(net, loss, loader(), batchnorm="frozen").plan
    shared = {name for name, plan in plans.items() if plan.first_layer is not None}
    assert shared == {"temperature"}
    assert len(plans["left behind"].folding) == 1
    assert len(plans["hook"].folding) == 0
    assert all(plan.micro_batch is not None for plan in plans.values())


def test_a_first_layer_that_the_loss_comes_to_read_raises():
    net = smooth_mlp().double()
    on = []

    def annealed(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, targets)
        return loss + net[1].weight.square().sum() if on else loss

    of = Landscape(net, annealed, loader())
    assert of.plan.first_layer is not None
    on.append(True)
    with pytest.raises(InputError, match="reads parameters"):
        Evaluator(of, progress=False).curve(direction(of), ALPHAS)


def test_a_part_of_the_loss_that_is_no_mean_over_examples_keeps_batches_whole():
    net = Remembering().double()
    net.forward = lambda x: _remember_largest(net, x)
    batches = loader(64, 32)
    of = Landscape(net, left_behind(net), batches, batchnorm="frozen")
    assert of.plan.micro_batch is None
    net.eval()
    losses = [F.cross_entropy(net(x), y) + net.penalty for x, y in batches]
    torch.testing.assert_close(of.loss(of.theta), torch.stack(losses).mean().detach(), **EXACT)


def _remember_largest(net: Remembering, x: Tensor) -> Tensor:
    features = net.norm(net.conv(x)).tanh().mean((2, 3))
    net.penalty = features.square().sum(1).max()
    return net.head(features)


@pytest.mark.parametrize("outputs", ["plain", "hook"])
def test_a_compiled_pass_in_which_no_hook_runs_is_checked_with_the_loss(outputs, monkeypatch):
    """The compiler itself is left out: what it is given has no hooks any more."""
    monkeypatch.setattr(torch, "compile", lambda graph, dynamic: graph)
    net, loss, _ = make("hook" if outputs == "hook" else "left behind")
    loss = nn.CrossEntropyLoss() if outputs == "plain" else loss
    options = {"batchnorm": "frozen", "plan": ExecutionPlan(micro_batch=35), "compile": True}
    of = Landscape(net, loss, loader(), **options)
    if outputs == "plain":
        of.loss(of.theta)
    else:
        with pytest.raises(InputError, match="compile=true"):
            of.loss(of.theta)


def test_gradient_checkpointing_runs_the_model_again_where_parameters_are_substituted():
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = smooth_mlp()

        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(self.net, x, use_reentrant=False)

    torch.manual_seed(0)
    model = Checkpointed().double()
    of = Landscape(model, nn.CrossEntropyLoss(), loader())
    plain = Landscape(model.net, nn.CrossEntropyLoss(), loader())
    theta = of.theta + 0.3 * direction(of).vector
    torch.testing.assert_close(of.gradient(theta), plain.gradient(theta), **EXACT)
    block = vectors(of.space.size, 2)
    for found, expected in (
        (of.hessian(theta), plain.hessian(theta)),
        (of.gauss_newton(theta), plain.gauss_newton(theta)),
    ):
        torch.testing.assert_close(found @ block, expected @ block, **EXACT)


def test_a_fast_plan_of_a_network_whose_loss_is_its_own(monkeypatch):
    """Weight decay of a network with batch norm: folded, and the decay is that of θ."""
    model = build("batchnorm")
    of = Landscape(model, weight_decay(model), loader())
    plain = Landscape(model, weight_decay(model), loader(), plan=ExecutionPlan())
    assert len(of.plan.folding) == 1
    theta = of.theta + 0.3 * direction(of).vector
    torch.testing.assert_close(of.loss(theta), plain.loss(theta), **EXACT)
