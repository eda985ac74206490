"""What a landscape says about itself."""

import json
import re

import pytest
import torch
from cases import build, landscape, loader
from command_line import QUICK, record
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mining import Landscape
from mining.data import digits


def test_it_knows_what_a_model_is_made_of():
    found = landscape("partly_used").describe()
    assert found["parameters"] == {
        "trainable": 57,
        "frozen": 520,
        "tied": [],
        "unused": ["unused.weight", "unused.bias"],
    }
    tied = landscape("tied").describe()
    assert tied["parameters"]["tied"] == ["second.weight = first.weight"]
    assert tied["norm_layers"] == {}
    assert tied["batchnorm"] is None
    assert tied["recalibration_examples"] == 0
    normalized = landscape("batchnorm").describe()
    assert normalized["norm_layers"] == {"BatchNorm2d": 1}
    assert normalized["batchnorm"] == "recalibrate"
    assert normalized["recalibration_examples"] == normalized["examples"] == 70
    assert normalized["chance_loss"] == pytest.approx(1.0986, abs=1e-4)


def centred(outputs, targets):
    return F.cross_entropy(outputs - outputs.mean(0), targets)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(F.dropout(x.flatten(1), training=True))


@pytest.mark.parametrize(
    ("model", "loss", "policy", "reason"),
    [
        ("batchnorm", nn.CrossEntropyLoss(), "batch", "share batch statistics"),
        ("mlp", centred, "frozen", "no mean over examples|depends on the whole batch"),
        ("noisy", nn.CrossEntropyLoss(), "frozen", "random numbers"),
    ],
)
def test_it_knows_why_there_is_no_faster_plan(model, loss, policy, reason):
    network = Noisy(64, 3).double() if model == "noisy" else build(model)
    found = Landscape(network, loss, loader(), batchnorm=policy).describe()
    assert found["plan"]["examples_per_pass"] is None
    assert any(re.search(reason, why) for why in found["plan"]["why_not_faster"])
    assert found["outputs_repeat"] == (model != "noisy")
    assert found["mean_over_examples"] == (loss is not centred)
    plain = landscape("mlp").describe()["plan"]
    assert plain["why_not_faster"] == []
    assert plain["shared_first_layer"] == "1.weight"


def test_it_measures_what_a_point_costs():
    of = landscape("batchnorm")
    cost = of.describe()["cost"]
    inputs, targets = (torch.cat(parts) for parts in zip(*loader(), strict=True))
    assert cost["bytes_of_examples"] == inputs.nbytes + targets.nbytes
    assert cost["bytes_of_parameters"] == of.theta.nbytes
    # The convolution makes 4 channels of 6 x 6 numbers of 8 bytes for each example.
    assert cost["bytes_of_largest_activation"] == 70 * 4 * 36 * 8
    assert 0 < cost["seconds"] < 10
    assert 0 < cost["seconds_of_recalibration"] < 10


@pytest.mark.parametrize("name", ["mlp", "batchnorm", "attention", "shared", "counting"])
@pytest.mark.parametrize("policy", ["recalibrate", "batch"])
def test_it_prints_and_goes_into_a_record_and_changes_nothing(name, policy):
    of = landscape(name, policy)
    before = of.loss(of.theta)
    text = str(of)
    assert text.splitlines()[0] == repr(of)
    for word in ("examples: 70", "parameters: trainable", "plan: examples per pass", "cost: "):
        assert word in text
    json.dumps(of.describe(), allow_nan=False)
    assert torch.equal(of.loss(of.theta), before)
    assert all(parameter.grad is None for parameter in of.model.parameters())


def test_the_record_of_a_run_has_it(command):
    directory = command(*QUICK, "model=cifar_resnet8", "num_examples=50", "grid.num=2")
    found = record(directory)["metrics"]["landscape"]
    assert found["examples"] == 50
    assert found["recalibration_examples"] == len(digits(num_examples=100).train)
    assert found["norm_layers"] == {"BatchNorm2d": 7}  # three blocks of two, and the first
    assert found["loss_at_theta"]["under_the_policy"] > 0
