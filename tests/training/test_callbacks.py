"""Callbacks observe an optimization and cannot change it; a loss hook does."""

import random

import numpy as np
import pytest
import torch
from cases import build, landscape
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mining import Descent, InputError, Xu2024VVVBasin, mine
from mining.data import Dataset, Split, digits
from mining.training import TrainingSettings, loop, train

DIGITS = digits()
FEW = Dataset("few", Split(DIGITS.train.inputs[:200], DIGITS.train.labels[:200]), None, 10)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(144, 10),
        )


def fit(directory, callbacks=(), loss_hook=None, **options):
    model = network()
    settings = TrainingSettings(**{"epochs": 4, "lr": 0.01, "checkpoints": (2,), **options})
    history = train(
        model,
        FEW,
        settings,
        directory,
        seed=0,
        progress=False,
        callbacks=callbacks,
        loss_hook=loss_hook,
    )
    return model, history


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def draw():
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    random.random()


def meddle(state):
    """Do everything that a callback should not do."""
    draw()
    for generator in state.objective.generators:
        torch.rand(1, generator=generator, device=generator.device)
    (model,) = state.objective.modules
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            layer.running_mean = torch.zeros_like(layer.running_mean)
            layer.reset_running_stats()
    for variable in state.objective.variables:
        variable.grad = torch.ones_like(variable)
        state.optimizer.step()
        variable.requires_grad_(False)
        variable.data.mul_(2)
    state.optimizer.param_groups[0]["lr"] = 7.0
    state.optimizer.state.clear()
    torch.set_grad_enabled(False)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "adam"}, {"optimizer": "adamw", "augment": True, "bf16": True}],
    ids=["sgd", "adam", "adamw"],
)
def test_callbacks_leave_a_training_as_without_them(tmp_path, options):
    seen = []

    def observe(state):
        """What trackers do: passes in train mode, gradients, random numbers."""
        (model,) = state.objective.modules
        model.train()
        loss = F.cross_entropy(model(FEW.train.inputs[:32]), FEW.train.labels[:32])
        loss.backward()
        state.optimizer.zero_grad()
        draw()
        seen.append((state.epoch, float(loss.detach())))

    alone, history = fit(tmp_path / "alone", **options)
    watched, other = fit(tmp_path / "watched", (observe, meddle, observe), **options)
    assert_same(alone.state_dict(), watched.state_dict())
    assert [p.requires_grad for p in watched.parameters()] == [True] * 6
    assert history.drop(columns="seconds").equals(other.drop(columns="seconds"))
    kept = [
        torch.load(tmp_path / name / "epoch_0002.pt", weights_only=True)
        for name in ("alone", "watched")
    ]
    assert_same(*(content["model"] for content in kept))
    assert [epoch for epoch, _ in seen] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert seen[0] == seen[1]  # what the one in between did is undone


def test_callbacks_leave_mining_as_without_them():
    start = dict(build("batchnorm", seed=9).state_dict())
    source = Xu2024VVVBasin(start, descent=Descent(epochs=3, batch_size=16, momentum=0.9))
    for policy in ("recalibrate", "frozen"):
        found = [
            mine(
                source,
                landscape("batchnorm", policy),
                generator=torch.Generator().manual_seed(0),
                callbacks=callbacks,
            ).direction.vector
            for callbacks in ((), (meddle, meddle))
        ]
        assert torch.equal(*found)


def test_a_callback_that_fails_leaves_the_model_as_trained(tmp_path):
    def fail(state):
        meddle(state)
        raise RuntimeError("of the callback")

    model = network()
    settings = TrainingSettings(epochs=2, lr=0.01, checkpoints=(1,))
    with pytest.raises(RuntimeError, match="of the callback"):
        train(model, FEW, settings, tmp_path, seed=0, progress=False, callbacks=(fail,))
    kept = torch.load(tmp_path / "epoch_0001.pt", weights_only=True)["model"]
    assert_same(model.state_dict(), kept)
    assert torch.is_grad_enabled()


def test_a_loss_hook_adds_a_term(tmp_path):
    """Half the squared norm of the weights is the weight decay of plain SGD."""
    model = network()

    def penalty(loss, batch):
        inputs, labels = batch
        assert len(inputs) == len(labels) == 50
        return loss + 0.05 * sum((p**2).sum() for p in model.parameters())

    recipe = {"momentum": 0.0, "batch_size": 50}
    decayed, _ = fit(tmp_path / "decay", weight_decay=0.1, **recipe)
    settings = TrainingSettings(epochs=4, lr=0.01, checkpoints=(2,), weight_decay=0.0, **recipe)
    train(model, FEW, settings, tmp_path / "hook", seed=0, progress=False, loss_hook=penalty)
    for p, q in zip(model.parameters(), decayed.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)  # float32
    with pytest.raises(InputError, match="holds another training"):
        train(network(), FEW, settings, tmp_path / "hook", seed=0, progress=False)


def test_a_loss_hook_may_differentiate_twice(tmp_path):
    """A penalty on the norm of the gradient: what regularizers of curvature need."""
    model = network()

    def flat(loss, batch):
        gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        return loss + 0.1 * sum((g**2).sum() for g in gradients)

    settings = TrainingSettings(epochs=2, lr=0.01, checkpoints=())
    history = train(model, FEW, settings, tmp_path, seed=0, progress=False, loss_hook=flat)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_state_of_another_version_is_refused(tmp_path):
    fit(tmp_path)
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    torch.save({**state, "layout": loop._LAYOUT - 1}, tmp_path / "resume.pt")
    with pytest.raises(InputError, match=r"resume.pt holds no state .* Remove it to start again"):
        fit(tmp_path)
