"""Models and losses that do what nobody here had thought of."""

import pytest
import torch
from cases import assert_unchanged, direction, examples, loader, snapshot, vectors
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import Evaluator, ExecutionPlan, InputError, Landscape

#: Sums in another order, in float64.
EXACT = {"rtol": 1e-9, "atol": 1e-10}
ALPHAS = torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)


class Scales(nn.Module):
    """Normalizes its inputs where they are."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "mul_":
            x.mul_(2).add_(0.5)
        if self.how == "view":
            x.view(-1).sub_(0.3)
        if self.how == "data":
            x.data.mul_(2)
        if self.how == "relu":
            x = self.relu(x)
        if self.how == "item":
            x[:, 0, 0, 0] = 1.0
        return self.second(self.first(x.flatten(1)).tanh())


@pytest.mark.parametrize("plan", [None, ExecutionPlan()])
@pytest.mark.parametrize("how", ["mul_", "view", "data", "relu", "item"])
def test_models_that_work_in_place_on_their_inputs(how, plan):
    torch.manual_seed(0)
    model = Scales(how).double()
    batches = loader()
    inputs, targets = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    kept = inputs.clone()
    of = Landscape(model, nn.CrossEntropyLoss(), batches, plan=plan)
    vector = direction(of).vector

    def truth(theta: Tensor) -> Tensor:
        values = of.space.unflatten(theta)
        return F.cross_entropy(torch.func.functional_call(model, values, kept.clone()), targets)

    theta = of.theta + 0.3 * vector
    leaf = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(truth(leaf), leaf, create_graph=True)
    v = vectors(of.space.size, 1)[:, 0]
    (product,) = torch.autograd.grad(slope @ v, leaf)
    for _ in range(2):
        torch.testing.assert_close(of.loss(theta), truth(theta).detach(), **EXACT)
        torch.testing.assert_close(of.gradient(theta), slope.detach(), **EXACT)
        torch.testing.assert_close(of.hessian(theta) @ v, product, **EXACT)
    (step,) = of.mini_batches(70).shuffled(torch.Generator().manual_seed(0))
    torch.testing.assert_close(step(theta)[1], slope.detach(), **EXACT)
    assert torch.equal(torch.cat([x for x, _ in batches]), kept)


@pytest.mark.parametrize("what", ["targets", "outputs"])
def test_losses_that_work_in_place(what):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    batches = [(x, F.one_hot(y, 3).double()) for x, y in loader()]
    kept = [(x.clone(), y.clone()) for x, y in batches]

    def in_place(outputs: Tensor, targets: Tensor) -> Tensor:
        if what == "targets":
            return (outputs - targets.mul_(2)).square().mean()
        return outputs.sub_(targets).sub_(targets).square().mean()

    def plain(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - 2 * targets).square().mean()

    of, expected = Landscape(model, in_place, batches), Landscape(model, plain, kept)
    theta = of.theta + 0.1
    curves = [Evaluator(x, progress=False, tolerance=0.1).curve(direction(of), ALPHAS).loss
              for x in (of, expected)]  # fmt: skip
    torch.testing.assert_close(*curves, **EXACT)
    for _ in range(2):
        torch.testing.assert_close(of.loss(theta), expected.loss(theta), **EXACT)
        torch.testing.assert_close(of.gradient(theta), expected.gradient(theta), **EXACT)
        v = vectors(of.space.size, 1)
        torch.testing.assert_close(of.hessian(theta) @ v, expected.hessian(theta) @ v, **EXACT)
        torch.testing.assert_close(
            of.gauss_newton(theta) @ v, expected.gauss_newton(theta) @ v, **EXACT
        )
    assert all(torch.equal(y, z) for (_, y), (_, z) in zip(batches, kept, strict=True))


def test_work_in_place_that_begins_later_is_no_silent_one():
    model = Scales("none").double()
    of = Landscape(model, nn.CrossEntropyLoss(), loader())
    model.how = "mul_"
    with pytest.raises(InputError, match="changed its inputs in place"):
        of.loss(of.theta)
    turned = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets.mul_(2) if turned else targets)

    inputs, _ = examples()
    of = Landscape(Scales("none").double(), loss, [(inputs, torch.ones(70, 3).double())])
    turned.append(True)
    with pytest.raises(InputError, match="changed the targets in place"):
        of.loss(of.theta)


class Clamped(nn.Module):
    """Keeps its weights within bounds, in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.linear.weight.clamp_(-0.05, 0.05)
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_that_writes_to_its_parameters_is_refused_and_left_as_it_was(frozen):
    torch.manual_seed(0)
    model = Clamped().double()
    model.linear.weight.requires_grad_(not frozen)
    before = snapshot(model)
    with pytest.raises(InputError, match="changes parameters in place"):
        Landscape(model, nn.CrossEntropyLoss(), loader())
    assert_unchanged(model, before)


