"""Second derivatives of convolutions against finite differences and torch's own."""

import pytest
import torch
from torch.autograd import grad, gradgradcheck
from torch.nn import functional as F  # noqa: N812

from mining.curvature.convolution import FastSecondDerivatives

CASES = [
    (F.conv1d, (2, 4, 7), (6, 4, 3), {"padding": 1}),
    (F.conv2d, (2, 4, 6, 5), (6, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
    (F.conv2d, (2, 2, 6, 6), (4, 1, 3, 3), {"padding": 2, "dilation": 2, "groups": 2}),
    (F.conv2d, (2, 3, 5, 5), (2, 3, 1, 1), {"stride": 2}),
    (F.conv3d, (1, 2, 3, 4, 3), (3, 2, 2, 2, 2), {"padding": [1, 0, 1]}),
    (F.conv2d, (2, 3, 5, 5), (2, 3, 3, 3), {"padding": "same"}),  # left to torch
    (F.conv2d, (3, 5, 5), (2, 3, 3, 3), {}),  # not batched: left to torch
]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("convolve", "shape", "kernel", "options"), CASES)
def test_second_derivatives_of_convolutions(convolve, shape, kernel, options, bias):
    torch.manual_seed(0)
    tensors = [draw(*shape), draw(*kernel)] + [draw(kernel[0])] * bias

    def run(*arguments):
        with FastSecondDerivatives():
            return convolve(*arguments, **options)

    torch.testing.assert_close(run(*tensors), convolve(*tensors, **options))
    assert gradgradcheck(run, tensors)


@pytest.mark.parametrize("chosen", [[0], [1], [2], [0, 1], [1, 2]])
def test_second_derivatives_in_some_of_the_tensors(chosen):
    """Along a vector, as a Hessian product takes them, with a loss that is not linear."""
    torch.manual_seed(0)
    tensors = [draw(2, 3, 5, 5), draw(4, 3, 3, 3), draw(4)]
    leaves = [tensors[index] for index in chosen]
    vectors = [torch.randn_like(leaf) for leaf in leaves]

    def product():
        outputs = F.conv2d(*(t if n in chosen else t.detach() for n, t in enumerate(tensors)))
        gradients = grad(outputs.tanh().square().sum(), leaves, create_graph=True)
        return grad(gradients, leaves, vectors)

    with FastSecondDerivatives():
        found = product()
    for ours, expected in zip(found, product(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("convolve", "shape", "kernel", "options"), CASES[:5])
def test_third_derivatives_of_convolutions(convolve, shape, kernel, options):
    """Of a quadratic form of the Hessian, as a penalty on its trace is differentiated."""
    torch.manual_seed(0)
    tensors = [draw(*shape), draw(*kernel), draw(kernel[0])]
    vectors = [torch.randn_like(tensor) for tensor in tensors]

    def form(*arguments):
        outputs = convolve(*arguments, **options)
        gradients = grad(outputs.tanh().square().sum(), arguments, create_graph=True)
        products = grad(gradients, arguments, vectors, create_graph=True)
        return sum((v * p).sum() for v, p in zip(vectors, products, strict=True))

    expected = grad(form(*tensors), tensors)
    with FastSecondDerivatives():
        found = grad(form(*tensors), tensors)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
