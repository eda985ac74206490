"""The moments of Adam as directions, and its update rule, against torch.optim.Adam."""

import pytest
import torch
from cases import build, landscape, loader
from torch import nn

from mining import AdamMoments, AdamRule, Direction, Evaluator, InputError, Landscape
from mining.directions.adam_state import AdamState
from mining.evaluation.grid import Grid

ALPHAS, BETAS = Grid(num=3).alphas, Grid(low=-0.5, high=1.0, num=4).alphas


def trained(name="batchnorm", kind=torch.optim.Adam, steps=3, named=False, **options):
    """Give a model after some steps, its weights before the last one, and its optimizer."""
    model = build(name)
    given = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = kind(given if named else [p for _, p in given], lr=0.05, **options)
    model.eval()
    before = {}
    for inputs, targets in (loader() * 2)[:steps]:
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model, before, optimizer


def moments(of, state, num=2, **options):
    source = AdamMoments(state, **options)
    return source.directions(of, num, generator=torch.Generator())


def point(of, state, alpha, beta):
    x, y = moments(of, state)
    rule = AdamMoments(state).rule(of)
    return of.theta + rule.displacement(of.theta, x.vector, y.vector, alpha, beta)


def of_model(model):
    return Landscape(model, nn.CrossEntropyLoss(), loader(), batchnorm="frozen")


@pytest.mark.parametrize("name", ["mlp", "batchnorm", "tied", "shared", "partly_used"])
@pytest.mark.parametrize("named", [False, True])
def test_moments_are_those_of_the_optimizer(tmp_path, name, named):
    model, _, optimizer = trained(name, named=named)
    of = of_model(model)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c")
    parameters = dict(model.named_parameters())
    for state in (optimizer, optimizer.state_dict(), tmp_path / "c"):
        first, second = moments(of, state)
        assert (first.name, second.name) == ("first moment 1", "second moment 1")
        for direction, key in ((first, "exp_avg"), (second, "exp_avg_sq")):
            for n, piece in of.space.unflatten(direction.vector).items():
                own = optimizer.state[parameters[n]]
                assert torch.equal(piece, own[key] if own else torch.zeros_like(piece))
            assert direction.metadata["steps"] == 3
    (alone,) = moments(of, optimizer, 1, start=2)
    assert torch.equal(alone.vector, second.vector)


def test_an_optimizer_of_frozen_parameters_too_is_matched_by_order():
    model = build("partly_used")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)  # the first two are frozen
    for inputs, targets in loader():
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    of = of_model(model)
    first, _ = moments(of, optimizer.state_dict())
    pieces = of.space.unflatten(first.vector)
    assert torch.equal(pieces["used.weight"], optimizer.state[model.used.weight]["exp_avg"])
    assert not pieces["unused.weight"].any()  # never moved


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {}),
        (torch.optim.Adam, {"weight_decay": 0.1}),
        (torch.optim.Adam, {"amsgrad": True, "eps": 1e-3, "betas": (0.5, 0.9)}),
        (torch.optim.Adam, {"maximize": True}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
    ],
)
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", ["mlp", "partly_used", "tied"])
def test_one_step_of_the_rule_is_one_step_of_the_optimizer(kind, options, steps, name):
    model, before, optimizer = trained(name, kind, steps, **options)
    after = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.load_state_dict(before, strict=False)
    of = of_model(model)
    reached = of.space.unflatten(point(of, optimizer.state_dict(), 1, 0))
    for n in of.space.names:
        torch.testing.assert_close(reached[n], after[n], rtol=1e-12, atol=1e-14)


