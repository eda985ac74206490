"""A monitor measures what a stand-alone computation does, and leaves the training alone."""

import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from mining import InputError, Landscape, Monitor, make_dense
from mining.curvature.operators import MatrixOperator
from mining.curvature.preconditioned import PreconditionedOperator
from mining.data import digits
from mining.explain.groups import draw_groups
from mining.functional.parameters import ParameterSpace
from mining.monitoring.share import take_share
from mining.monitoring.stability import Stability, stability_of, update_of

DTYPE = torch.float64
#: Targets of 600 examples.
THIRDS = torch.arange(600) % 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(num=96, classes=3):
    inputs = torch.randn(num, 6, generator=generator(), dtype=DTYPE)
    return inputs, torch.arange(num) * classes // num  # sorted by class


def network(batchnorm=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = [nn.BatchNorm1d(5)] if batchnorm else []
        layers = [nn.Linear(6, 5), *norm, nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3)]
        return nn.Sequential(*layers).to(DTYPE)


def loader(**options):
    return DataLoader(TensorDataset(*examples()), batch_size=16, shuffle=True, **options)


def optimizers(parameters):
    return {
        "sgd": torch.optim.SGD(parameters, lr=0.1),
        "momentum": torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
        "adam": torch.optim.Adam(parameters, lr=0.01),
    }


def fit(kind, monitored, **options):
    """Train for three epochs; return everything that the training left behind."""
    model, batches = network(), loader(generator=generator(1))
    optimizer = optimizers(list(model.parameters()))[kind]
    monitor = Monitor(model, nn.CrossEntropyLoss(), batches, **options) if monitored else None
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    model.train()
    for epoch in range(4):
        for inputs, targets in batches if epoch else ():
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        if monitor is not None:
            monitor.step(epoch, optimizer)
            assert model.training
    left = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    left += [torch.rand(3), torch.tensor([random.random(), np.random.rand()])]  # noqa: NPY002
    return left, monitor


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_the_training_is_bit_for_bit_the_same(kind):
    plain, _ = fit(kind, monitored=False)
    watched, monitor = fit(kind, monitored=True, every=1, num_examples=48)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert list(monitor.table.epoch) == [0, 1, 2, 3]
    assert monitor.table[["lambda_max", "trace", "gradient_norm"]].notna().all(axis=None)


