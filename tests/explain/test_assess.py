"""Assessments against dense matrices, and the networks with known faults."""

import math

import pytest
import torch
from cases import TiedNet, assert_unchanged, build, loader, quadratic_landscape, snapshot
from torch import nn

from mining import AssessmentSettings, InputError, Landscape, assess, compare, make_dense
from mining.explain.groups import draw_groups
from mining.explain.measuring import Parts
from mining.explain.stationarity import measure_extremes, measure_fall, measure_trace
from mining.explain.surroundings import measure_barrier

SMALL = AssessmentSettings(
    curvature_examples=None, num_curves=2, curve_points=11, density_steps=8, density_probes=2
)


def blobs(num, seed=0, classes=4, dimension=6, spread=1.0):
    """Points about one centre for each class."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, dimension, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(num) % classes
    noise = spread * torch.randn(num, dimension, generator=generator)
    return (centres[targets] + noise).double(), targets


def batches(inputs, targets, size=50):
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def network(*, batchnorm=False, width=24, dimension=6, classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = [nn.BatchNorm1d(width)] if batchnorm else []
        layers = [nn.Linear(dimension, width), *norm, nn.ReLU(), nn.Linear(width, classes)]
        return nn.Sequential(*layers).double()


def trained(model, inputs, targets, steps=300, lr=0.05):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model


def names(found):
    return {finding.name for finding in found.findings}


def test_stale_batch_norm_statistics_are_named():
    inputs, targets = blobs(400)
    model = trained(network(batchnorm=True), inputs, targets)
    for policy in ("recalibrate", "frozen"):
        of = Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets), batchnorm=policy)
        assert "stale batch-norm statistics" not in names(assess(of, settings=SMALL))
    model[1].reset_running_stats()
    before = snapshot(model)
    for policy in ("recalibrate", "frozen"):
        of = Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets), batchnorm=policy)
        found = assess(of, settings=SMALL)
        assert "stale batch-norm statistics" in names(found)
        assert found["loss_stored_statistics"].value == pytest.approx(
            float(nn.functional.cross_entropy(model.eval()(inputs), targets))
        )
        model.train()
    assert_unchanged(model, before)


@pytest.mark.parametrize("zero", ["output", "twins"])
def test_a_network_stopped_at_a_saddle_is_named(zero):
    inputs, targets = blobs(400)
    model = network(width=8)
    with torch.no_grad():
        if zero == "output":  # no signal passes, in either direction: the gradient vanishes
            model[0].weight.zero_()
            model[0].bias.zero_()
            model[2].weight.zero_()
        else:  # all hidden units are the same, and stay so
            model[0].weight[:] = model[0].weight[:1]
            model[0].bias.fill_(1.0)
            model[2].weight[:] = model[2].weight[:, :1]
    if zero == "output":
        model[1] = nn.Tanh()  # with derivatives at zero
        with torch.no_grad():  # the best output without inputs
            model[2].bias[:] = torch.bincount(targets).double().log()
    else:
        trained(model, inputs, targets, steps=3000, lr=0.01)
    found = assess(Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets)))
    assert "saddle" in names(found)
    assert found["lambda_min"].value < 0
    assert "minimum" not in names(found)


def test_a_network_that_memorized_random_labels_is_named():
    inputs, targets = blobs(200, dimension=20)
    generator = torch.Generator().manual_seed(5)
    shuffled = targets[torch.randperm(200, generator=generator)]
    test = blobs(400, seed=1, dimension=20)
    random = trained(network(width=200, dimension=20), inputs, shuffled, lr=0.01)
    of = Landscape(random, nn.CrossEntropyLoss(), batches(inputs, shuffled))
    found = assess(of, test=batches(*test), settings=SMALL)
    assert found["loss"].value < 0.1
    assert "memorized" in names(found)
    honest = trained(network(width=200, dimension=20), inputs, targets, lr=0.01)
    of = Landscape(honest, nn.CrossEntropyLoss(), batches(inputs, targets))
    assert "memorized" not in names(assess(of, test=batches(*test), settings=SMALL))


def test_training_that_has_not_converged_is_named():
    inputs, targets = blobs(400)
    early = trained(network(), inputs, targets, steps=3)
    found = assess(Landscape(early, nn.CrossEntropyLoss(), batches(inputs, targets)))
    assert "descending" in names(found)
    late = trained(network(), inputs, targets, steps=2000)
    found = assess(Landscape(late, nn.CrossEntropyLoss(), batches(inputs, targets)))
    assert names(found) == {"minimum"}
    guess = network()
    with torch.no_grad():
        guess[2].weight.zero_()
        guess[2].bias.zero_()
    found = assess(Landscape(guess, nn.CrossEntropyLoss(), batches(inputs, targets)))
    assert "untrained" in names(found)
    assert "minimum" not in names(found)


def test_curvature_of_all_examples_is_that_of_the_dense_matrix():
    inputs, targets = blobs(130)
    model = trained(network(width=10), inputs, targets, steps=20)
    of = Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets, 32))
    found = assess(of, settings=SMALL)
    dense = make_dense(of.hessian()).double()
    eigenvalues = torch.linalg.eigvalsh(dense)
    assert found["lambda_max"].value == pytest.approx(float(eigenvalues[-1]), rel=0.01)
    assert found["lambda_min"].value == pytest.approx(float(eigenvalues[0]), rel=0.1)
    ratio = float(eigenvalues[0] / eigenvalues[-1])
    assert found["c_t"].value == pytest.approx(ratio, rel=0.1)
    assert found["r_e"].value == pytest.approx(max(0.0, -ratio), rel=0.1)
    trace = found["trace"]
    assert abs(trace.value - float(eigenvalues.sum())) < 3 * trace.error
    gradient = of.gradient()
    assert found["gradient_norm"].value == pytest.approx(float(gradient.norm()))
    # One step along the gradient is critical where the loss is as high as at θ.
    step = 2 / found["critical_sharpness"].value
    low, high = (float(of.loss(of.theta - s * step * gradient)) for s in (0.98, 1.02))
    assert low < found["loss"].value < high
    assert found.num_examples["curvature"] == 130


def test_a_sample_brackets_the_eigenvalue_of_all_examples():
    inputs, targets = blobs(600, spread=2.0)
    model = trained(network(width=10), inputs, targets, steps=100)
    of = Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets))
    truth = float(torch.linalg.eigvalsh(make_dense(of.hessian()).double())[-1])
    settings = AssessmentSettings(curvature_examples=100, num_curves=1, curve_points=11)
    inside = 0
    for seed in range(8):
        found = assess(of, settings=settings, seed=seed)
        measured = found["lambda_max"]
        inside += abs(measured.value - truth) < 2 * measured.error
        assert found.num_examples["curvature"] == 100
        assert found.num_examples["check"] == 500
    assert inside >= 7


def test_groups_add_up_to_the_landscape():
    inputs, targets = blobs(130)
    plain = network(width=10)
    vector = torch.randn(114, generator=torch.Generator().manual_seed(0)).double()
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")):
        of = Landscape(plain, loss, batches(inputs, targets, 32))
        groups, others = draw_groups(of, None, 6, torch.Generator().manual_seed(0))
        assert others is None
        theta = of.theta
        assert float(groups.mean(groups.losses(theta))) == pytest.approx(float(of.loss(theta)))
        mean = groups.shares @ groups.gradients()
        assert torch.allclose(mean, of.gradient())
        assert torch.allclose(groups.hessian() @ vector, of.hessian() @ vector)
        quotients = groups.hessian().quotients(vector[:, None])
        expected = float(vector @ (of.hessian() @ vector))
        assert float(groups.mean(quotients)[0]) == pytest.approx(expected)


def test_a_sum_is_assessed_as_a_multiple_of_the_mean():
    inputs, targets = blobs(120)
    model = trained(network(width=10), inputs, targets, steps=20)
    settings = AssessmentSettings(curvature_examples=60, num_curves=2, curve_points=11)
    mean, total = (
        assess(
            Landscape(model, nn.CrossEntropyLoss(reduction=reduction), batches(inputs, targets)),
            settings=settings,
        )
        for reduction in ("mean", "sum")
    )
    scaled = ("loss", "gradient_norm", "lambda_max", "lambda_min", "trace", "critical_sharpness")
    for name in (*scaled, "adaptive_sharpness", "negative_fall"):
        one, other = mean[name], total[name]
        assert other.value == pytest.approx(120 * one.value, rel=1e-3), name
        if name != "loss":  # whose error comes from single examples only for a mean
            assert other.error == pytest.approx(120 * one.error, rel=1e-2), name
    assert mean["curve_width"].value == pytest.approx(total["curve_width"].value)


class OwnLoss(nn.Module):
    """A network that computes its own loss, from a mapping."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 1)

    def forward(self, inputs, targets):
        return ((self.layer(inputs)[:, 0] - targets) ** 2).mean()