def test_a_step_without_a_gradient_is_found_among_the_coefficients():
    """The moments shrink by their decay rates, and their corrections change by a step."""
    model, _, optimizer = trained("mlp", steps=3)
    of, state = of_model(model), optimizer.state_dict()
    (beta1, beta2), t = state["param_groups"][0]["betas"], 3
    alpha = beta1 * (1 - beta1**t) / (1 - beta1 ** (t + 1))
    beta = beta2 * (1 - beta2**t) / (1 - beta2 ** (t + 1)) - 1
    found = point(of, state, alpha, beta)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    expected = of.space.flatten({n: p.detach() for n, p in model.named_parameters()})
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_the_step_back_undoes_the_last_step_of_adam():
    model, before, optimizer = trained("mlp", steps=4)
    of = of_model(model)
    expected = of.space.flatten(before)
    torch.testing.assert_close(point(of, optimizer, -1, 0), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("policy", ["frozen", "recalibrate", "batch"])
@pytest.mark.parametrize("chunk", [1, 5])
def test_a_surface_by_the_rule_has_the_losses_of_its_points(policy, chunk):
    model, _, optimizer = trained()
    of = Landscape(model, nn.CrossEntropyLoss(), loader(), batchnorm=policy)
    x, y = moments(of, optimizer)
    rule = AdamMoments(optimizer).rule(of)
    evaluator = Evaluator(of, progress=False, chunk=chunk)
    surface = evaluator.surface(x, y, ALPHAS, BETAS, rule)
    for i, alpha in enumerate(surface.alphas.tolist()):
        for j, beta in enumerate(surface.betas.tolist()):
            theta = of.theta + rule.displacement(of.theta, x.vector, y.vector, alpha, beta)
            assert float(surface.loss[i, j]) == pytest.approx(float(of.loss(theta)), rel=1e-10)
    column = surface.betas.tolist().index(0)
    assert float(surface.loss[1, column]) == float(of.loss(of.theta))
    assert surface.loss[1].unique().numel() == 1  # without a first moment nothing moves


def test_estimated_losses_follow_the_rule_too():
    model, _, optimizer = trained("mlp")
    of = of_model(model)
    x, y = moments(of, optimizer)
    rule = AdamMoments(optimizer).rule(of)
    exact = Evaluator(of, progress=False).surface(x, y, ALPHAS, BETAS, rule)
    found = Evaluator(of, progress=False, tolerance=0.9).surface(x, y, ALPHAS, BETAS, rule)
    distance = (found.loss - exact.loss).abs()
    assert bool((distance <= 5 * found.loss_error + 1e-12).all())


def test_a_journal_of_another_rule_is_refused(tmp_path):
    model, _, optimizer = trained("mlp")
    of = of_model(model)
    x, y = moments(of, optimizer)
    rule = AdamMoments(optimizer).rule(of)
    journal = tmp_path / "points.csv"
    first = Evaluator(of, progress=False, journal=journal).surface(x, y, ALPHAS, BETAS, rule)
    again = Evaluator(of, progress=False, journal=journal).surface(x, y, ALPHAS, BETAS, rule)
    assert torch.equal(first.loss, again.loss)
    for other in (None, rule.frozen("1")):
        with pytest.raises(InputError):
            Evaluator(of, progress=False, journal=journal).surface(x, y, ALPHAS, BETAS, other)


def test_frozen_parameters_do_not_move_by_the_rule():
    model, _, optimizer = trained("mlp", torch.optim.AdamW, weight_decay=0.1)
    of = of_model(model)
    x, y = moments(of, optimizer)
    rule = AdamMoments(optimizer).rule(of)
    moved, still = (
        of.space.unflatten(r.displacement(of.theta, x.vector, y.vector, 2.0, 0.5))
        for r in (rule, rule.frozen("1"))
    )
    for name in of.space.names:
        expected = torch.zeros_like(moved[name]) if name.startswith("1.") else moved[name]
        assert torch.equal(still[name], expected)


def test_groups_without_names_are_refused_and_with_them_matched(tmp_path):
    model = build("mlp")

    def groups(named):
        pairs = list(model.named_parameters())
        parts = ([p for p in pairs if "weight" in p[0]], [p for p in pairs if "bias" in p[0]])
        of_each = ([p if named else p[1] for p in part] for part in parts)
        return [{"params": part, "lr": lr} for part, lr in zip(of_each, (0.1, 0.2), strict=True)]

    for named in (False, True):
        optimizer = torch.optim.Adam(groups(named))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(loader()[0][0]), loader()[0][1]).backward()
        optimizer.step()
        of = of_model(model)
        expected = {n: optimizer.state[p]["exp_avg"] for n, p in model.named_parameters()}
        assert torch.equal(moments(of, optimizer)[0].vector, of.space.flatten(expected))
        if named:
            (first, _) = moments(of, optimizer.state_dict())
            assert torch.equal(first.vector, of.space.flatten(expected))
            rates = [step.lr for step in AdamMoments(optimizer.state_dict()).rule(of).steps]
            assert rates == [0.1, 0.2, 0.1, 0.2]
        else:
            with pytest.raises(InputError, match="has 2 parameter groups and no names"):
                moments(of, optimizer.state_dict())