def test_values_are_those_of_a_computation_by_itself():
    model, batches = network(batchnorm=False), loader(generator=generator(1))
    monitor = Monitor(
        model, nn.CrossEntropyLoss(), batches, num_examples=24, probes=200, batchnorm="frozen",
        layers=True,
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    row = monitor.step(0, optimizer)
    landscape = Landscape(
        model, nn.CrossEntropyLoss(), take_share(batches, 48, generator(0)), batchnorm="frozen"
    )
    halves = [
        landscape.restrict(half.batches) for half in draw_groups(landscape, 24, 8, generator(0))
    ]
    dense, elsewhere = (make_dense(half.hessian()) for half in halves)
    values, vectors = torch.linalg.eigh(dense)
    assert row["lambda_max"] == pytest.approx(float(values[-1]), rel=1e-3)
    vector = vectors[:, -1]
    assert row["lambda_max_elsewhere"] == pytest.approx(
        float(vector @ elsewhere @ vector), rel=0.05
    )
    assert row["trace"] == pytest.approx(float(dense.trace()), abs=4 * row["trace_standard_error"])
    assert row["loss"] == pytest.approx(float(halves[0].loss(halves[0].theta)))
    assert row["gradient_norm"] == pytest.approx(float(halves[0].gradient().norm()))
    assert row["stability"] == pytest.approx(0.3 * row["lambda_max"] / 2)
    layers = monitor.layers.set_index("layer")
    assert list(layers.index) == ["0", "3"]
    assert list(layers.place) == [0.25, 0.75]
    assert layers.trace.sum() == pytest.approx(row["trace"])
    size = sum(p.numel() for p in model[0].parameters())
    for layer, block in (("0", dense[:size, :size]), ("3", dense[size:, size:])):
        found, largest = layers.loc[layer], float(torch.linalg.eigvalsh(block)[-1])
        assert found.trace == pytest.approx(
            float(block.trace()), abs=4 * found.trace_standard_error
        )
        assert found.lambda_max == pytest.approx(largest, rel=1e-3)


def test_shares_bracket_the_largest_eigenvalue_of_all_examples_on_average():
    examples = digits().train
    inputs, targets = examples.inputs[:400].double(), examples.labels[:400]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    data = DataLoader(TensorDataset(inputs, targets), batch_size=50)
    truth = torch.linalg.eigvalsh(
        make_dense(Landscape(model, nn.CrossEntropyLoss(), data, batchnorm="frozen").hessian())
    )[-1]
    rows = []
    for seed in range(10):
        monitor = Monitor(
            model, nn.CrossEntropyLoss(), data, every=1, num_examples=20, probes=2, seed=seed
        )
        rows.append(monitor.step(0, optimizer))
    means = pd.DataFrame(rows)[["lambda_max", "lambda_max_elsewhere"]].mean()
    assert means.lambda_max_elsewhere < float(truth) < means.lambda_max


def test_a_preconditioned_operator_has_the_eigenvalues_of_the_product():
    matrix = torch.randn(4, 4, generator=generator(), dtype=DTYPE)
    matrix = matrix + matrix.T
    scales = torch.tensor([0.0, 1.0, 2.0, 0.5], dtype=DTYPE)
    shifts = torch.tensor([3.0, 0.1, 0.2, 0.3], dtype=DTYPE)
    found = make_dense(PreconditionedOperator(MatrixOperator(matrix), scales, shifts))
    product = torch.diag(scales) @ (matrix + torch.diag(shifts))
    expected = torch.linalg.eigvals(product).real.sort().values
    assert torch.allclose(torch.linalg.eigvalsh(found), expected, atol=1e-12)
    with pytest.raises(InputError, match="not negative"):
        PreconditionedOperator(MatrixOperator(matrix), -scales)


STEPS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "decay": lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.7),
    "decay with nesterov": lambda p, lr: torch.optim.SGD(
        p, lr=lr, weight_decay=0.7, momentum=0.5, nesterov=True
    ),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "dampening": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.8, dampening=0.5),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(0.9, 1 - 1e-12)),
    "adam with L2": lambda p, lr: torch.optim.Adam(
        p, lr=lr, betas=(0.9, 1 - 1e-12), weight_decay=0.3
    ),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr, alpha=1 - 1e-12, momentum=0.5),
}


def settle(optimizer, parameter):
    """Give a fixed second moment to an optimizer that has one, after many steps."""
    moments = torch.tensor([0.5, 2.0, 1.0], dtype=DTYPE)
    if isinstance(optimizer, torch.optim.Adam):
        # The bias correction of β₂ = 1 - 10⁻¹² after 10⁶ steps: exp_avg_sq is that share of it.
        steps = 10**6
        share = 1 - (1 - 1e-12) ** steps
        optimizer.state[parameter] = {
            "step": torch.tensor(float(steps), dtype=DTYPE),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": moments * share,
        }
    elif isinstance(optimizer, torch.optim.RMSprop):
        optimizer.state[parameter] = {
            "step": torch.tensor(9.0),
            "square_avg": moments.clone(),
            "momentum_buffer": torch.zeros_like(parameter),
        }


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("ratio", [0.97, 1.03])
def test_steps_on_a_quadratic_diverge_beyond_the_limit_and_not_below_it(kind, ratio):
    """Of L = ½ θᵀHθ, with the curvature of the limit times a ratio."""
    base = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 0.1]], dtype=DTYPE)
    # So small that the second moments, of a memory of 10⁻¹², stay as they are.
    parameter = nn.Parameter(1e-4 * torch.ones(3, dtype=DTYPE))
    module = nn.Module()
    module.theta = parameter
    optimizer = STEPS[kind]([parameter], 0.1)
    settle(optimizer, parameter)
    limit = stability_of(optimizer, {"theta": parameter}, ParameterSpace.of(module))
    assert isinstance(limit, Stability)
    shifts = torch.zeros(3, dtype=DTYPE) if limit.shifts is None else limit.shifts

    def ratio_of(factor):
        product = torch.diag(limit.scales) @ (factor * base + torch.diag(shifts))
        return float(torch.linalg.eigvals(product).real.max())

    # Linear in the factor only without decay, so it is found by bisection.
    low, high = 0.0, 1e4
    for _ in range(80):
        factor = (low + high) / 2
        low, high = (factor, high) if ratio_of(factor) < ratio else (low, factor)
    matrix = factor * base
    for _ in range(3000):
        parameter.grad = matrix @ parameter.detach()
        optimizer.step()
        if not parameter.isfinite().all() or parameter.norm() > 1e-2:
            break
    assert bool(parameter.norm() > 1e-2) == (ratio > 1)