def test_a_model_with_a_loss_of_its_own_is_assessed_as_far_as_it_can_be():
    inputs, targets = blobs(200)
    mappings = [{"inputs": x, "targets": y.double()} for x, y in batches(inputs, targets, 20)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OwnLoss().double()
    of = Landscape(model, objective=lambda model, batch: model(**batch), batches=mappings)
    found = assess(of, settings=SMALL)
    assert found["loss"].error > 0  # over batches
    for name in ("accuracy", "calibration_error", "curve_width", "batchnorm_mismatch"):
        assert found[name].value is None
        assert found[name].why
        assert not found[name].applies
    # The loss is quadratic: its Hessian is 2 E[xxᵀ], with a one for the bias.
    design = torch.cat([inputs, torch.ones(200, 1).double()], 1)
    largest = float(torch.linalg.eigvalsh(2 * design.T @ design / 200)[-1])
    assert found["lambda_max"].value == pytest.approx(largest)
    assert "descending" in names(found)


@pytest.mark.parametrize("name", ["tied", "batchnorm", "attention", "partly_used"])
@pytest.mark.parametrize("batchnorm", ["recalibrate", "batch"])
def test_any_model_is_assessed_and_left_as_it_was(name, batchnorm):
    model = build(name)
    before = snapshot(model)
    of = Landscape(model, nn.CrossEntropyLoss(), loader(), batchnorm=batchnorm)
    found = assess(of, test=loader(40), settings=SMALL)
    assert_unchanged(model, before)
    for measured in found.measurements.values():
        assert measured.value is None or math.isfinite(measured.value)
        assert measured.value is not None or measured.why
    assert found["loss"].value == pytest.approx(float(of.loss(of.theta)))
    record = found.record()
    assert set(record["loss"]) == {"value", "error", "applies", "why"}
    again = assess(of, test=loader(40), settings=SMALL)
    assert again.measurements == found.measurements


def test_weighted_classes_have_an_error_from_groups():
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]).double())
    of = Landscape(build("mlp"), weighted, loader())
    found = assess(of, settings=SMALL)
    assert found["loss"].value == pytest.approx(float(of.loss(of.theta)))
    assert found["loss"].error > 0
    assert found["accuracy"].error > 0


