"""Every way to run a model against the model as it stands."""

import pytest
import torch
from cases import MODELS, build, direction, examples, landscape, loader, vectors
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import Evaluator, ExecutionPlan, Landscape, make_dense
from mining.functional.fuse_batchnorm import Folding
from mining.functional.precision import products_in
from mining.functional.substitution import Substitution
from mining.models import CifarResNet

POLICIES = ("recalibrate", "frozen", "batch")
#: Sums in another order, in float64.
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {
        **{name: p.detach() for name, p in model.named_parameters()},
        **dict(model.named_buffers()),
    }


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_fast_plan_gives_what_the_plain_one_gives(name, policy):
    fast, plain = landscape(name, policy), landscape(name, policy, plan=ExecutionPlan())
    theta = fast.theta + 0.3 * direction(fast).vector
    for found, expected in zip(fast.evaluate(theta), plain.evaluate(theta), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(fast.gradient(theta), plain.gradient(theta), **EXACT)
    block = vectors(fast.space.size)
    if name != "counting":
        torch.testing.assert_close(
            fast.hessian(theta) @ block, plain.hessian(theta) @ block, **EXACT
        )


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_fast_plan_of_a_resnet_in_single_precision(autocast):
    """Losses differ by rounding: 1e-5 of them in float32, 1e-2 in bfloat16."""
    torch.manual_seed(0)
    model = CifarResNet((3, 16, 16), 10, depth=8, width=8)
    inputs, targets = torch.randn(200, 3, 16, 16), torch.randint(10, (200,))
    batches = list(zip(inputs.split(100), targets.split(100), strict=True))
    options = {"batchnorm": "recalibrate", "autocast": autocast}
    fast, plain = (
        Landscape(model, nn.CrossEntropyLoss(), batches, plan=plan, **options)
        for plan in (None, ExecutionPlan())
    )
    assert fast.plan.channels_last
    assert len(fast.plan.folding) == 7
    vector = torch.randn(fast.space.size)
    for alpha in (0.0, 0.05, 0.5):
        theta = fast.theta + alpha * vector
        expected = float(plain.loss(theta))
        assert float(fast.loss(theta)) == pytest.approx(
            expected, rel=1e-5 if autocast is None else 1e-2
        )


class Bent(nn.Module):
    """Convolution and batch norm with something odd about them."""

    def __init__(self, odd: str) -> None:
        super().__init__()
        self.odd = odd
        self.conv = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular", bias=odd != "no bias")
        self.bn = nn.BatchNorm2d(4, affine=odd != "not affine", eps=0.1)
        self.other = nn.BatchNorm2d(4)
        for norm in (self.bn, self.other):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        self.conv2 = nn.Conv2d(4, 4, 3)
        if odd == "weight norm":
            nn.utils.parametrizations.weight_norm(self.conv)
        self.head = nn.Linear(4, 3)
        self.flip = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = torch.relu(y) if self.odd == "relu between" else y
        z = self.other(z) if self.odd == "other" and self.flip else self.bn(z)
        if self.odd == "used twice":
            z = z + y
        if self.odd == "used twice in a list":
            z = torch.cat([z, y])[: len(z)] + torch.cat([y, z])[: len(z)]
        if self.odd == "two norms":
            z = z + self.other(y)
        if self.odd == "in place":
            z = F.relu(z, inplace=True)
        if self.odd == "turns" and self.flip:
            z = y
        if self.odd == "one conv, two norms":
            z = self.other(self.conv(z[:, :1]))
        if self.odd == "raw second":
            z = self.conv2(z)
        return self.head(z.mean((2, 3)))


FOLDED = {
    "nothing": 1,
    "no bias": 1,
    "not affine": 1,
    "weight norm": 1,
    "in place": 1,
    "raw second": 1,
    "one conv, two norms": 2,
    "relu between": 0,
    "used twice": 0,
    "used twice in a list": 0,
    "two norms": 0,
    "turns": 0,
    "other": 0,
}


@pytest.mark.parametrize("odd", FOLDED)
def test_what_cannot_be_folded_is_left_alone(odd):
    torch.manual_seed(0)
    model = Bent(odd).double().eval()
    inputs, _ = examples(20)
    tensors = tensors_of(model)
    with torch.no_grad(), Substitution(model)(tensors):
        folding = Folding.of(model, inputs[:2], tensors)
        run = folding.fold(model, tensors)
        torch.testing.assert_close(run(inputs), model(inputs), **EXACT)
        model.flip = True  # what was seen once need not stay
        torch.testing.assert_close(run(inputs), model(inputs), **EXACT)
    assert len(folding) == FOLDED[odd]


def test_folding_is_left_out_where_batch_norm_takes_statistics():
    model = build("batchnorm").eval()
    inputs, _ = examples(20)
    tensors = tensors_of(model)
    with torch.no_grad(), Substitution(model)(tensors):
        folding = Folding.of(model, inputs, tensors)
        assert len(folding) == 1
        model.bn.train()
        with Substitution(model)({"bn.running_mean": tensors["bn.running_mean"].clone()}):
            found = folding.fold(model, tensors)(inputs)
        expected = model.eval()(inputs)
    assert len(folding) == 0
    assert (found - expected).abs().max() > 0.1


class Centred(nn.Module):
    """Looks at the whole batch without any batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.linear(x - x.mean(0))


class Viewing(nn.Module):
    """Insists on the order of its activations in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
        self.linear = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).view(len(x), -1))