@pytest.mark.parametrize(
    "kind",
    ["sgd", "decay", "decay with nesterov", "momentum", "nesterov", "adam", "adam with L2"],
)
def test_the_update_is_what_the_last_step_subtracted(kind):
    model = network()
    optimizer = STEPS[kind](model.parameters(), 0.05)
    space = ParameterSpace.of(model)
    parameters = dict(model.named_parameters())
    assert update_of(optimizer, parameters, space) is None  # no step was taken
    inputs, targets = examples()
    for _ in range(3):
        before = space.flatten({n: p.detach().clone() for n, p in parameters.items()})
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    after = space.flatten({n: p.detach() for n, p in parameters.items()})
    # Adam's L2 and SGD's count among the gradients.
    update = update_of(optimizer, parameters, space)
    assert torch.allclose(update, before - after, rtol=1e-9, atol=1e-12)


def test_limits_that_are_not_known_are_said():
    model = network()
    parameters, space = dict(model.named_parameters()), ParameterSpace.of(model)
    told = stability_of(torch.optim.Adagrad(model.parameters()), parameters, space)
    assert told == "no limit is known for Adagrad, only for SGD, Adam, AdamW and RMSprop"
    told = stability_of(torch.optim.Adam(model.parameters()), parameters, space)
    assert told == "the optimizer has not taken a step yet"
    groups = [
        {"params": model[0].parameters(), "momentum": 0.9},
        {"params": model[4].parameters(), "momentum": 0.5},
    ]
    told = stability_of(torch.optim.SGD(groups, lr=0.1), parameters, space)
    assert told == "parameter groups have different momenta: [0.5, 0.9]"


def test_parameters_have_the_rates_of_their_groups_and_others_none():
    model = network(batchnorm=False)
    groups = [{"params": [model[0].weight], "lr": 0.2}, {"params": [model[3].weight], "lr": 0.4}]
    found = stability_of(
        torch.optim.SGD(groups), dict(model.named_parameters()), ParameterSpace.of(model)
    )
    assert found.lr is None
    assert found.scales.unique().tolist() == [0.0, 0.1, 0.2]


def test_a_share_of_a_sorted_loader_has_all_classes():
    inputs, targets = examples()
    for batches in (
        DataLoader(TensorDataset(inputs, targets), batch_size=16),
        list(zip(inputs.split(4), targets.split(4), strict=True)),
    ):
        share = take_share(batches, 48, generator())
        labels = torch.cat([batch[1] for batch in share])
        assert len(labels) == 48
        assert set(labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("num", "groups"), [(64, 2), (128, 4), (300, 4)])
