"""A landscape of other examples, and what stored batch-norm statistics cost."""

import pytest
import torch
from cases import assert_unchanged, build, landscape, loader, snapshot
from torch import nn

from mining import Landscape


@pytest.mark.parametrize("batchnorm", ["recalibrate", "frozen", "batch"])
@pytest.mark.parametrize("name", ["mlp", "batchnorm", "tied"])
def test_a_restricted_landscape_is_that_of_its_examples(name, batchnorm):
    of = landscape(name, batchnorm)
    part = of.hold(loader()[1:])
    restricted = of.restrict(part)
    assert restricted.num_examples == sum(batch.num_examples for batch in part)
    expected = of.evaluate(of.theta, part)
    assert torch.equal(restricted.loss(of.theta), expected.loss)
    assert torch.equal(restricted.gradient(), of.gradient(batches=part))
    assert of.num_examples == 70


def test_hessians_of_parts_add_up():
    of = landscape("batchnorm")
    vector = torch.randn(of.space.size, generator=torch.Generator().manual_seed(0)).double()
    whole = of.hessian() @ vector
    parts = [of.restrict(of.hold([pair])) for pair in loader()]
    summed = sum((p.hessian() @ vector) * (p.num_examples / 70) for p in parts)
    assert torch.allclose(summed, whole, atol=1e-12)


def test_without_norm_layers_there_is_no_mismatch():
    assert landscape("mlp").statistics_mismatch() is None
    without = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3, affine=False))
    without[2].track_running_stats, without[2].running_mean, without[2].running_var = (
        False,
        None,
        None,
    )
    of = Landscape(without.double(), nn.CrossEntropyLoss(), loader(), batchnorm="batch")
    assert of.statistics_mismatch() is None


@pytest.mark.parametrize("batchnorm", ["recalibrate", "frozen", "batch"])
@pytest.mark.parametrize("untouched", [False, True])
def test_the_mismatch_is_that_of_the_two_losses(batchnorm, untouched):
    model = build("batchnorm")
    with torch.no_grad():
        model.conv.weight *= 20  # the stored statistics fit no more
    if untouched:  # as if a checkpoint had been loaded without its buffers
        model.bn.reset_running_stats()
    before = snapshot(model)
    of = Landscape(model, nn.CrossEntropyLoss(), loader(), batchnorm=batchnorm)
    found = of.statistics_mismatch()
    theta = of.theta
    stored = Landscape(model, nn.CrossEntropyLoss(), loader(), batchnorm="frozen").loss(theta)
    again = Landscape(model, nn.CrossEntropyLoss(), loader()).loss(theta)
    assert found.stored_loss == pytest.approx(float(stored))
    # Statistics are means over batches, of other sizes where the policy groups them otherwise.
    assert found.loss == pytest.approx(float(again), rel=1e-3)
    assert abs(found.loss - found.stored_loss) > 0.1
    assert found.standard_error > 0
    assert found.num_examples == 70
    assert_unchanged(model, before)
