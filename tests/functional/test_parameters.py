import pytest
import torch
from cases import MODELS, build
from torch import nn

from mining import ParameterSpace


@pytest.mark.parametrize("name", MODELS)
def test_unflatten_inverts_flatten_with_views(name):
    model = build(name)
    space = ParameterSpace.of(model)
    trainable = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    vector = space.flatten(trainable)
    tensors = space.unflatten(vector)
    assert vector.shape == (space.size,) == (sum(p.numel() for p in trainable.values()),)
    assert all(torch.equal(tensors[n], trainable[n]) for n in trainable)
    tensors[space.names[0]].fill_(7.0)
    assert (vector[: space.sizes[0]] == 7.0).all()


def test_tied_weights_are_counted_once():
    space = ParameterSpace.of(build("tied"))
    assert "first.weight" in space.names
    assert "second.weight" not in space.names


def test_frozen_parameters_are_left_out():
    names = ParameterSpace.of(build("partly_used")).names
    assert names == ("used.weight", "used.bias", "unused.weight", "unused.bias")


def test_mixed_dtypes_share_a_vector_of_the_wider_one():
    model = nn.ModuleDict({"a": nn.Linear(2, 2).half(), "b": nn.Linear(2, 2)})
    space = ParameterSpace.of(model)
    assert space.dtype == torch.float32
    tensors = space.unflatten(torch.ones(space.size))
    assert tensors["a.weight"].dtype == torch.float16
    assert tensors["b.weight"].dtype == torch.float32


def test_filters_of_every_kind_of_layer():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(2, 3, 3),
            "up": nn.ConvTranspose2d(2, 3, 3),
            "linear": nn.Linear(4, 5),
            "norm": nn.LayerNorm((4, 5)),  # its weight is a matrix, but has no filters
        }
    )
    axes = dict(
        zip(ParameterSpace.of(model).names, ParameterSpace.of(model).filter_axes, strict=True)
    )
    assert axes == {
        "conv.weight": 0,
        "conv.bias": None,
        "up.weight": 1,
        "up.bias": None,
        "linear.weight": 0,
        "linear.bias": None,
        "norm.weight": None,
        "norm.bias": None,
    }


def test_bad_input_is_named():
    space = ParameterSpace.of(build("mlp"))
    with pytest.raises(ValueError, match="no trainable parameters"):
        ParameterSpace.of(nn.ReLU())
    with pytest.raises(ValueError, match="not initialized yet"):
        ParameterSpace.of(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="must be real"):
        ParameterSpace.of(nn.Linear(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"shape \(\d+,\), got \(3,\)"):
        space.unflatten(torch.zeros(3))
    tensors = space.unflatten(torch.zeros(space.size))
    with pytest.raises(ValueError, match=r"missing \['1.weight'\], unexpected \['extra'\]"):
        space.flatten({**{n: t for n, t in tensors.items() if n != "1.weight"}, "extra": 0})
    with pytest.raises(ValueError, match=r"1.weight must have shape \(8, 64\), got \(64, 8\)"):
        space.flatten({**tensors, "1.weight": tensors["1.weight"].T})
