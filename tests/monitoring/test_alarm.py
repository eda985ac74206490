"""The alarm comes beyond the exact limit of a quadratic, and before its loss says so."""

import math

import pytest
import torch
from torch import nn

from mining import Monitor

DTYPE = torch.float64
CURVATURES = torch.tensor([4.0, 1.0, 0.25], dtype=DTYPE)


class Quadratic(nn.Module):
    """½ Σ λ θ², whatever the batch is."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1e-3, 1.0, 1.0], dtype=DTYPE))

    def forward(self):
        return (CURVATURES * self.theta**2).sum() / 2


#: The optimizer, and the largest learning rate at which λ = 4 is stable.
LIMITS = {
    "sgd": (lambda p, lr: torch.optim.SGD(p, lr), 2 / 4),
    "momentum": (lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), 2 * 1.9 / 4),
    "nesterov": (
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
        2 * 1.9 / (4 * 2.8),
    ),
}


def descend(make, lr, steps, **options):
    """Descend on the quadratic; return the losses and the monitor."""
    model = Quadratic()
    optimizer = make(model.parameters(), lr)
    batches = [torch.zeros(2, 1, dtype=DTYPE)] * 4
    monitor = Monitor(
        model, objective=lambda m, _: m(), batches=batches, every=1, num_examples=4, **options
    )
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        monitor.step(step, optimizer)
    return losses, monitor


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("ratio", [0.99, 1.01])
def test_an_alarm_is_raised_beyond_the_limit_and_not_below_it(kind, ratio, caplog):
    make, limit = LIMITS[kind]
    with caplog.at_level("WARNING", logger="mining"):
        losses, monitor = descend(make, ratio * limit, 20)
    # An eigenvector with a residual of 0.5 % has the eigenvalue to about 0.005².
    assert monitor.table.stability.to_numpy() == pytest.approx(ratio, rel=1e-4)
    # What grows, by 1.17 a step at most, begins at 0.001: the loss does not say so yet.
    assert losses[-1] < losses[0]
    expected = [False, True][ratio > 1]
    assert (monitor.alarm is not None) == expected
    assert monitor.table.alarm.to_list() == [False] + [expected] * 19
    assert len([r for r in caplog.records if "can bear" in r.message]) == expected


def test_the_training_of_an_alarm_diverges_later():
    losses, monitor = descend(LIMITS["sgd"][0], 1.05 * 0.5, 200)
    first = int(monitor.table.epoch[monitor.table.alarm].iloc[0])
    diverged = next(step for step, loss in enumerate(losses) if loss > 10 * losses[0])
    assert first == 1
    # θ grows by 1.1 a step from 0.001: the loss is ten times as large after ln(2100) / ln(1.1).
    assert diverged == pytest.approx(
        math.log(math.sqrt(6.25 * 2 / 4) / 1e-3) / math.log(1.1), abs=2
    )


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("lr", [0.05, 0.3, 0.7])
def test_critical_sharpness_is_that_of_the_step_that_was_taken(kind, lr):
    """ΔᵀHΔ / ηgᵀΔ at the point where the update Δ was computed, whether or not it overshot."""
    model = Quadratic()
    optimizer = LIMITS[kind][0](model.parameters(), lr)
    monitor = Monitor(
        model, objective=lambda m, _: m(), batches=[torch.zeros(2, 1)] * 4, num_examples=4, every=1
    )
    for step in range(4):
        before = model.theta.detach().clone()
        optimizer.zero_grad()
        model().backward()
        gradient = model.theta.grad.clone()
        optimizer.step()
        row = monitor.step(step, optimizer)
        update = before - model.theta.detach()
        slope = gradient @ update
        if slope <= 0:  # momentum may lead upwards
            assert row["critical_sharpness"] is None
            continue
        expected = float(update @ (CURVATURES * update) / (lr * slope))
        assert row["critical_sharpness"] == pytest.approx(expected, rel=1e-6)


def test_a_single_measurement_beyond_the_limit_is_no_alarm():
    model = Quadratic()
    monitor = Monitor(
        model, objective=lambda m, _: m(), batches=[torch.zeros(2, 1)] * 4, num_examples=4, every=1
    )
    for step, lr in enumerate((0.6, 0.4, 0.6, 0.6)):
        monitor.step(step, torch.optim.SGD(model.parameters(), lr))
    assert monitor.table.alarm.to_list() == [False, False, False, True]
    assert monitor.alarm == (
        "At 2 and 3 the curvature was 1.2 and 1.2 times as large as the optimizer can bear: lower "
        "its learning rate, or the training may diverge."
    )


def test_an_overflow_is_an_alarm_and_a_training_that_goes_on_knows_its_rows(tmp_path):
    options = {"path": tmp_path / "curvature.csv"}
    _, first = descend(LIMITS["sgd"][0], 0.6, 1, **options)
    assert first.alarm is None
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), 0.6)
    again = Monitor(
        model, objective=lambda m, _: m(), batches=[torch.zeros(2, 1)] * 4, num_examples=4,
        every=1, **options,
    )  # fmt: skip
    again.step(1, optimizer)
    assert "At 0 and 1 the curvature was 1.2" in again.alarm
    with torch.no_grad():
        model.theta.fill_(math.inf)
    again.step(2, optimizer)
    assert again.alarm.startswith("At 2 nothing could be measured: The loss is inf")
    assert again.table.alarm.to_list() == [False, True, True]