class Residual(nn.Module):
    """A physics-informed network whose forward pass differentiates by its inputs: u' + u."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x.requires_grad_()
        u = self.net(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return slope + u


def differential_equation(outputs: Tensor, x: Tensor) -> Tensor:
    """The loss of u' + u = 0: the targets are the inputs themselves."""
    (slope,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    return (slope + outputs).square().mean()


@pytest.mark.parametrize("where", ["model", "loss", "closure"])
def test_networks_that_are_differentiated_by_their_inputs(where):
    torch.manual_seed(0)
    x = torch.linspace(0, 1, 20, dtype=torch.float64)[:, None]
    net = Residual().double()
    reference, zeros = net.net, torch.zeros_like(x)
    if where == "model":
        of = Landscape(net, nn.MSELoss(), [(x, zeros)])
    else:
        x.requires_grad_()
        loss, target = differential_equation, x
        if where == "closure":
            loss, target = (lambda u, _: differential_equation(u, x)), zeros
        of = Landscape(reference, loss, [(x, target)])
    names = [name for name, _ in reference.named_parameters()]
    inputs = x.detach().clone().requires_grad_()

    def truth(theta: Tensor) -> Tensor:
        values = dict(zip(names, of.space.unflatten(theta).values(), strict=True))
        return differential_equation(torch.func.functional_call(reference, values, inputs), inputs)

    along = direction(of)
    curve = Evaluator(of, progress=False).curve(along, ALPHAS)
    losses = [truth(of.theta + alpha * along.vector).detach() for alpha in ALPHAS]
    torch.testing.assert_close(curve.loss, torch.stack(losses), **EXACT)
    theta = (of.theta + 0.1).requires_grad_()
    (slope,) = torch.autograd.grad(truth(theta), theta, create_graph=True)
    v = vectors(of.space.size, 1)[:, 0]
    (product,) = torch.autograd.grad(slope @ v, theta)
    point = theta.detach()
    torch.testing.assert_close(of.gradient(point), slope.detach(), **EXACT)
    torch.testing.assert_close(of.hessian(point) @ v, product, **EXACT)
    if where == "model":
        of.gauss_newton(point) @ v
    else:
        with pytest.raises(InputError, match="needs more than the values of outputs"):
            of.gauss_newton(point) @ v
    if where != "closure":
        (step,) = of.mini_batches(20).shuffled(torch.Generator().manual_seed(0))
        torch.testing.assert_close(step(point)[1], slope.detach(), **EXACT)
    assert x.requires_grad == (where != "model")


def test_inputs_that_the_loss_cannot_find_are_named():
    x = torch.linspace(0, 1, 20)[:, None].requires_grad_()
    with pytest.raises(InputError, match=r"loss does not fit.*needs batches \(x, x\)"):
        Landscape(nn.Linear(1, 1), differential_equation, [(x, x.clone().detach())])


def nhwc_to_nchw(images: Tensor) -> Tensor:
    """As NumPy images come: channels last in memory."""
    return images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@pytest.mark.parametrize("layout", ["permuted", "strided", "mixed", "expanded"])
def test_inputs_of_any_layout_take_the_same_fast_plan(layout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, targets = torch.randn(70, 3, 4, 4).double(), torch.randint(3, (70,))
    if layout == "expanded":
        inputs = inputs[:, :1].expand(-1, 3, -1, -1)
    plain = list(zip(inputs.contiguous().split(32), targets.split(32), strict=True))
    other = nhwc_to_nchw(inputs)
    if layout in ("strided", "expanded"):
        wide = torch.zeros(70, 3, 4, 8).double()
        wide[..., ::2] = inputs
        other = inputs if layout == "expanded" else wide[..., ::2]
    batches = list(zip(other.split(32), targets.split(32), strict=True))
    if layout == "mixed":
        batches = [plain[0], *batches[1:]]
    found, expected = (Landscape(model, nn.CrossEntropyLoss(), x) for x in (batches, plain))
    assert found.plan.micro_batch == expected.plan.micro_batch
    assert found.plan.first_layer is not None
    curves = [Evaluator(of, test=data, progress=False).curve(direction(of), ALPHAS)
              for of, data in ((found, batches), (expected, plain))]  # fmt: skip
    torch.testing.assert_close(curves[0].loss, curves[1].loss, **EXACT)
    torch.testing.assert_close(curves[0].loss_test, curves[1].loss_test, **EXACT)


@pytest.mark.parametrize("mixed", [False, True])
def test_images_whose_layout_differs_between_batches(mixed):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    inputs, targets = torch.randn(70, 3, 8, 8), torch.randint(3, (70,))
    plain = list(zip(inputs.split(32), targets.split(32), strict=True))
    batches = [(nhwc_to_nchw(x), y) if i or not mixed else (x, y)
               for i, (x, y) in enumerate(plain)]  # fmt: skip
    found = Landscape(model, nn.CrossEntropyLoss(), batches)
    expected = Landscape(model, nn.CrossEntropyLoss(), plain, plan=ExecutionPlan())
    assert found.plan.channels_last
    assert all(b.inputs.is_contiguous(memory_format=torch.channels_last) for b in found.batches)
    theta = found.theta + 0.05 * direction(found).vector
    # Sums in another order, in float32.
    torch.testing.assert_close(found.loss(theta), expected.loss(theta), rtol=1e-5, atol=1e-6)


def test_a_model_that_was_taken_apart_since_is_refused():
    def made() -> tuple[nn.Sequential, Landscape]:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        return net, Landscape(net, nn.CrossEntropyLoss(), loader())

    net, replaced = made()
    net[3] = nn.Linear(8, 3).double()
    _, reparametrized = made()
    nn.utils.parametrizations.weight_norm(reparametrized.model[1])
    _, grown = made()
    grown.model[2].extra = nn.Parameter(torch.zeros(3))
    for of in (replaced, reparametrized, grown):
        with pytest.raises(InputError, match=r"were replaced.*new Landscape"):
            of.loss(of.theta + 1)
    net, of = made()
    before = of.loss(of.theta)
    net.train().requires_grad_(False).float()
    net(torch.zeros(1, 64))
    assert torch.equal(of.loss(of.theta), before)


def test_cached_parametrizations_would_keep_their_weights():
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 3))
    net = nn.Sequential(nn.Flatten(), layer).double()
    of = Landscape(net, nn.CrossEntropyLoss(), loader())
    with nn.utils.parametrize.cached():
        net(loader()[0][0])
        with pytest.raises(InputError, match=r"parametrize\.cached"):
            of.loss(of.theta + 0.1)
    of.loss(of.theta + 0.1)


def test_a_loader_that_overwrites_its_batches_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()

    def overwriting():
        buffer = torch.empty(35, 1, 8, 8, dtype=torch.float64)
        for inputs, targets in loader(70, 35):
            yield buffer.copy_(inputs), targets

    with pytest.raises(InputError, match="reuses the memory of its batches"):
        Landscape(model, nn.CrossEntropyLoss(), overwriting())
    twice = Landscape(model, nn.CrossEntropyLoss(), 2 * loader())
    assert twice.num_examples == 140