def test_few_examples_that_share_statistics_have_a_sampling_error(num, groups):
    inputs = torch.randn(600, 6, generator=generator(), dtype=DTYPE)
    batches = DataLoader(TensorDataset(inputs, THIRDS), batch_size=128)
    share = take_share(batches, 2 * num, generator())
    assert sum(len(batch[0]) for batch in share) == 2 * num
    model = network()
    landscape = Landscape(model, nn.CrossEntropyLoss(), share, batchnorm="batch")
    own, _ = draw_groups(landscape, num, 8, generator())
    assert len(own) == groups
    monitor = Monitor(model, nn.CrossEntropyLoss(), batches, num_examples=num)
    row = monitor.step(0, torch.optim.SGD(model.parameters(), lr=0.1))
    assert row["lambda_max_sampling_error"] > 0
    assert row["trace_sampling_error"] > 0
    assert row["gradient_noise"] > 0


def test_a_share_is_of_the_examples_that_the_sampler_names():
    data = TensorDataset(*examples())
    some = DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(10)))
    share = take_share(some, 100, generator())
    found = torch.cat([batch[0] for batch in share])
    assert sorted(found[:, 0].tolist()) == sorted(data.tensors[0][:10, 0].tolist())


def test_an_iterator_is_refused_because_the_training_needs_it():
    with pytest.raises(InputError, match="gone through again, got an iterator"):
        take_share(iter(loader()), 10, generator())
    with pytest.raises(InputError, match="batches is empty"):
        take_share([], 10, generator())


