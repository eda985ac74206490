"""The penalty on the trace against dense matrices, and what it leaves alone."""

import copy

import pytest
import torch
from cases import assert_unchanged, build, examples, snapshot
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mining import HessianTrace, InputError, Landscape, make_dense

DTYPE = torch.float64


def small(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), *layers, nn.Tanh(), nn.Linear(3, 3)).to(DTYPE)


def batch(num=12, classes=3):
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(num, 4, generator=generator, dtype=DTYPE)
    return inputs, torch.randint(classes, (num,), generator=generator)


def dense_traces(model, loss_fn, pair, kind="hessian", batchnorm="batch"):
    """The trace of the block of each parameter, from the dense matrix."""
    landscape = Landscape(model, loss_fn, [pair], batchnorm=batchnorm)
    diagonal = make_dense(getattr(landscape, kind)()).diagonal()
    return dict(zip(landscape.space.names, landscape.space.sums(diagonal), strict=True))


def moved(model, step, sign):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in other.named_parameters():
            p += sign * step[name]
    return other


def expect(penalty, model, pair, traces, num=60):
    """Compare the mean of penalties, and of their slopes along a direction, with exact ones."""
    parameters = dict(model.named_parameters())

    def draw():
        value = penalty(pair)
        found = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
        return float(value.detach()), dict(zip(parameters, found, strict=True))

    # Along the mean of other draws the slope is large against its spread.
    first = [draw()[1] for _ in range(20)]
    step = {name: sum(slopes[name] for slopes in first) for name in parameters}
    length = sum(float(s.square().sum()) for s in step.values()) ** 0.5
    step = {name: s * (1e-5 / length) for name, s in step.items()}
    draws = [draw() for _ in range(num)]
    values = torch.tensor([value for value, _ in draws], dtype=DTYPE)
    slopes = torch.stack([sum((g[n] * step[n]).sum() for n in step) for _, g in draws])
    exact = traces(model)
    change = (traces(moved(model, step, 1)) - traces(moved(model, step, -1))) / 2
    for samples, truth in ((values, exact), (slopes, change)):
        error = float(samples.std()) / num**0.5
        assert error < 0.25 * abs(float(truth))  # or the comparison says nothing
        assert float(samples.mean()) == pytest.approx(float(truth), abs=4.5 * error + 1e-9)


METHODS = {"hutchinson": "hessian", "sampled_labels": "gauss_newton", "per_class": "gauss_newton"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
def test_value_and_gradient_are_unbiased(method, norm):
    model = small(*([nn.BatchNorm1d(3).to(DTYPE)] if norm else []))
    pair, loss_fn = batch(), nn.CrossEntropyLoss()
    penalty = HessianTrace(model, loss_fn, gamma=0.5, method=method, probes=4)

    def traces(at):
        return 0.5 * sum(dense_traces(at, loss_fn, pair, METHODS[method]).values())

    expect(penalty, model, pair, traces)


LOSSES = {
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "class weights": nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0], dtype=DTYPE)),
    "ignored": nn.CrossEntropyLoss(ignore_index=1),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.2),
    "function": lambda outputs, targets: F.nll_loss(outputs.log_softmax(1), targets),
}


@pytest.mark.parametrize("method", ["sampled_labels", "per_class"])
@pytest.mark.parametrize("name", LOSSES)
def test_gauss_newton_traces_of_other_cross_entropies(name, method):
    model, pair = small(), batch()
    penalty = HessianTrace(model, LOSSES[name], gamma=1.0, method=method, probes=4)

    def traces(at):
        return sum(dense_traces(at, LOSSES[name], pair, "gauss_newton").values())

    expect(penalty, model, pair, traces, num=60)


def test_targets_that_are_probabilities():
    model, (inputs, _) = small(), batch()
    pair = (inputs, torch.rand(12, 3, dtype=DTYPE).softmax(1))
    penalty = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0, method="per_class")
    expected = sum(dense_traces(model, nn.CrossEntropyLoss(), pair, "gauss_newton").values())
    found = torch.stack([penalty(pair).detach() for _ in range(200)])
    assert float(found.mean()) == pytest.approx(
        float(expected), abs=4.5 * float(found.std()) / 200**0.5
    )


