"""A derivative is right, or refused."""

from collections.abc import Mapping

import pytest
import torch
from cases import build, examples, landscape, loader, mean_output, quadratic_landscape
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import (
    Descent,
    InputError,
    Landscape,
    Xu2024WPeak,
    eigenpairs,
    make_dense,
    mine,
    spectral_density,
    trace,
)
from mining.functional.derivatives import find_underivable


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.detach(), targets)


def item(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.tensor(F.cross_entropy(outputs, targets).item(), dtype=torch.float64)


def zero_one(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) != targets).double().mean()


def rounded(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((10 * outputs).round(), targets)


def one_hot(outputs: Tensor, targets: Tensor) -> Tensor:
    """Has a graph, of which all gradients are zero."""
    return (outputs > 0).to(outputs).mul(outputs.sign()).sum(1).mean() + 0 * outputs.sum()


@pytest.mark.parametrize("loss", [detached, item, zero_one, rounded, one_hot])
def test_losses_without_derivative_are_refused(loss):
    of = Landscape(build("mlp"), loss, loader())
    assert torch.isfinite(of.loss(of.theta))
    generator = torch.Generator().manual_seed(0)
    for derive in (of.gradient, of.hessian, of.gauss_newton, of.residual):
        with pytest.raises(InputError, match="its derivative is zero"):
            derive()
    with pytest.raises(InputError, match="its derivative is zero"):
        mine(Xu2024WPeak(descent=Descent(epochs=1)), of, generator=generator)


@pytest.mark.parametrize("seed", range(20))
def test_a_hinge_that_is_flat_near_theta_has_a_derivative(seed):
    """The zero derivative on the flat side is right, wherever the other side lies."""
    generator = torch.Generator().manual_seed(seed)
    theta = {"w": torch.randn(5, generator=generator, dtype=torch.float64)}
    normal = torch.randn(5, generator=generator, dtype=torch.float64)

    def hinge(at: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        height = normal @ (at["w"] - theta["w"]) - 0.5
        return height.clamp(min=0), {"w": normal * (height > 0)}

    assert find_underivable(hinge, theta) == []


class RoundsInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second((5 * self.first(x.flatten(1))).round())


def test_only_the_layers_without_derivative_are_refused():
    torch.manual_seed(0)
    of = Landscape(RoundsInside().double(), nn.CrossEntropyLoss(), loader())
    with pytest.raises(InputError, match="changes with first"):
        of.hessian()
    assert make_dense(of.hessian(parameters="second")).any()


def test_what_is_zero_indeed_stays_so():
    """Linear losses, parameters without a use, and points that happen to be stationary."""
    linear = nn.Linear(64, 3).double()
    inputs, targets = examples()
    of = Landscape(linear, mean_output, [(inputs.flatten(1), targets)])
    assert not make_dense(of.hessian()).any()
    unused = landscape("partly_used").hessian(parameters="unused")
    assert not make_dense(unused).any()
    of = quadratic_landscape()
    matrix, b = of.model.matrix, of.model.linear
    with torch.no_grad():
        of.model.theta.zero_()
        of.model.linear.zero_()
    still = Landscape(of.model, mean_output, [(torch.zeros(2, 1), torch.zeros(2))])
    assert not still.gradient().any()
    assert b.shape == still.theta.shape
    torch.testing.assert_close(make_dense(still.hessian()), matrix)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    nn.init.zeros_(net[3].weight)  # the first layer has no gradient there, but is not detached
    assert make_dense(Landscape(net, nn.CrossEntropyLoss(), loader()).hessian()).any()


def test_inference_mode_is_refused_where_something_is_differentiated():
    of = landscape("mlp")
    hessian, gauss_newton = of.hessian(), of.gauss_newton()
    generator = torch.Generator().manual_seed(0)
    expected, loss = of.gradient(), of.loss(of.theta)
    with torch.inference_mode():
        for call in (
            of.gradient,
            of.hessian,
            lambda: trace(hessian, generator=generator),
            lambda: eigenpairs(gauss_newton, 1, generator=generator),
            lambda: spectral_density(hessian, generator=generator),
            lambda: make_dense(hessian),
            lambda: mine(Xu2024WPeak(descent=Descent(epochs=1)), of, generator=generator),
        ):
            with pytest.raises(InputError, match=r"inside torch\.inference_mode"):
                call()
        assert float(of.loss(of.theta)) == float(loss)
        made_inside = landscape("mlp")
        theta = of.theta + 0
        assert float(made_inside.loss(theta)) == pytest.approx(float(loss), rel=1e-12)
    torch.testing.assert_close(made_inside.gradient(theta), expected)
    torch.testing.assert_close(made_inside.hessian(theta) @ expected, hessian @ expected)
