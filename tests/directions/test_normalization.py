import pytest
import torch
from cases import build, landscape
from torch import nn

from mining import Normalization, ParameterSpace, filter_normalize, orthogonalize

NAMES = ("model", "layer", "filter", "weight")


def pair(space, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(space.size, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("order", [1, 2])
def test_model_normalization_is_one_factor_for_the_whole_vector(order):
    space = ParameterSpace.of(build("batchnorm"))
    direction, theta = pair(space)
    found = Normalization("model", order)(direction, theta, space)
    assert float(found.norm(p=order)) == pytest.approx(float(theta.norm(p=order)), rel=1e-12)
    ratio = found / direction
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_layer_normalization_matches_every_tensor(order):
    space = ParameterSpace.of(build("batchnorm"))
    direction, theta = pair(space)
    found = space.unflatten(Normalization("layer", order)(direction, theta, space))
    weights, before = space.unflatten(theta), space.unflatten(direction)
    for name, tensor in found.items():
        assert float(tensor.norm(p=order)) == pytest.approx(
            float(weights[name].norm(p=order)), rel=1e-12
        )
        ratio = tensor / before[name]
        assert torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_filter_normalization_matches_every_filter_and_zeroes_the_rest(order):
    space = ParameterSpace.of(build("batchnorm"))
    direction, theta = pair(space)
    found = space.unflatten(filter_normalize(direction, theta, space, order=order))
    weights = space.unflatten(theta)
    for name, axes in (("conv.weight", (1, 2, 3)), ("linear.weight", (1,))):
        norms = (tensor.abs().pow(order).sum(axes) for tensor in (found[name], weights[name]))
        assert torch.allclose(*norms, rtol=1e-12)
    for name in ("conv.bias", "bn.weight", "bn.bias", "linear.bias"):
        assert not found[name].any()


def test_filters_of_a_transposed_convolution_lie_along_its_second_axis():
    space = ParameterSpace.of(nn.ConvTranspose2d(2, 5, 3, bias=False).double())
    direction, theta = pair(space)
    (found,) = space.unflatten(filter_normalize(direction, theta, space)).values()
    (weight,) = space.unflatten(theta).values()
    norms = (torch.linalg.vector_norm(t, dim=(0, 2, 3)) for t in (found, weight))
    assert torch.allclose(*norms, rtol=1e-12)


def test_kept_biases_keep_their_signs_and_match_the_norm():
    """Entry by entry, the direction of a bias would become |bias|, or the weights themselves."""
    space = ParameterSpace.of(build("batchnorm"))
    direction, theta = pair(space)
    found = space.unflatten(Normalization("filter", vectors="keep")(direction, theta, space))
    weights, before = space.unflatten(theta), space.unflatten(direction)
    for name in ("conv.bias", "bn.weight", "linear.bias"):
        assert float(found[name].norm()) == pytest.approx(float(weights[name].norm()), rel=1e-12)
        assert torch.equal(found[name].sign(), before[name].sign())
        assert not torch.allclose(found[name].abs(), weights[name].abs())


def test_two_filter_normalized_directions_share_no_component():
    of = landscape("batchnorm")
    for vectors in ("zero", "keep"):
        normalize = Normalization("filter", vectors=vectors)
        x, y = (
            of.space.unflatten(normalize(d, of.theta, of.space)) for d in pair(of.space, seed=3)
        )
        for name in of.space.names:
            assert not torch.equal(x[name], y[name]) or not x[name].any()


def test_weight_normalization_has_the_size_of_every_weight():
    space = ParameterSpace.of(build("batchnorm"))
    direction, theta = pair(space)
    found = Normalization("weight")(direction, theta, space)
    assert torch.equal(found.abs(), theta.abs())
    assert torch.equal(found.sign(), direction.sign())


@pytest.mark.parametrize("name", NAMES)
def test_normalization_ignores_the_length_of_a_direction(name):
    space = ParameterSpace.of(build("batchnorm"))
    direction, theta = pair(space)
    normalize = Normalization(name)
    assert torch.allclose(
        normalize(direction, theta, space), normalize(1000 * direction, theta, space), rtol=1e-12
    )


@pytest.mark.parametrize("name", (*NAMES, "none"))
def test_zero_parts_stay_zero(name):
    space = ParameterSpace.of(build("batchnorm"))
    direction, theta = pair(space)
    space.unflatten(direction)["conv.weight"].zero_()
    found = Normalization(name, vectors="keep")(direction, theta, space)
    assert torch.isfinite(found).all()
    assert not space.unflatten(found)["conv.weight"].any()


def test_none_changes_nothing():
    space = ParameterSpace.of(build("mlp"))
    direction, theta = pair(space)
    assert torch.equal(Normalization("none")(direction, theta, space), direction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonalize_gives_cosine_zero_and_keeps_the_norm(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10_000, generator=generator, dtype=dtype)
    y = 3 * x + 0.01 * torch.randn(10_000, generator=generator, dtype=dtype)  # nearly parallel
    found = orthogonalize(y, x)
    cosine = torch.dot(found.double(), x.double()) / (found.double().norm() * x.double().norm())
    # Rounding of the result: machine epsilon over the square root of the size, times some.
    assert abs(float(cosine)) < 2 * torch.finfo(dtype).eps
    assert float(found.norm()) == pytest.approx(float(y.norm()), rel=1e-6)


def test_bad_input_is_named():
    x = torch.randn(5)
    for parallel in (2 * x, -x, torch.zeros(5)):
        with pytest.raises(ValueError, match="parallel"):
            orthogonalize(parallel, x)
    with pytest.raises(ValueError, match="parallel"):
        orthogonalize(x, torch.zeros(5))
    with pytest.raises(ValueError, match="normalization must be one of"):
        Normalization("L2")
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        Normalization(order=3)
    with pytest.raises(ValueError, match="'zero' or 'keep'"):
        Normalization(vectors="ignore")
    space = ParameterSpace.of(build("mlp"))
    with pytest.raises(ValueError, match="flat vector must have shape"):
        filter_normalize(torch.zeros(3), torch.zeros(space.size), space)