def test_scores_with_places_have_a_row_for_each():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Conv1d(2, 3, 2).to(DTYPE)
    pair = (torch.randn(5, 2, 6, dtype=DTYPE), torch.randint(3, (5, 5)))
    expected = sum(dense_traces(model, nn.CrossEntropyLoss(), pair, "gauss_newton").values())
    for method in ("sampled_labels", "per_class"):
        penalty = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0, method=method)
        found = torch.stack([penalty(pair).detach() for _ in range(300)])
        error = float(found.std()) / 300**0.5
        assert float(found.mean()) == pytest.approx(float(expected), abs=4.5 * error)


def test_a_product_of_two_weights_has_its_closed_form():
    """ℓ = ½ (abx - y)² has the Hessian diagonal ((bx)², (ax)²): the penalty is x² (a² + b²)."""

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.tensor(v, dtype=DTYPE)) for v in (1.5, -0.7))

        def forward(self, x):
            return self.a * self.b * x

    model, x = Product(), torch.tensor([2.0], dtype=DTYPE)
    loss_fn = lambda outputs, targets: 0.5 * (outputs - targets).square().sum()  # noqa: E731
    penalty = HessianTrace(model, loss_fn, gamma=1.0, layers={"a": 3.0, "b": 1.0})
    # One vector gives v·(Hv) with an off-diagonal term whose sign is random: two calls cancel it.
    found = torch.stack([penalty((x, torch.ones(1, dtype=DTYPE))) for _ in range(64)])
    values = sorted({round(float(v), 9) for v in found.detach()})
    assert len(values) == 2
    assert sum(values) / 2 == pytest.approx(4 * (3 * 0.7**2 + 1.5**2))
    picked = [v for value in values for v in found if round(float(v.detach()), 9) == value][:1]
    picked += [v for v in found if round(float(v.detach()), 9) == values[1]][:1]
    (sum(picked) / 2).backward()
    assert float(model.a.grad) == pytest.approx(8 * 1.5)
    assert float(model.b.grad) == pytest.approx(8 * 3 * -0.7)


@pytest.mark.parametrize("name", ["in_place", "tied", "shared", "attention", "partly_used"])
def test_traces_of_other_models_by_layer(name):
    model, pair = build(name), examples(24)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    loss_fn = nn.CrossEntropyLoss()
    blocks = dense_traces(model, loss_fn, pair)
    names = list(blocks)
    layers = {names[0]: 2.0, names[-1]: 0.5}
    penalty = HessianTrace(model, loss_fn, gamma=1.0, layers=layers, probes=2)
    found = torch.stack([penalty(pair).detach() for _ in range(150)])
    expected = 2 * float(blocks[names[0]]) + 0.5 * float(blocks[names[-1]])
    assert float(found.mean()) == pytest.approx(expected, abs=4.5 * float(found.std()) / 150**0.5)


def test_dropout_is_drawn_anew_and_its_gradient_is_that_of_one_draw():
    model, pair = small(nn.Dropout(0.4)), batch()
    penalty = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0)
    first, second = (float(penalty(pair).detach()) for _ in range(2))
    assert first != second
    generator = torch.Generator().manual_seed(1)
    step = {
        name: 1e-6 * torch.randn(p.shape, generator=generator, dtype=DTYPE)
        for name, p in model.named_parameters()
    }

    def again(at):
        other = HessianTrace(at, nn.CrossEntropyLoss(), gamma=1.0)
        other.load_state_dict({"calls": 1})
        return other(pair)

    value = again(model)
    assert float(value.detach()) == second
    found = torch.autograd.grad(value, list(model.parameters()))
    slope = sum((g * step[n]).sum() for g, n in zip(found, step, strict=True))
    away = [float(again(moved(model, step, sign)).detach()) for sign in (1, -1)]
    assert float(slope) == pytest.approx((away[0] - away[1]) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["batchnorm", "counting", "remembering"])
