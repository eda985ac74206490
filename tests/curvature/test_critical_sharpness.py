"""Critical sharpness against functions of which the critical step is known."""

import math

import pytest
import torch
from cases import quadratic_landscape

from mining import InputError, make_dense
from mining.curvature.critical_sharpness import critical_sharpness


def counted(function):
    calls = []

    def loss(step):
        calls.append(step)
        return function(step)

    return loss, calls


@pytest.mark.parametrize("curvature", [1e-6, 0.3, 1.0, 4e5])
def test_along_an_eigenvector_of_a_quadratic_it_is_the_eigenvalue(curvature):
    theta = 3.0
    gradient = curvature * theta
    loss, calls = counted(lambda step: 0.5 * curvature * (theta - step * gradient) ** 2)
    found = critical_sharpness(loss, -(gradient**2))
    assert found.sharpness == pytest.approx(curvature, rel=1e-6)
    assert found.passes == len(calls) <= 6
    assert abs(found.sharpness - curvature) <= found.error <= 0.01 * curvature


@pytest.mark.parametrize("seed", range(5))
def test_along_any_direction_of_a_quadratic_it_is_a_quotient(seed):
    landscape = quadratic_landscape(seed=seed)
    hessian = make_dense(landscape.hessian())
    gradient = landscape.gradient()
    update = gradient * torch.linspace(0.5, 2, len(gradient))  # as of a diagonal preconditioner
    expected = float(update @ hessian @ update / (gradient @ update))
    found = critical_sharpness(
        lambda step: float(landscape.loss(landscape.theta - step * update)),
        -float(gradient @ update),
    )
    if expected > 0:
        assert found.sharpness == pytest.approx(expected, rel=1e-6)
    else:  # the loss falls without end
        assert found.sharpness is None
        assert found.high == math.inf


FUNCTIONS = [
    (lambda s: s**3 - s, -1.0, 1.0),
    (lambda s: 2 * s**4 - 2 * s + 5, -2.0, 1.0),
    (lambda s: math.cos(s) - 0.1 * s, -0.1, None),  # falls far beyond one period
    (lambda s: 1 - s if s < 7 else math.inf, -1.0, 7.0),
    (lambda s: 1 - s if s < 7 else math.nan, -1.0, 7.0),
    (lambda s: 1 - 1e-9 * s if s < 1e-3 else 9.0, -1e-9, 1e-3),
    (lambda s: max(1 - s, 20 * (s - 0.01)), -1.0, (1 + 0.2) / 20),
]


@pytest.mark.parametrize(("function", "slope", "step"), FUNCTIONS)
@pytest.mark.parametrize("start", [None, 1e-3, 1e3])
def test_the_critical_step_of_a_known_function(function, slope, step, start):
    loss, calls = counted(function)
    found = critical_sharpness(loss, slope, start=start)
    assert found.passes == len(calls)
    if step is None:
        assert found.step is None or function(1.001 * found.high) > function(0)
        return
    assert found.low <= step <= found.high * (1 + 1e-9)
    assert found.step == pytest.approx(step, rel=0.01)
    assert abs(found.sharpness - 2 / step) <= 2.01 * found.error


def test_a_start_near_the_step_saves_passes():
    far, calls_far = counted(lambda s: s**3 - s)
    near, calls_near = counted(lambda s: s**3 - s)
    critical_sharpness(far, -1.0, start=1e-6)
    critical_sharpness(near, -1.0, start=0.99)
    assert len(calls_near) < len(calls_far)
    assert len(calls_near) <= 6


def test_without_a_critical_step_there_is_a_reason():
    falling = critical_sharpness(lambda s: -s, -1.0)
    assert falling.sharpness is falling.error is None
    assert "does not rise" in falling.why
    uphill = critical_sharpness(lambda s: s, 1.0)
    assert "does not fall" in uphill.why
    assert uphill.passes == 1
    # A slope that is not that of the loss.
    assert "higher at every step" in critical_sharpness(lambda s: s, -1.0).why
    few = critical_sharpness(lambda s: s**3 - s, -1.0, start=1e-9, max_passes=3)
    assert "does not rise" in few.why


def test_rounding_of_the_loss_is_part_of_the_error():
    exact = critical_sharpness(lambda s: s * s - s, -1.0)
    rounded = critical_sharpness(lambda s: s * s - s, -1.0, rounding=0.1)
    assert rounded.sharpness == exact.sharpness
    assert rounded.error == pytest.approx(2 * math.hypot(0.1, exact.error / 2), rel=0.01)


def test_arguments_out_of_range_are_refused():
    for options in ({"tolerance": 0.0}, {"start": -1.0}, {"max_passes": 1}):
        with pytest.raises(InputError, match=next(iter(options))):
            critical_sharpness(lambda s: -s, -1.0, **options)
    with pytest.raises(InputError, match="at theta is nan"):
        critical_sharpness(lambda s: math.nan, -1.0)
