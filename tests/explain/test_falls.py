"""Falls of the loss from θ, against plain PyTorch."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mining import Direction, Evaluator, Landscape
from mining.explain.falls import measure_falls


@pytest.fixture
def landscape():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    batches = [(torch.randn(n, 5).double(), torch.randint(3, (n,))) for n in (8, 8, 3)]
    return Landscape(model, nn.CrossEntropyLoss(), batches)


def losses(landscape, vector, alpha):
    """The loss of each example at θ + αε."""
    state = landscape.space.unflatten(landscape.theta + alpha * vector)
    found = [
        nn.functional.cross_entropy(
            functional_call(landscape.model, state, batch.inputs),
            batch.targets,
            reduction="none",
        )
        for batch in landscape.batches
    ]
    return torch.cat(found)


@pytest.mark.parametrize("sign", [1, -1])
def test_falls_and_their_errors_are_those_of_the_examples(landscape, sign):
    vector = -sign * landscape.gradient()
    direction = Direction(vector / vector.norm(), "descent")
    curve = Evaluator(landscape, progress=False).curve(direction, torch.linspace(-1, 1, 21))
    found = measure_falls(landscape, direction, curve)
    downhill = float(curve.alphas[curve.loss.argmin()])
    assert downhill * sign > 0
    change = losses(landscape, direction.vector, 0) - losses(landscape, direction.vector, downhill)
    down = (found.left, found.left_error) if sign < 0 else (found.right, found.right_error)
    assert down == pytest.approx((float(change.mean()), float(change.std() / 19**0.5)), rel=1e-9)
    assert found.height == min(found.left, found.right)
    if found.height == 0:  # θ is the lowest point on the other side
        assert found.height_error == 0


def test_a_peak_has_the_height_of_its_lower_side(landscape):
    operator = landscape.hessian()
    values, vectors = torch.linalg.eigh(operator @ torch.eye(operator.shape[0]).double())
    assert values[0] < 0
    # Without its gradient the loss falls on both sides along the most negative eigenvector.
    direction = Direction(vectors[:, 0], "N.E.1")
    curve = Evaluator(landscape, progress=False).curve(direction, torch.linspace(-2, 2, 41))
    found = measure_falls(landscape, direction, curve)
    sides = curve.loss[: curve.origin + 1].min(), curve.loss[curve.origin :].min()
    expected = [float(curve.loss[curve.origin] - side) for side in sides]
    assert [found.left, found.right] == pytest.approx(expected, abs=1e-12)


def test_losses_of_a_batch_have_no_error_of_examples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)).double()
    batches = [(torch.randn(8, 5).double(), torch.randint(3, (8,)))]
    landscape = Landscape(model, nn.CrossEntropyLoss(), batches, batchnorm="batch")
    direction = Direction(-landscape.gradient(), "descent")
    curve = Evaluator(landscape, progress=False).curve(direction, torch.linspace(-1, 1, 5))
    found = measure_falls(landscape, direction, curve)
    assert found.right > 0
    assert found.right_error is None


def test_estimated_curves_know_their_errors(landscape):
    direction = Direction(-landscape.gradient(), "descent")
    evaluator = Evaluator(landscape, progress=False, tolerance=0.2)
    curve = evaluator.curve(direction, torch.linspace(-1, 1, 5))
    found = measure_falls(landscape, direction, curve)
    right = curve.origin + int(curve.loss[curve.origin :].argmin())
    assert found.right_error == curve.difference_error(curve.origin, right)