def slow(monkeypatch, monitor, seconds):
    """Let a measurement take ``seconds`` for each example, and a product a fortieth of that."""
    now = [0.0]
    monkeypatch.setattr("mining.monitoring.monitor.time.perf_counter", lambda: now[0])
    measure = monitor._measurer.measure

    def measured(landscape, *arguments):
        now[0] += seconds * (landscape.num_examples // 2)
        return measure(landscape, *arguments)

    def product(landscape):
        now[0] += 2 * seconds * (landscape.num_examples // 2) / 40
        return seconds * (landscape.num_examples // 2) / 40

    monkeypatch.setattr(monitor._measurer, "measure", measured)
    monkeypatch.setattr(monitor._measurer, "time_product", product)
    return now


def test_the_interval_keeps_the_budget(monkeypatch):
    """A measurement of two seconds and epochs of ten: every seventh of them, for 3 %."""
    model = network()
    monitor = Monitor(model, nn.CrossEntropyLoss(), loader(), num_examples=8, budget=0.03)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    now = slow(monkeypatch, monitor, 0.25)
    for epoch in range(29):
        monitor.step(epoch, optimizer)
        now[0] += 10
    assert monitor.every == 7  # 2 / (7 · 10) is below 3 %, 2 / (6 · 10) is not
    # The first measurement counts: with it, 4 s are 3 % of 14 epochs, 6 s of 20 and not of 21 - 1.
    assert list(monitor.table.epoch) == [0, 14, 21, 28]
    assert list(monitor.table.seconds) == [2, 2, 2, 2]
    assert (monitor.table.time_share[1:] <= 0.03).all()


@pytest.mark.parametrize(
    ("seconds", "num", "every"),
    [
        (0.1, 512, 3),  # 0.8 s of every 30
        (1.0, 128, 7),  # 2 s of every 70; 256 examples would be measured at every 14th call
        (5.0, 64, 17),  # 5 s of every 170: not even 64 at every tenth
    ],
)
def test_the_number_of_examples_is_chosen_such_that_the_interval_is_short(
    seconds, num, every, monkeypatch, caplog
):
    """Of a first measurement on 64 examples, in seconds, and epochs of ten."""
    model = network()
    data = TensorDataset(torch.randn(2000, 6, dtype=DTYPE), torch.arange(2000) % 3)
    monitor = Monitor(model, nn.CrossEntropyLoss(), DataLoader(data, 128), probes=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    now = slow(monkeypatch, monitor, seconds / 64)
    calls = 6 * every + 2
    with caplog.at_level("INFO", logger="mining"):
        for epoch in range(calls):
            monitor.step(epoch, optimizer)
            now[0] += 10
    table = monitor.table
    assert list(table.num_examples) == [64, *[num] * (len(table) - 1)]
    rest = [seconds * num / 64] * (len(table) - 1)
    assert list(table.seconds) == pytest.approx([seconds, *rest])
    # All that was spent counts, the first measurement and the products that were timed too.
    spent = now[0] - 10 * calls
    assert table.time_share.iloc[-1] == pytest.approx(spent / (10 * table.epoch.iloc[-1]))
    assert (table.time_share[1:] <= 0.03).all()
    apart = table.epoch.diff()[1:]
    assert apart.iloc[0] >= every  # what was spent on the choice is made up for
    assert list(apart[1:]) == [every] * (len(apart) - 1)
    assert len(apart) >= 4
    assert f"is measured on about {num} examples at every {every}. call" in caplog.text
    share = seconds * num / 64 / (10 * every)
    assert share <= 0.03
    assert f"about {share:.1%} of the time" in caplog.text
    told = f"about {math.sqrt(512 / num):.2g} times those of 512 examples"
    assert (told in caplog.text) == (num < 512)


def test_products_are_timed_without_touching_the_training(monkeypatch):
    now = [0.0]  # by which whatever is timed takes a moment, and an epoch an hour

    def clock():
        now[0] += 1e-3
        return now[0]

    monkeypatch.setattr("time.perf_counter", clock)

    def left(**options):
        data = TensorDataset(torch.randn(600, 6, generator=generator(), dtype=DTYPE), THIRDS)
        model, batches = network(batchnorm=False), DataLoader(data, 100, shuffle=True)
        monitor = Monitor(model, nn.CrossEntropyLoss(), batches, probes=2, **options)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        torch.manual_seed(0)
        for epoch in range(3):
            for inputs, targets in batches:
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            now[0] += 3600
            monitor.step(epoch, optimizer)
        return [*model.state_dict().values(), torch.rand(2)], monitor

    chosen, monitor = left()
    given, _ = left(every=3, num_examples=12)
    assert all(torch.equal(a, b) for a, b in zip(chosen, given, strict=True))
    # Of 600 examples 256 are measured, and as many others.
    assert list(monitor.table.num_examples) == [64, 256, 256]


@pytest.mark.parametrize("goes_on_after", [1, 4, 5, 6, 7])
@pytest.mark.parametrize("spacing", [1, 0.5, 100])
def test_a_training_that_goes_on_is_measured_where_it_would_have_been(
    goes_on_after, spacing, tmp_path
):
    """Every third call; killed after eight."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for calls in (range(8), range(goes_on_after, 12)):
        monitor = Monitor(
            model, nn.CrossEntropyLoss(), loader(), every=3, num_examples=8, probes=2,
            path=tmp_path / "curvature.csv",
        )  # fmt: skip
        for call in calls:
            monitor.step((call + 1) * spacing, optimizer)
    assert list(monitor.table.epoch) == [spacing, 4 * spacing, 7 * spacing, 10 * spacing]


def test_a_training_that_goes_on_measures_as_many_examples_as_before(tmp_path, monkeypatch):
    data = TensorDataset(torch.randn(600, 6, generator=generator(), dtype=DTYPE), THIRDS)
    model = network(batchnorm=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    numbers = []
    for begin in (0, 3):
        monitor = Monitor(
            model, nn.CrossEntropyLoss(), DataLoader(data, 100), path=tmp_path / "curvature.csv"
        )
        now = slow(monkeypatch, monitor, 0.1 / 64)
        for epoch in range(begin, begin + 3):
            monitor.step(epoch, optimizer)
            now[0] += 30
        numbers.append(list(monitor.table.num_examples))
    assert numbers == [[64, 256, 256], [64, 256, 256, 256, 256, 256]]


def test_a_training_that_goes_on_keeps_the_budget_of_the_whole(tmp_path, monkeypatch):
    """Two seconds a measurement and ten an epoch; killed after every thirtieth epoch."""
    model, path = network(), tmp_path / "curvature.csv"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for begin in range(0, 90, 30):
        monitor = Monitor(model, nn.CrossEntropyLoss(), loader(), num_examples=8, path=path)
        now = slow(monkeypatch, monitor, 0.25)
        for epoch in range(begin, begin + 30):
            monitor.step(epoch, optimizer)
            now[0] += 10
    assert len(monitor.table) > 8
    assert (monitor.table.time_share[1:] <= 0.03).all()


def test_a_training_that_goes_on_has_one_table(tmp_path):
    path = tmp_path / "monitor.csv"
    model, batches = network(), loader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"every": 1, "num_examples": 8, "path": path, "layers": True}
    first = Monitor(model, nn.CrossEntropyLoss(), batches, **options)
    for epoch in range(4):
        first.step(epoch, optimizer)
    again = Monitor(model, nn.CrossEntropyLoss(), batches, **options)
    again.step(2, optimizer)  # the last state on disk was that after two epochs
    assert list(pd.read_csv(path).epoch) == [0, 1, 2]
    assert list(again.table.epoch) == [0, 1, 2]
    layers = pd.read_csv(tmp_path / "monitor_layers.csv")
    assert list(layers.epoch) == list(again.layers.epoch) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert layers.lambda_max.notna().all()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is not the table of a monitor"):
        Monitor(model, nn.CrossEntropyLoss(), batches, **options)


def test_power_iteration_by_its_name_finds_the_same_value():
    model = network(batchnorm=False)
    rows = []
    for method in ("lanczos", "power"):
        monitor = Monitor(model, nn.CrossEntropyLoss(), loader(), num_examples=24, method=method)
        rows.append(monitor.step(0, torch.optim.SGD(model.parameters(), lr=0.1)))
    assert rows[1]["products"] == 10 + 1 + 10  # and one for the sampling error, ten for the trace
    assert rows[1]["lambda_max"] <= rows[0]["lambda_max"] * (1 + 1e-9)
    assert rows[1]["lambda_max"] == pytest.approx(rows[0]["lambda_max"], rel=0.2)


def test_options_out_of_range_and_sums_are_refused():
    model = network()
    for options in ({"every": 0}, {"num_examples": 2}, {"probes": 1}, {"budget": 1.5}):
        with pytest.raises(InputError, match=next(iter(options))):
            Monitor(model, nn.CrossEntropyLoss(), loader(), **options)
    with pytest.raises(InputError, match="method must be lanczos or power"):
        Monitor(model, nn.CrossEntropyLoss(), loader(), method="magic")
    summed = Monitor(model, nn.CrossEntropyLoss(reduction="sum"), loader(), num_examples=8)
    with pytest.raises(InputError, match="sum over examples"):
        summed.step(0, torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_training_that_overflows_is_not_stopped():
    model = network(batchnorm=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, nn.CrossEntropyLoss(), loader(), num_examples=8, every=1)
    monitor.step(0, optimizer)
    with torch.no_grad():
        model[3].weight.fill_(math.inf)
    monitor.step(1, optimizer)
    assert monitor.table.lambda_max.notna().to_list() == [True, False]
    assert "The loss is nan" in monitor.table.why[1]


def test_without_a_learning_rate_steps_are_stable():
    for method in ("lanczos", "power"):
        model = network(batchnorm=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, weight_decay=0.1)
        monitor = Monitor(model, nn.CrossEntropyLoss(), loader(), num_examples=8, method=method)
        assert monitor.step(0, optimizer)["stability"] == 0


def test_a_writer_gets_every_finite_number():
    seen = []

    class Writer:
        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

    model = network()
    monitor = Monitor(model, nn.CrossEntropyLoss(), loader(), num_examples=8, writer=Writer())
    row = monitor.step(3, torch.optim.SGD(model.parameters(), lr=0.1))
    assert ("curvature/lambda_max", row["lambda_max"], 3) in seen
    assert all(math.isfinite(value) for _, value, _ in seen)