def test_a_perfect_accuracy_is_not_without_error():
    inputs, targets = blobs(100, spread=0.01)
    of = Landscape(
        trained(network(), inputs, targets), nn.CrossEntropyLoss(), batches(inputs, targets)
    )
    found = assess(of, settings=SMALL)
    assert found["accuracy"].value == 1.0
    assert found["accuracy"].error == pytest.approx(0.015)
    assert found.quantities["accuracy"].interval == pytest.approx((0.97, 1.0))


def test_two_networks_are_compared_on_the_same_examples():
    inputs, targets = blobs(400, spread=2.5)
    model = trained(network(), inputs, targets, steps=100)
    first = assess(Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets)))
    same = compare(first, first)
    assert all(d.value in (0.0, None) for d in same.values())
    assert not any(d.is_clear for d in same.values())
    with torch.no_grad():
        model[0].weight *= 1.02
    moved = assess(Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets)))
    found = compare(first, moved)["loss"]
    unpaired = math.hypot(first["loss"].error, moved["loss"].error)
    assert found.value == pytest.approx(moved["loss"].value - first["loss"].value)
    assert found.error < 0.3 * unpaired
    few = Landscape(model, nn.CrossEntropyLoss(), batches(inputs[:50], targets[:50]))
    with pytest.raises(InputError, match="same examples"):
        compare(first, assess(few))