def test_the_model_and_random_numbers_stay_as_they_were(name):
    model, pair = build(name).train(), examples(24)
    before, state = snapshot(model), torch.get_rng_state()
    value = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0)(pair)
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    value.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_an_objective_takes_any_batch():
    model, (inputs, targets) = small(), batch()
    loss_fn = nn.CrossEntropyLoss()

    def objective(model, batch):
        decay = sum(p.square().sum() for p in model.parameters())
        return loss_fn(model(batch["x"]), batch["y"]) + 0.05 * decay

    plain = HessianTrace(model, loss_fn, gamma=1.0)((inputs, targets))
    decayed = HessianTrace(model, objective=objective, gamma=1.0)({"x": inputs, "y": targets})
    size = sum(p.numel() for p in model.parameters())
    assert float((decayed - plain).detach()) == pytest.approx(0.1 * size)


def test_only_the_named_calls_have_a_penalty():
    model, pair = small(), batch()
    penalty = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0, every=3)
    assert [float(penalty(pair).detach()) != 0 for _ in range(7)] == [1, 0, 0, 1, 0, 0, 1]
    other = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0, every=3)
    other.load_state_dict(penalty.state_dict())
    following = [(float(penalty(pair).detach()), float(other(pair).detach())) for _ in range(6)]
    assert all(a == b for a, b in following)
    assert any(a for a, _ in following)


def test_layers_of_the_middle_half():
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))
    penalty = HessianTrace(net, nn.CrossEntropyLoss(), gamma=1.0, layers="middle")
    assert {name.partition(".")[0] for name in penalty.weights} == {"2", "3", "4", "5"}
    for num, expected in ((5, "123"), (3, "1"), (2, "01"), (1, "0")):
        chosen = HessianTrace(net[:num], nn.CrossEntropyLoss(), gamma=1.0, layers="middle").weights
        assert "".join(dict.fromkeys(name[0] for name in chosen)) == expected


def fit(gamma, optimizer, accumulate=1, model=None, num=40, **options):
    model = small() if model is None else model
    steps = getattr(torch.optim, optimizer)(model.parameters(), lr=0.05)
    inputs, targets = batch(48)
    penalty = HessianTrace(model, nn.CrossEntropyLoss(), gamma=gamma, **options)
    for _ in range(num):
        steps.zero_grad()
        for pair in zip(inputs.chunk(accumulate), targets.chunk(accumulate), strict=True):
            loss = F.cross_entropy(model(pair[0]), pair[1])
            if penalty is not None:
                loss = loss + penalty(pair)
            (loss / accumulate).backward()
        steps.step()
    return model


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_training_with_it_ends_at_a_smaller_trace(optimizer):
    pair = batch(48)
    traces = [
        sum(dense_traces(fit(gamma, optimizer), nn.CrossEntropyLoss(), pair).values())
        for gamma in (0.0, 0.3)
    ]
    assert float(traces[1]) < 0.7 * float(traces[0])


def test_gradients_accumulate_over_parts_of_a_batch():
    """Each part has a penalty of its own, whose mean is that of the batch but for its draws."""
    model = small()
    penalty = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0)
    pairs = [batch(8), batch(8)]
    expected = [torch.autograd.grad(penalty(pair), list(model.parameters())) for pair in pairs]
    penalty.load_state_dict({"calls": 0})
    for pair in pairs:
        (penalty(pair) / 2).backward()
    for p, first, second in zip(model.parameters(), *expected, strict=True):
        torch.testing.assert_close(p.grad, (first + second) / 2)