class Counted(Viewing):
    """Takes batches of one size only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(35, 3, 8, 8))


@pytest.mark.parametrize(("model", "whole"), [(Centred, True), (Viewing, False), (Counted, True)])
def test_models_that_do_not_take_the_fast_plan(model, whole):
    torch.manual_seed(0)
    odd = model()
    # In float64 convolutions forget channels_last, and one channel is first and last.
    batches = [(x.repeat(1, 3, 1, 1), y) for x, y in loader(70, 35, torch.float32)]
    odd(batches[0][0])
    of = Landscape(odd, nn.CrossEntropyLoss(), batches)
    assert not of.plan.channels_last
    assert (of.plan.micro_batch is None) == whole
    expected = torch.stack([F.cross_entropy(odd(x), y) for x, y in batches]).mean()
    assert float(of.loss(of.theta)) == pytest.approx(float(expected.detach()), rel=1e-5)


class SlightlyMixing(nn.Module):
    """Looks at the other examples of a batch, at θ itself without an effect."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.gate = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.flatten(1))
        return y + self.gate * y.mean(0)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("model", [SlightlyMixing, Centred])
def test_examples_that_depend_on_each_other_are_found_in_any_batches(model, batch_size):
    torch.manual_seed(0)
    mixing = model().double()
    batches = loader(64, batch_size)
    mixing(batches[0][0])
    of = Landscape(mixing, nn.CrossEntropyLoss(), batches)
    assert of.plan.micro_batch is None


def test_batches_of_unequal_images_are_not_joined():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).double()
    small, large = torch.randn(4, 1, 8, 8).double(), torch.randn(2, 1, 10, 10).double()
    batches = [(small, torch.tensor([0, 1, 2, 0])), (large, torch.tensor([0, 1]))]
    of = Landscape(model, nn.CrossEntropyLoss(), batches)
    with torch.no_grad():
        losses = [float(F.cross_entropy(model(x), y)) for x, y in batches]
    assert float(of.loss(of.theta)) == pytest.approx((4 * losses[0] + 2 * losses[1]) / 6)


class Frames(nn.Module):
    """Takes the frames of an example as so many examples of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 64, 3, padding=1)
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        frames = self.conv(x.flatten(0, 1)[:, None]).mean((2, 3))
        return self.linear(frames.view(len(x), -1, 64).mean(1))


def test_passes_are_as_large_as_activations_allow():
    inputs = torch.randn(40, 32, 16, 16)
    batches = list(zip(inputs.split(4), torch.zeros(10, 4).long(), strict=True))
    of = Landscape(Frames(), nn.CrossEntropyLoss(), batches)
    assert of.plan.micro_batch == 16  # 2 MiB an example; the fewest that are joined


def masked_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.cross_entropy(outputs, targets, reduction="none")
    kept = targets != 2
    return (losses * kept).sum() / kept.sum().clamp(min=1)


def hardest(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none").topk(3).values.mean()


@pytest.mark.parametrize("loss", [masked_mean, hardest])
def test_losses_that_weigh_examples_by_their_batch_keep_it(loss):
    inputs, targets = examples(64)
    targets[:32] = 0  # nothing is masked in the first batch
    batches = list(zip(inputs.split(32), targets.split(32), strict=True))
    of = Landscape(build("mlp"), loss, batches)
    assert of.plan.micro_batch is None


def test_examples_are_held_once():
    for batch_size in (10, 70):  # joined, and as they are
        of = Landscape(build("batchnorm"), nn.CrossEntropyLoss(), loader(70, batch_size))
        held = {batch.inputs.untyped_storage().data_ptr() for batch in of.batches}
        assert {of._prepared.statistics.inputs.whole.untyped_storage().data_ptr()} == held


class ShiftsLayers(nn.Module):
    """A layer more in front of the others, so that they count otherwise than before."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm = nn.Linear(64, 8), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.extra, self.shift = nn.Linear(64, 64), False

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = self.extra(x) if self.shift else x
        return self.head(self.norm(self.wide(x)))