def test_the_fall_along_a_negative_eigenvector_of_a_quadratic():
    of = quadratic_landscape()
    values, vectors = torch.linalg.eigh(make_dense(of.hessian()).double())
    groups, _ = draw_groups(of, None, 2, torch.Generator().manual_seed(0))
    found = measure_fall(groups, None, vectors[:, 0], 4)
    expected = -0.5 * float(values[0]) * (0.5 * float(of.theta.norm())) ** 2
    assert found.value == pytest.approx(expected)


def test_the_barrier_of_a_double_well():
    class Wells(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.tensor([-1.0, 0.0], dtype=torch.float64))

        def forward(self, inputs):
            return ((self.place[0] ** 2 - 1) ** 2 + 0.5 * self.place[0]).expand(len(inputs))

    pairs = [(torch.zeros(4, 1).double(), torch.zeros(4).double())]
    of = Landscape(Wells(), lambda outputs, targets: outputs.mean(), pairs)
    groups, _ = draw_groups(of, None, 2, torch.Generator().manual_seed(0))
    other = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert measure_barrier(groups, of.theta, other, 11).value == pytest.approx(1.0)
    found = assess(of, other={"place": other}, settings=SMALL)
    assert found["barrier"].value == pytest.approx(1.0)


def test_the_limit_of_a_learning_rate_stands_beside_the_largest_eigenvalue():
    of = Landscape(TiedNet().double(), nn.CrossEntropyLoss(), loader())
    assert assess(of, learning_rate=0.1, settings=SMALL)["stability_limit"].value == 20
    with pytest.raises(InputError, match="learning_rate"):
        assess(of, learning_rate=0.0)


def test_settings_out_of_range_are_refused():
    for options in ({"num_groups": 1}, {"rho": -1.0}, {"density_probes": 1}):
        with pytest.raises(InputError, match=next(iter(options))):
            AssessmentSettings(**options)


def test_errors_contain_the_truth_of_the_population():
    inputs, targets = blobs(6000, spread=2.5)
    model = trained(network(width=5), inputs[:600], targets[:600], steps=100)
    whole = Landscape(model, nn.CrossEntropyLoss(), batches(inputs, targets, 500))
    eigenvalues = torch.linalg.eigvalsh(make_dense(whole.hessian()).double())
    truth = {
        "lambda_max": float(eigenvalues[-1]),
        "trace": float(eigenvalues.sum()),
        "loss": float(whole.loss(whole.theta)),
        "gradient_squared_norm": float(whole.gradient().square().sum()),
    }
    scores: dict[str, list[float]] = {name: [] for name in truth}
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(6000, generator=generator)[:400]
        of = Landscape(model, nn.CrossEntropyLoss(), batches(inputs[chosen], targets[chosen], 100))
        parts = Parts(of, AssessmentSettings(curvature_examples=150), seed, False)
        parts.measure_sets({"": of.batches})
        parts.measure_gradient()
        sample, others = parts._sample, parts._others
        hessian = sample.hessian()
        parts.found["trace"] = measure_trace(hessian, sample, 10, generator)
        extremes = measure_extremes(hessian, sample, others, generator, 60)
        parts.found["lambda_max"] = extremes.largest
        for name, value in truth.items():
            found = parts.found[name]
            scores[name].append((found.value - value) / found.error)
    for name, found in scores.items():
        errors = torch.tensor(found).abs()
        # Of 12 intervals of two standard errors all but one or two contain the truth.
        assert int((errors < 2).sum()) >= 10, name
        assert float(errors.square().mean().sqrt()) > 0.4, name
