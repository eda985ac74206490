import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from mining import InputError
from mining.data import Dataset, Split, digits
from mining.training import (
    DivergenceError,
    Loop,
    TrainingSettings,
    checkpoint_path,
    classification,
    crop_and_flip,
    loop,
    train,
)
from mining.training.optimization import make_optimizer, make_scheduler

DIGITS = digits()


def network(seed=0, batchnorm=False):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(64, 16)]
        layers += [nn.BatchNorm1d(16), nn.Dropout(0.1)] if batchnorm else []
        return nn.Sequential(*layers, nn.ReLU(), nn.Linear(16, 10))


def fit(directory, model=None, seed=0, dataset=DIGITS, **options):
    model = network(batchnorm=True) if model is None else model
    recipe = TrainingSettings(**{"epochs": 4, "checkpoints": (0, 2), **options})
    history = train(model, dataset, recipe, directory, seed=seed, progress=False)
    return model, history


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def save_after_each_epoch(monkeypatch):
    monkeypatch.setattr(loop, "_SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_SAVE_PAUSE", 0.0)


def test_training_with_crops_of_a_model_that_insists_on_strides(tmp_path):
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
            self.head = nn.Linear(4 * 16, 10)

        def forward(self, x):
            return self.head(self.convs(x).view(len(x), -1))

    split = Split(DIGITS.train.inputs[:100].repeat(1, 3, 1, 1), DIGITS.train.labels[:100])
    dataset = Dataset("rgb", split, None, DIGITS.class_names)
    fit(tmp_path, Viewing(), dataset=dataset, epochs=1, augment=True)


def test_training_learns_and_leaves_checkpoints(tmp_path):
    model, history = fit(tmp_path, epochs=8)
    assert history["test_accuracy"].iloc[-1] > 0.9
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "epoch_0000.pt",
        "epoch_0002.pt",
        "epoch_0008.pt",
        "history.csv",
        "resume.pt",
    ]
    content = torch.load(checkpoint_path(tmp_path, 8), weights_only=True)
    assert content["epoch"] == 8
    assert content["metrics"]["test_accuracy"] == history["test_accuracy"].iloc[-1]
    momentum = content["optimizer"]["state"][0]["momentum_buffer"]
    assert momentum.shape == (16, 64)
    assert momentum.any()
    assert_same(content["model"], model.state_dict())
    assert_same(weights(checkpoint_path(tmp_path, 0)), network(batchnorm=True).state_dict())
    written = pd.read_csv(tmp_path / "history.csv")
    assert list(written["epoch"]) == list(range(1, 9))
    assert written["train_loss"].iloc[-1] == pytest.approx(history["train_loss"].iloc[-1])


def test_one_step_of_plain_sgd_is_the_textbook_one(tmp_path):
    """θ ← θ - lr (∇L + weight_decay θ) over all examples at once."""
    dataset = Dataset("few", Split(DIGITS.train.inputs[:64], DIGITS.train.labels[:64]), None, 10)
    expected = network()
    loss = F.cross_entropy(expected(dataset.train.inputs), dataset.train.labels)
    gradients = torch.autograd.grad(loss, list(expected.parameters()))
    with torch.no_grad():
        for p, g in zip(expected.parameters(), gradients, strict=True):
            p -= 0.1 * (g + 0.01 * p)
    model, history = fit(
        tmp_path, network(), dataset=dataset, epochs=1, momentum=0.0, weight_decay=0.01
    )
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        # The order of the examples differs, and so does float32 rounding of their mean.
        assert torch.allclose(p, q, atol=1e-6)
    assert history["train_loss"][0] == pytest.approx(loss.item(), rel=1e-6)
    assert "test_loss" not in history