def test_layers_that_run_in_another_order_are_unfolded():
    model = ShiftsLayers().double().eval()
    inputs, _ = examples(20)
    tensors = tensors_of(model)
    with torch.no_grad(), Substitution(model)(tensors):
        folding = Folding.of(model, inputs[:2], tensors)
        model.shift = True
        found = folding.fold(model, tensors)(inputs)
        torch.testing.assert_close(found, model(inputs), **EXACT)
    assert len(folding) == 0


def test_a_plan_that_cuts_batches_is_refused_where_they_share_statistics():
    with pytest.raises(ValueError, match=r"plan\.micro_batch must be None"):
        landscape("batchnorm", "batch", plan=ExecutionPlan(micro_batch=8))


def test_a_loss_that_compares_examples_keeps_its_batches():
    def contrast(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs @ outputs.T).logsumexp(1).mean()

    model = build("mlp")
    batches = loader(64, 32)
    of = Landscape(model, contrast, batches)
    assert of.plan.micro_batch is None
    expected = torch.stack([contrast(model(x), y) for x, y in batches]).mean()
    torch.testing.assert_close(of.loss(of.theta), expected.detach(), **EXACT)


def test_a_model_that_draws_random_numbers_is_run_as_it_stands():
    class Noisy(Centred):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.dropout(x.flatten(1), training=True))

    noisy = Noisy().double()
    noisy(loader()[0][0])
    plan = Landscape(noisy, nn.CrossEntropyLoss(), loader()).plan
    assert (plan.micro_batch, plan.channels_last, plan.first_layer) == (None, False, None)


@pytest.mark.parametrize(
    ("name", "shared"), [("mlp", True), ("partly_used", False), ("tied", False)]
)
def test_points_that_share_a_first_layer_have_the_same_loss(name, shared):
    fast, plain = landscape(name), landscape(name, plan=ExecutionPlan())
    assert (fast.plan.first_layer is not None) == shared
    x, y = direction(fast, 0), direction(fast, 1)
    axis = torch.linspace(-0.5, 1, 5)
    test = loader(40)
    for chunk in (1, 7, None):
        found, expected = (
            Evaluator(of, test=test, progress=False, chunk=chunk).surface(x, y, axis, axis)
            for of in (fast, plain)
        )
        for key in ("loss", "accuracy", "loss_test", "accuracy_test"):
            torch.testing.assert_close(getattr(found, key), getattr(expected, key), **EXACT)


@pytest.mark.parametrize("policy", ["frozen", "recalibrate"])
def test_curve_of_a_model_that_works_in_place(policy):
    """θ comes first, and its pre-activations are those that all points start from."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    fast, plain = (
        Landscape(model.double(), nn.CrossEntropyLoss(), loader(), batchnorm=policy, plan=plan)
        for plan in (None, ExecutionPlan())
    )
    assert fast.plan.first_layer is not None
    alphas = torch.linspace(-1, 1, 5)
    found, expected = (
        Evaluator(of, progress=False).curve(direction(of), alphas).loss for of in (fast, plain)
    )
    torch.testing.assert_close(found, expected, **EXACT)


class UsesTwice(nn.Module):
    """Penalizes its first weight, which so is no plain first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * self.linear.weight.norm()


class UsesTwiceInAList(UsesTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * torch.cat([self.linear.weight]).norm()


class ChangesInputs(UsesTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.clone().flatten(1).clamp_(0, 1))


class ChangesInputsInPlace(UsesTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1).clamp_(0, 1))


