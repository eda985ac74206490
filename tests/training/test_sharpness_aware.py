"""Sharpness-aware minimization against a step by hand."""

import pytest
import torch
from cases import build, examples
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mining import InputError
from mining.training import SharpnessAwareSettings


@pytest.mark.parametrize("name", ["mlp", "batchnorm", "tied", "attention"])
def test_the_gradient_is_that_at_the_worst_point_nearby(name):
    inputs, targets = examples(24)
    model, reference = build(name).train(), build(name).train()
    for dropout in (m for net in (model, reference) for m in net.modules()):
        if isinstance(dropout, nn.Dropout):
            dropout.p = 0.0  # the masks of the two passes differ
    hook = SharpnessAwareSettings(rho=0.3).hook(model, 0)
    loss = F.cross_entropy(model(inputs), targets)
    after_one_pass = {key: value.clone() for key, value in model.state_dict().items()}
    hook(loss, (inputs, targets)).backward()
    assert all(torch.equal(v, after_one_pass[k]) for k, v in model.state_dict().items())

    parameters = list(reference.parameters())
    slopes = torch.autograd.grad(F.cross_entropy(reference(inputs), targets), parameters)
    length = torch.cat([slope.flatten() for slope in slopes]).norm()
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter += 0.3 * slope / length
    F.cross_entropy(reference(inputs), targets).backward()
    for found, expected in zip(model.parameters(), parameters, strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(rho):
    with pytest.raises(InputError, match="rho must be positive"):
        SharpnessAwareSettings(rho=rho)
