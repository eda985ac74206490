"""What is wrong is named, with the remedy."""

import pytest
import torch
from cases import build, direction, examples, landscape, loader
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mining import (
    CheckpointDelta,
    Direction,
    Evaluator,
    InputError,
    Landscape,
    MatrixOperator,
    eigenpairs,
    make_dense,
    spectral_density,
    trace,
)


@pytest.mark.parametrize("function", [trace, eigenpairs, spectral_density, make_dense])
@pytest.mark.parametrize("wrong", [landscape, lambda: torch.eye(3)])
def test_operators_are_no_landscapes_and_no_matrices(function, wrong):
    with pytest.raises(InputError, match=r"operator must be a CurvatureOperator.*hessian\(\)"):
        function(wrong(), 1)


def test_directions_are_no_vectors():
    of = landscape("mlp")
    vector = direction(of).vector
    evaluator = Evaluator(of, progress=False)
    with pytest.raises(InputError, match=r"must be a Direction, got Tensor: Direction\(vector"):
        evaluator.curve(vector, torch.linspace(0, 1, 3))
    with pytest.raises(InputError, match="must be a Direction, got Tensor"):
        evaluator.surface(direction(of), vector, torch.ones(1), torch.ones(1))
    for wrong in (vector.numpy(), vector.long(), [1.0]):
        with pytest.raises(InputError, match="tensor of floating-point numbers"):
            Direction(wrong, "mine")


def test_columns_and_vectors_with_a_graph_are_directions(tmp_path):
    of = landscape("mlp")
    pairs = eigenpairs(of.hessian(), 2)
    alphas = torch.linspace(-1, 1, 3)
    for vector in (pairs.vectors[:, 0], pairs.vectors[:, 1].clone().requires_grad_()):
        chosen = Direction(vector, "eigenvector")
        path = tmp_path / str(vector.requires_grad)
        curves = [Evaluator(of, progress=False, journal=path).curve(chosen, alphas).loss
                  for _ in range(2)]  # fmt: skip
        assert torch.equal(*curves)
        assert not chosen.vector.requires_grad
        torch.testing.assert_close(of.loss(of.theta + vector.detach()), curves[0][-1])


def test_what_landscapes_do_not_take_is_named():
    model, loss_fn = build("mlp"), nn.CrossEntropyLoss()
    inputs, targets = examples()
    with pytest.raises(InputError, match=r"Batch 2 of the loader is empty \(inputs \(0, 1, 8"):
        Landscape(model, loss_fn, [(inputs, targets), (inputs[:0], targets[:0])])
    with pytest.raises(InputError, match="model is on the meta device"):
        Landscape(build("mlp").to("meta"), loss_fn, loader())
    with pytest.raises(InputError, match="meta device"):
        Landscape(model, loss_fn, [(inputs.to("meta"), targets)])
    with pytest.raises(InputError, match=r"tensor of shape \(\), got float.*without \.item"):
        Landscape(model, lambda o, t: F.cross_entropy(o, t).item(), loader())


def test_the_other_checkpoint_may_be_a_module():
    of, other = landscape("batchnorm"), build("batchnorm", seed=3)
    generator = torch.Generator().manual_seed(0)
    found, expected = (
        CheckpointDelta(x).directions(of, 1, generator=generator)[0].vector
        for x in (other, other.state_dict())
    )
    assert torch.equal(found, expected)
    with pytest.raises(InputError, match=r"checkpoint must be a file.*got int"):
        CheckpointDelta(3)


def test_objects_say_what_they_are():
    of = landscape("batchnorm", "frozen")
    assert repr(of) == (
        "Landscape(BatchNormNet, CrossEntropyLoss, 483 parameters, 70 examples, "
        "batchnorm=frozen, cpu)"
    )
    assert repr(of.hessian()) == "HessianOperator(483 x 483, torch.float64, cpu)"
    assert repr(MatrixOperator(torch.eye(3))) == "MatrixOperator(3 x 3, torch.float32, cpu)"