def test_compiled_models_and_steps_have_the_penalty_of_the_plain_one():
    model, pair = small(), batch()
    plain = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0)
    expected = plain(pair)
    slopes = torch.autograd.grad(expected, list(model.parameters()))
    compiled = torch.compile(model, backend="aot_eager")
    partly = copy.deepcopy(model)
    partly[0] = torch.compile(partly[0], backend="aot_eager")
    in_place = copy.deepcopy(model)
    in_place.compile(backend="aot_eager")
    for given in (compiled, partly, in_place):
        given(pair[0]).sum().backward()  # compiles it
        given.zero_grad()
        penalty = HessianTrace(given, nn.CrossEntropyLoss(), gamma=1.0)

        @torch.compile(backend="aot_eager")
        def step(inputs, targets, given=given, penalty=penalty):
            return F.cross_entropy(given(inputs), targets) * 0 + penalty((inputs, targets))

        value = step(*pair)
        value.backward()
        assert float(value.detach()) == pytest.approx(float(expected.detach()))
        for p, slope in zip(given.parameters(), slopes, strict=True):
            torch.testing.assert_close(p.grad, slope)


class _Detached(torch.autograd.Function):
    """Squares, with a gradient that leaves the graph."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x * x

    @staticmethod
    def backward(ctx, cotangent):
        return 2 * ctx.x * cotangent


class _Through(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 3).to(DTYPE), function

    def forward(self, x):
        return self.function(self.linear(x))


REFUSED = {
    "detached": (lambda x: _Detached.apply(x), nn.CrossEntropyLoss(), "leaves the graph"),
    "missing": (lambda x: x, nn.MultiMarginLoss(), "no second derivative|no such derivatives"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", ["hutchinson", "per_class"])
def test_wrong_and_missing_derivatives_are_refused(name, method):
    function, loss_fn, message = REFUSED[name]
    penalty = HessianTrace(_Through(function), loss_fn, gamma=1.0, method=method)
    with pytest.raises(InputError, match=message):
        penalty(batch())


def test_losses_that_are_no_cross_entropy_are_refused_by_its_methods():
    model, (inputs, targets) = small(), batch()
    wide = F.one_hot(targets, 3).to(DTYPE)

    def decayed(outputs, targets):
        return F.cross_entropy(outputs, targets) + sum(p.square().sum() for p in model.parameters())

    for loss_fn, given, message in (
        (nn.MSELoss(), wide, "softmax cross-entropy"),
        (nn.BCEWithLogitsLoss(), wide, "softmax cross-entropy"),
        (lambda z, y: F.cross_entropy(z, y) ** 2, targets, "softmax cross-entropy"),
        (decayed, targets, "reads parameters"),
    ):
        penalty = HessianTrace(model, loss_fn, gamma=1.0, method="sampled_labels", check=False)
        with pytest.raises(InputError, match=message):
            penalty((inputs, given))


def test_wrong_options_are_refused():
    model, loss_fn = small(), nn.CrossEntropyLoss()
    for options, message in (
        ({"gamma": -1.0}, "gamma must be at least 0"),
        ({"gamma": 1.0, "every": 0}, "every must be at least 1"),
        ({"gamma": 1.0, "method": "trace"}, "method must be one of"),
        ({"gamma": 1.0, "layers": "head"}, "No parameter matches 'head'"),
        ({"gamma": 1.0, "layers": {"0": 1.0, "0.bias": 2.0}}, "two weights"),
        ({"gamma": 1.0, "layers": {"0": -1.0}}, "at least 0"),
        ({"gamma": 1.0, "objective": loss_fn}, "either loss_fn or objective"),
    ):
        with pytest.raises(InputError, match=message):
            HessianTrace(model, loss_fn, **options)
    with pytest.raises(InputError, match="noise"):
        HessianTrace(small().half(), loss_fn, gamma=1.0)
    with pytest.raises(InputError, match="must be a pair"):
        HessianTrace(model, loss_fn, gamma=1.0)(batch()[0])


def test_a_loss_that_is_not_finite_gives_a_penalty_that_is_not():
    model, (inputs, targets) = small(), batch()
    penalty = HessianTrace(model, nn.CrossEntropyLoss(), gamma=1.0)
    assert not penalty((inputs * float("inf"), targets)).isfinite()