def test_same_seed_same_checkpoint(tmp_path):
    a, _ = fit(tmp_path / "a", augment=True)
    b, _ = fit(tmp_path / "b", augment=True)
    c, _ = fit(tmp_path / "c", augment=True, seed=1)
    assert_same(a.state_dict(), b.state_dict())
    assert not torch.equal(a.state_dict()["1.weight"], c.state_dict()["1.weight"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_killed_training_ends_with_the_same_weights(tmp_path, monkeypatch, optimizer):
    options = {"optimizer": optimizer, "lr": 0.01, "epochs": 6, "augment": True}
    whole, history = fit(tmp_path / "whole", **options)
    save_after_each_epoch(monkeypatch)
    epochs = []
    original = Loop._run_epoch

    def killed(*arguments):
        if len(epochs) == 3:
            raise KeyboardInterrupt
        epochs.append(1)
        return original(*arguments)

    monkeypatch.setattr(Loop, "_run_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", **options)
    monkeypatch.setattr(Loop, "_run_epoch", original)
    assert (tmp_path / "killed/resume.pt").exists()
    resumed, history_resumed = fit(tmp_path / "killed", **options)
    assert len(epochs) == 3  # the others were taken by the original
    assert_same(whole.state_dict(), resumed.state_dict())
    columns = ["epoch", "lr", "train_loss", "test_loss"]
    pd.testing.assert_frame_equal(history[columns], history_resumed[columns])


def test_states_are_saved_at_intervals(tmp_path, monkeypatch):
    """Epochs of milliseconds are saved where checkpoints are kept alone: after two and four."""
    monkeypatch.setattr(loop, "_SAVE_INTERVAL", 1000.0)
    saved = []
    monkeypatch.setattr(loop, "write_atomically", lambda path, content: saved.append(path.name))
    fit(tmp_path)
    assert saved == ["resume.pt"] * 2


def test_diverging_training_is_stopped_and_leaves_no_checkpoint(tmp_path):
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d+: loss .* Lower train.lr \(1"):
        fit(tmp_path, network(), lr=1e4)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_overflow_of_the_last_step_is_a_divergence(tmp_path, epochs):
    """The losses of an epoch are taken before its steps: the first one is always harmless."""
    with pytest.raises(DivergenceError):
        fit(tmp_path, network(), epochs=epochs, batch_size=2000, lr=1e30)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("kept", [(0, 2), ()])
def test_a_diverging_training_removes_its_own_files_alone(tmp_path, kept, monkeypatch):
    others = {"best.pt", "epoch_0007.pt", "swa.pt", "notes.csv"}
    for name in others:
        (tmp_path / name).write_bytes(b"months of work")
    save_after_each_epoch(monkeypatch)
    original = classification.evaluate

    def late(model, batches):  # when there is a state and, of some, a checkpoint to remove
        row = original(model, batches)
        return (
            row | {"loss": math.nan}
            if (tmp_path / "history.csv").exists()
            and len(pd.read_csv(tmp_path / "history.csv")) == 2
            else row
        )

    monkeypatch.setattr(classification, "evaluate", late)
    with pytest.raises(DivergenceError):
        fit(tmp_path, network(), checkpoints=kept)
    assert {p.name for p in tmp_path.iterdir()} == others | {"history.csv"}
    assert all((tmp_path / name).read_bytes() == b"months of work" for name in others)


@pytest.mark.parametrize("name", ["epoch_0002.pt", "epoch_0004.pt", "history.csv"])
def test_files_of_another_training_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_bytes(b"months of work")
    with pytest.raises(InputError, match=f"already has {name}, .* a directory of its own, or over"):
        fit(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"months of work"
    recipe = TrainingSettings(epochs=4, checkpoints=(2,))
    train(network(), DIGITS, recipe, tmp_path, seed=0, progress=False, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"months of work"


def test_test_metrics_are_those_of_the_model_in_eval_mode(tmp_path):
    model, history = fit(tmp_path)
    with torch.no_grad():
        outputs = model.eval()(DIGITS.test.inputs)
    expected = F.cross_entropy(outputs, DIGITS.test.labels).item()
    assert history["test_loss"].iloc[-1] == pytest.approx(expected, rel=1e-5)
    accuracy = (outputs.argmax(1) == DIGITS.test.labels).double().mean().item()
    assert history["test_accuracy"].iloc[-1] == pytest.approx(accuracy)


def test_dropout_follows_the_seed_and_the_global_generator_is_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, _ = fit(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    b, _ = fit(tmp_path / "b")
    assert_same(a.state_dict(), b.state_dict())


def test_a_training_that_is_done_is_not_done_again(tmp_path, monkeypatch):
    """It may have been killed before anybody noted that it was done."""
    a, history = fit(tmp_path)
    monkeypatch.setattr(Loop, "_run_epoch", None)
    monkeypatch.setattr(Loop, "save", None)  # nor is its state written again
    b, again = fit(tmp_path)
    assert_same(a.state_dict(), b.state_dict())
    pd.testing.assert_frame_equal(history, again)


class Scaled(nn.Sequential):
    factor = 1.0

    def forward(self, x):
        return self.factor * super().forward(x)


OTHERS = {
    "settings": {"lr": 0.05},
    "optimizer": {"optimizer": "adam"},
    "seed": {"seed": 1},
    "initialization": {"model": network(seed=3, batchnorm=True)},
    "architecture": {"model": nn.Sequential(*network(batchnorm=True), nn.Identity())},
    "data": {"dataset": digits(num_examples=200)},
    "constant": {"model": Scaled(*network(batchnorm=True))},
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_state_of_another_training_is_refused(tmp_path, other):
    fit(tmp_path, Scaled(*network(batchnorm=True)) if other == "constant" else None, epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = dict(OTHERS[other])
    if other == "constant":
        options["model"].factor = 1.01
    with pytest.raises(InputError, match=r"resume.pt holds another training.* of its own, or rem"):
        fit(tmp_path, **{"epochs": 1, **options})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bf16_trains_too(tmp_path):
    model, history = fit(tmp_path, bf16=True, epochs=8)
    assert history["test_accuracy"].iloc[-1] > 0.9
    assert model[1].weight.dtype == torch.float32


def test_frozen_parameters_stay(tmp_path):
    model = network()
    model[1].requires_grad_(False)
    fit(tmp_path, model)
    assert torch.equal(model[1].weight, network()[1].weight)
    assert not torch.equal(model[3].weight, network()[3].weight)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.1] * 8),
        ("step", [0.1] * 4 + [0.01] * 2 + [0.001] * 2),
        ("cosine", [0.05 * (1 + math.cos(math.pi * e / 8)) for e in range(8)]),
    ],
)
def test_schedules(schedule, expected):
    recipe = TrainingSettings(epochs=8, schedule=schedule)
    optimizer = make_optimizer(recipe, [torch.zeros(1, requires_grad=True)])
    scheduler, rates = make_scheduler(recipe, optimizer), []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(expected, rel=1e-15)


def test_kept_epochs_end_with_the_last():
    assert TrainingSettings().kept_epochs == (0, 10, 50, 100, 200)
    assert TrainingSettings(epochs=60).kept_epochs == (0, 10, 50, 60)


def test_crops_and_flips_are_shifts_and_mirrors():
    images = torch.arange(2 * 3 * 6 * 5.0).view(2, 3, 6, 5) + 1
    images = images.repeat(200, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    found = crop_and_flip(images, generator, padding=2)
    assert found.shape == images.shape
    seen = set()
    for before, after in zip(images, found, strict=True):
        padded = F.pad(before, (2, 2, 2, 2))
        matches = [
            (i, j, flip)
            for i in range(5)
            for j in range(5)
            for flip in (False, True)
            if torch.equal(
                after,
                (
                    padded[:, i : i + 6, j : j + 5].flip(2)
                    if flip
                    else padded[:, i : i + 6, j : j + 5]
                ),
            )
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 50  # 400 draws of 50 equally likely ones miss one with probability 0.015


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "train.epochs must be at least 1"),
        ({"batch_size": 0}, "train.batch_size must be at least 1"),
        ({"lr": -1.0}, "train.lr must be positive"),
        ({"lr": math.inf}, "train.lr must be positive"),
        ({"momentum": 1.0}, r"train.momentum must lie in \[0, 1\)"),
        ({"weight_decay": -1.0}, "train.weight_decay must not be negative"),
        ({"optimizer": "lbfgs"}, "train.optimizer must be one of"),
        ({"schedule": "linear"}, "train.schedule must be one of"),
        ({"checkpoints": (-1,)}, "train.checkpoints must not be negative"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_training_repeats(tmp_path):
    dataset = DIGITS.to("cuda", torch.float32)
    a, _ = fit(tmp_path / "a", network(batchnorm=True).cuda(), dataset=dataset, augment=True)
    b, _ = fit(tmp_path / "b", network(batchnorm=True).cuda(), dataset=dataset, augment=True)
    assert_same(a.state_dict(), b.state_dict())