@pytest.mark.parametrize(
    "model", [UsesTwice, UsesTwiceInAList, ChangesInputs, ChangesInputsInPlace]
)
def test_a_first_layer_that_is_none_is_not_shared(model):
    of = Landscape(model().double(), nn.CrossEntropyLoss(), loader())
    assert of.plan.first_layer is None


def test_many_points_at_once_are_as_many_as_memory_allows():
    assert landscape("mlp").points_together() == 64
    assert landscape("batchnorm").points_together() == 1
    assert landscape("shared").points_together() == 1  # statistics depend on the point
    assert landscape("shared", "frozen").points_together() == 64


def test_folded_layers_have_the_same_dense_hessian():
    fast, plain = (
        landscape("batchnorm", "frozen"),
        landscape("batchnorm", "frozen", plan=ExecutionPlan()),
    )
    assert len(fast.plan.folding) == 1
    chosen = ["conv", "bn"]
    torch.testing.assert_close(
        make_dense(fast.hessian(parameters=chosen)),
        make_dense(plain.hessian(parameters=chosen)),
        **EXACT,
    )


def test_compiled_forward_pass_gives_the_same():
    """In one of two shapes, and for parameters that it was not compiled with."""
    plain = landscape("batchnorm", plan=ExecutionPlan(micro_batch=32))
    fast = Landscape(
        plain.model, plain.loss_fn, loader(), plan=ExecutionPlan(micro_batch=32), compile=True
    )
    theta = fast.theta + 0.3 * direction(fast).vector
    for point in (fast.theta, theta):
        for found, expected in zip(fast.evaluate(point), plain.evaluate(point), strict=True):
            torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(fast.gradient(theta), plain.gradient(theta), **EXACT)
    assert fast._prepared.network.compiled._function is not None


class Deciding(nn.Module):
    """Looks at values to choose what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(1))
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_compiled_is_refused():
    of = Landscape(Deciding().double(), nn.CrossEntropyLoss(), loader(), compile=True)
    with pytest.raises(ValueError, match="cannot be compiled"):
        of.loss(of.theta)


@pytest.mark.parametrize("tf32", [True, False])
def test_products_on_a_gpu_have_the_precision_asked_for(tf32):
    """The settings alone, which a machine without a GPU has as well."""
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        state = [kind.fp32_precision for kind in kinds]
        with pytest.raises(KeyError), products_in(torch.device("cuda"), tf32=tf32):
            assert {kind.fp32_precision for kind in kinds} == {"tf32" if tf32 else "ieee"}
            raise KeyError
        assert [kind.fp32_precision for kind in kinds] == state
        assert torch.get_float32_matmul_precision() == "medium"
        with products_in(torch.device("cpu"), tf32=tf32):
            assert [kind.fp32_precision for kind in kinds] == state
    finally:
        torch.set_float32_matmul_precision(before)
    with pytest.raises(ValueError, match="tf32 is a precision of GPUs"):
        landscape(tf32=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("policy", ["recalibrate", "frozen"])
def test_fast_plan_on_a_gpu(policy):
    torch.manual_seed(0)
    model = CifarResNet((3, 16, 16), 10, depth=8, width=8).cuda()
    inputs, targets = torch.randn(200, 3, 16, 16), torch.randint(10, (200,))
    batches = list(zip(inputs.split(100), targets.split(100), strict=True))
    losses = {}
    for name, options in {
        "plain": {"plan": ExecutionPlan()},
        "fast": {},
        "tf32": {"tf32": True},
        "compiled": {"compile": True},
    }.items():
        of = Landscape(model, nn.CrossEntropyLoss(), batches, batchnorm=policy, **options)
        losses[name] = float(of.loss(of.theta))
    for name, rounding in {"fast": 1e-5, "tf32": 1e-2, "compiled": 1e-5}.items():
        assert losses[name] == pytest.approx(losses["plain"], rel=rounding)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."),
              RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)  # fmt: skip
def test_memory_that_runs_out_is_no_reason_for_another_plan(error):
    class Hungry(nn.Linear):
        def forward(self, inputs):
            if 2 < len(inputs) < 30:
                raise error
            return super().forward(inputs)

    batches = [(torch.randn(30, 3), torch.randint(2, (30,))) for _ in range(3)]
    with pytest.raises(type(error)):
        Landscape(Hungry(3, 2), nn.CrossEntropyLoss(), batches)
