"""Class means of the Gauss-Newton matrix against their definition and the dense matrix."""

import pytest
import torch
from cases import build, examples, loader
from torch import nn
from torch.autograd.functional import jacobian
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from mining import InputError, Landscape, make_dense
from mining.curvature.class_means import class_means


def landscape(name="mlp", loss=None):
    return Landscape(build(name), loss or nn.CrossEntropyLoss(), loader(70, 32), batchnorm="frozen")


def vectors_by_hand(model, inputs):
    """√p_c' Jᵀ(e_c' - p) of every example, shape (N, C, D), by a dense Jacobian."""
    names = [name for name, _ in model.named_parameters()]

    def outputs(*tensors):
        return functional_call(model, dict(zip(names, tensors, strict=True)), (inputs,))

    parameters = tuple(p.detach() for p in model.parameters())
    pieces = jacobian(outputs, parameters)
    dense = torch.cat([piece.flatten(2) for piece in pieces], -1)  # (N, C, D)
    shares = outputs(*parameters).softmax(1)
    factors = shares.sqrt()[:, :, None] * (torch.eye(shares.shape[1]) - shares[:, None])
    return factors.to(dense) @ dense


@pytest.mark.parametrize("name", ["mlp", "batchnorm"])
def test_means_are_those_of_the_definition(name):
    of = landscape(name)
    inputs, targets = examples(70)
    rows = vectors_by_hand(of.model.eval(), inputs)
    dense = make_dense(of.gauss_newton())
    torch.testing.assert_close(torch.einsum("ncd,nce->de", rows, rows) / 70, dense)
    found = class_means(of.loss_at(), 3)
    assert found.weights.sum() == pytest.approx(1)
    for own in range(3):
        mean = rows[targets == own].mean(0)
        mean[own] = 0
        torch.testing.assert_close(found.vectors[own], mean)
        torch.testing.assert_close(found.classes[own], mean.sum(0) / 2)
    # Of every layer they are the parts, and never more than the matrix.
    names = next(iter(of.space.layers.values()))
    part = found.of(names)
    assert part.vectors.shape[-1] == part.space.size == of.gauss_newton(parameters=names).shape[0]
    values, vectors = torch.linalg.eigh(dense)
    of_classes, of_pairs = found.explained(vectors[:, -3:])
    assert 0 < of_classes <= of_pairs <= float(values[-3:].sum()) + 1e-12
    # Along all vectors they are the traces of the second moments.
    whole = found.explained(torch.eye(of.space.size, dtype=torch.float64))
    by_class = [(found.classes[c].square().sum() * 2 * found.weights[c]) for c in range(3)]
    assert whole[0] == pytest.approx(float(sum(by_class)))
    by_pair = (found.vectors.square().sum((1, 2)) * found.weights).sum()
    assert whole[1] == pytest.approx(float(by_pair))


def test_all_is_explained_where_examples_of_a_class_are_equal():
    """Two classes with one input each: G is the second moment of the pairs and of c' = c."""
    torch.manual_seed(0)
    model = nn.Linear(2, 2).double()
    inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64).repeat(3, 1)
    of = Landscape(model, nn.CrossEntropyLoss(), [(inputs, torch.tensor([0, 1]).repeat(3))])
    found = class_means(of.loss_at(), 2)
    assert found.weights.tolist() == pytest.approx([0.5, 0.5])
    shares = model(inputs[:2]).detach().softmax(1)
    # The part of c' ≠ c is p_c of the whole: p_c' (e_c' - p)² = p_c' p_c² · 2, of p_c p_c' · 2.
    rows = vectors_by_hand(model, inputs[:2])
    expected = sum(rows[c, 1 - c].square().sum() for c in range(2)) / 2
    everything = found.explained(torch.eye(6, dtype=torch.float64))
    assert everything == pytest.approx((float(expected), float(expected)))
    total = float(make_dense(of.gauss_newton()).trace())
    weights = [float(inputs[c].square().sum() + 1) * float(shares[c].prod()) for c in range(2)]
    by_hand = sum(w * float(shares[c, c]) for c, w in enumerate(weights)) / sum(weights)
    assert everything[0] / total == pytest.approx(by_hand)


def test_clusters_of_planted_means():
    of = landscape()
    found = class_means(of.loss_at(), 3)
    cosines = found.cosines()
    rows = nn.functional.normalize(found.pairs, dim=1)
    torch.testing.assert_close(cosines, rows @ rows.T)
    found.vectors[0, 1] = 0
    assert found.cosines() is None


def test_other_losses_and_missing_classes_are_refused():
    with pytest.raises(InputError, match="cross-entropy"):
        class_means(landscape(loss=lambda z, y: F.cross_entropy(2 * z, y)).loss_at(), 3)
    inputs, targets = examples(40)
    few = Landscape(build("mlp"), nn.CrossEntropyLoss(), [(inputs, targets.clamp(max=1))])
    with pytest.raises(InputError, match=r"The classes \[2\] have no examples"):
        class_means(few.loss_at(), 3)
    smooth = torch.full((40, 3), 1 / 3, dtype=torch.float64)
    of = Landscape(build("mlp"), nn.CrossEntropyLoss(), [(inputs, smooth)])
    with pytest.raises(InputError, match="a class for each example"):
        class_means(of.loss_at(), 3)
