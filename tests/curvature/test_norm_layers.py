"""Norm layers by their formulas against torch's own and finite differences."""

import pytest
import torch
from torch.autograd import grad
from torch.nn import functional as F  # noqa: N812

from mining.curvature.norm_layers import DifferentiableNorms

DTYPE = torch.float64


def draw(*shape):
    return torch.randn(shape, dtype=DTYPE)


def norms():
    running = [draw(3), draw(3).abs() + 0.5]
    affine = [draw(3), draw(3)]
    return {
        "batch": ((4, 3, 5), lambda x: F.batch_norm(x, None, None, *affine, training=True)),
        "batch, running": ((4, 3), lambda x: F.batch_norm(x, *running, *affine)),
        "batch, plain": ((4, 3, 2, 2), lambda x: F.batch_norm(x, None, None, training=True)),
        "layer": ((4, 5, 3), lambda x: F.layer_norm(x, (3,), *affine)),
        "layer, two axes": ((4, 5, 3), lambda x: F.layer_norm(x, [5, 3], eps=0.1)),
    }


@pytest.mark.parametrize("name", norms())
def test_values_are_torchs_and_third_derivatives_those_of_finite_differences(name):
    torch.manual_seed(0)
    shape, norm = norms()[name]
    x, v, u = draw(*shape), draw(*shape), draw(*shape)
    w = torch.randn_like(norm(x))

    def form(at):
        at = at.requires_grad_()
        with DifferentiableNorms():
            loss = (norm(at) * w).sin().sum()
        (slope,) = grad(loss, at, create_graph=True)
        (product,) = grad(slope, at, v, create_graph=True)
        return (product * v).sum(), at

    with DifferentiableNorms():
        ours = norm(x)
    torch.testing.assert_close(ours, norm(x))
    value, at = form(x.clone())
    (slope,) = grad(value, at)
    step = 1e-5
    away = [float(form(x + sign * step * u)[0].detach()) for sign in (1, -1)]
    assert float((slope * u).sum()) == pytest.approx((away[0] - away[1]) / (2 * step), rel=1e-6)


def test_running_statistics_are_updated_as_by_torch():
    torch.manual_seed(0)
    x = draw(6, 3, 4)
    ours, theirs = ([torch.zeros(3, dtype=DTYPE), torch.ones(3, dtype=DTYPE)] for _ in range(2))
    F.batch_norm(x, *theirs, training=True, momentum=0.3)
    with DifferentiableNorms():
        F.batch_norm(x, *ours, training=True, momentum=0.3)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_wrong_shapes_are_refused_as_by_torch():
    with DifferentiableNorms():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            F.batch_norm(draw(1, 3), None, None, training=True)
        with pytest.raises(RuntimeError, match="normalized_shape"):
            F.layer_norm(draw(4, 3), (4,))