def test_what_is_no_state_of_adam_is_refused_with_a_reason(tmp_path):
    of = of_model(trained("mlp")[0])

    def refused(state, message, **options):
        with pytest.raises(InputError, match=message):
            moments(of, state, **options)

    _, _, sgd = trained("mlp", torch.optim.SGD, momentum=0.9)
    refused(sgd, "needs the state of Adam or AdamW, .* got one with .*momentum_buffer, .*: train")
    refused(trained("mlp", torch.optim.SGD)[2].state_dict(), "got one with dampening")
    refused(torch.optim.Adam(of.model.parameters()), "has not taken a step")
    refused(None, "must be given")
    refused({"model": {}}, "must be what optimizer.state_dict")
    refused(trained("tied")[2].state_dict(), r"optimizer is of 5 parameters; the model has 4")
    _, _, other = trained("mlp")
    other = other.state_dict()
    other["state"][0]["exp_avg"] = torch.zeros(3, 3)
    refused(other, r"moments of 1.weight must have shape \(8, 64\), got \(3, 3\)")
    _, _, named = trained("partly_used", named=True)
    refused(named.state_dict(), "is of other parameters: used.weight")
    with pytest.raises(InputError, match="must be between 1 and 2 from moment 1"):
        moments(of, trained("mlp")[2], 3)
    for options, message in (
        ({"start": 3}, "must be 1 or 2"),
        ({"lr": 0}, "must be positive"),
        ({"state": 3}, "got int"),
    ):
        with pytest.raises(InputError, match=message):
            AdamMoments(**options)
    with pytest.raises(InputError, match="both the second moment"):
        AdamMoments(start=2).shared_search(AdamMoments(start=2))


def test_the_rule_refuses_what_it_does_not_fit():
    model, _, optimizer = trained("mlp")
    of = of_model(model)
    x, y = moments(of, optimizer)
    rule = AdamMoments(optimizer).rule(of)
    evaluator = Evaluator(of, progress=False)
    with pytest.raises(InputError, match=r"grid\.y_low must lie above -1, got -1"):
        evaluator.surface(x, y, ALPHAS, ALPHAS, rule)
    with pytest.raises(InputError, match="first moment 1 has negative entries"):
        evaluator.surface(y, x, ALPHAS, BETAS, rule)
    with pytest.raises(InputError, match="was multiplied by 2: leave"):
        evaluator.surface(Direction(x.vector, "x", scale=2.0), y, ALPHAS, BETAS, rule)
    with pytest.raises(InputError, match="one for each of 4 parameters, got 0"):
        AdamRule(of.space, ())
    _, _, other = trained("mlp", torch.optim.NAdam)
    with pytest.raises(InputError, match="needs the parameter groups of Adam or AdamW"):
        AdamState.read(other, of).step_settings()
    decayed = trained("mlp")[2]
    decayed.param_groups[0]["lr"] = 0.0
    with pytest.raises(InputError, match="learning rate in the state is 0"):
        AdamMoments(decayed).rule(of)
    assert {step.lr for step in AdamMoments(decayed, lr=0.5).rule(of).steps} == {0.5}
    unmoved = of_model(build("partly_used"))
    rates = AdamMoments(trained("partly_used")[2].state_dict(), lr=0.5).rule(unmoved).steps
    assert [step.lr for step in rates] == [0.5, 0.5, 0, 0]
    unknown = trained("mlp", torch.optim.AdamW, weight_decay=0.1)[2].state_dict()
    del unknown["param_groups"][0]["decoupled_weight_decay"]
    with pytest.raises(InputError, match="does not say whether its weight decay is decoupled"):
        AdamState.read(unknown, of).step_settings()


def test_moments_need_no_particular_policy_or_dtype():
    of = landscape("batchnorm", "recalibrate")
    model = build("batchnorm", torch.float32)
    optimizer = torch.optim.Adam(model.parameters())
    inputs, targets = loader(dtype=torch.float32)[0]
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    first, _ = moments(of, optimizer.state_dict())
    assert first.vector.dtype == torch.float64
