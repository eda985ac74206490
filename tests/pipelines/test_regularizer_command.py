"""A training that is regularized from the command line."""

import pytest
import torch
from cases import build
from command_line import QUICK, record

from mining.data import Dataset, Split, digits
from mining.training import HessianTraceSettings, TrainingSettings, loop, train

TRAIN = ("pipeline=train", *QUICK, "model=mlp", "train.batch_size=20")
PENALIZED = ("regularizer=hessian_trace", "regularizer.gamma=0.05", "regularizer.every=2")


def weights(directory, epoch=3):
    return torch.load(directory / f"epoch_{epoch:04d}.pt", weights_only=True)["model"]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_regularized_training_is_another_run_and_gamma_0_changes_nothing(command):
    plain = command(*TRAIN)
    nothing = command(*TRAIN, "regularizer=hessian_trace", "regularizer.gamma=0.0")
    penalized = command(*TRAIN, *PENALIZED)
    assert len({plain, nothing, penalized}) == 3
    assert same(weights(plain), weights(nothing))
    assert not same(weights(plain), weights(penalized))
    assert "regularizer" in record(penalized)["config"]


def test_other_pipelines_take_the_weights_of_the_regularized_training(command):
    options = ("spectrum.num_eigenvalues=0", "spectrum.density_probes=0", "num_examples=60")
    options += ("spectrum.trace_products=6", "spectrum.trace_error=null", *QUICK)
    plain, penalized = (command("pipeline=spectrum", *options, *more) for more in ((), PENALIZED))
    norms = [record(directory)["metrics"]["parameter_norm"] for directory in (plain, penalized)]
    assert norms[0] != norms[1]


def test_a_layer_that_does_not_exist_is_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(*TRAIN, *PENALIZED, "regularizer.layers=[head]")
    assert "No parameter matches 'head'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mlp", "batchnorm"])
def test_an_interrupted_training_ends_with_the_same_weights(name, tmp_path, monkeypatch):
    train_split = digits().train
    few = Dataset("few", Split(train_split.inputs[:70], train_split.labels[:70] % 3), None, 3)
    settings = TrainingSettings(epochs=3, batch_size=16, lr=0.01, checkpoints=())
    options = HessianTraceSettings(gamma=0.1, every=3)  # not a divisor of the steps of an epoch

    def fit(directory, callbacks=()):
        model = build(name, torch.float32)
        hook = options.hook(model, 0)
        train(
            model, few, settings, directory,
            seed=0, progress=False, callbacks=callbacks, loss_hook=hook,
        )  # fmt: skip
        return model.state_dict()

    def stop(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    whole = fit(tmp_path / "whole")
    monkeypatch.setattr(loop, "_SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_SAVE_PAUSE", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", (stop,))
    assert same(whole, fit(tmp_path / "parts"))
