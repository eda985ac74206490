"""A training that is evaluated on held-out images after every epoch, with and without noise."""

import pandas as pd
import pytest
import torch
from command_line import QUICK, record
from torch.nn import functional as F  # noqa: N812

from mining import InputError
from mining.data import Dataset, Split, digits, with_noise
from mining.models import MLP
from mining.training import HeldOutSettings, TrainingSettings, train

TRAIN = ("pipeline=train", *QUICK)
DIGITS = digits(num_examples=300)


def test_a_training_with_it_is_the_same(command):
    plain, watched = command(*TRAIN), command(*TRAIN, "held_out=alabdulkareem2022")
    assert plain != watched
    assert not (plain / "held_out.csv").exists()
    assert list(pd.read_csv(watched / "held_out.csv").epoch) == [1, 2, 3]
    weights = [
        torch.load(directory / "epoch_0003.pt", weights_only=True)["model"]
        for directory in (plain, watched)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    metrics = [record(directory)["metrics"] for directory in (plain, watched)]
    assert metrics[0] == metrics[1]


def test_splits_share_no_image_and_lose_none():
    splits = HeldOutSettings(validation=0.25).splits(DIGITS)
    assert len(splits["validation"]) == 75
    found = torch.cat([splits["validation"].inputs, splits["test"].inputs]).flatten(1)
    rows = sorted(map(tuple, found.tolist()))
    assert rows == sorted(map(tuple, DIGITS.split("test").inputs.flatten(1).tolist()))
    counts = splits["validation"].labels.bincount()
    assert counts.max() - counts.min() <= 1
    assert torch.equal(splits["noisy"].labels, splits["test"].labels)


def test_noise_is_that_of_normalized_images_and_the_same_again():
    test = DIGITS.split("test")
    first, again = (with_noise(test, 0.25).inputs for _ in range(2))
    assert torch.equal(first, again)
    # Of 19,200 draws the standard deviation is known to half a per cent.
    assert float((first - test.inputs).std()) == pytest.approx(0.25, rel=0.025)
    assert float((first - test.inputs).mean()) == pytest.approx(0, abs=0.01)
    assert first.min() < test.inputs.min()  # without limits


def fit(directory, epochs):
    torch.manual_seed(0)
    model = MLP(DIGITS.input_shape, 10, hidden=[16])
    settings = TrainingSettings(epochs=epochs, schedule="constant", checkpoints=(1,))
    path = directory / "held_out.csv"
    callback = HeldOutSettings().callback(DIGITS, 64, path)
    train(
        model, DIGITS, settings, directory, seed=0, progress=False, callbacks=[callback],
        overwrite=True,
    )  # fmt: skip
    return model, pd.read_csv(path)


def test_the_last_row_is_what_the_model_says(tmp_path):
    model, table = fit(tmp_path, 2)
    for name, split in HeldOutSettings().splits(DIGITS).items():
        with torch.no_grad():
            logits = model.eval()(split.inputs)
        loss = float(F.cross_entropy(logits, split.labels))
        accuracy = float((logits.argmax(1) == split.labels).double().mean())
        assert table[f"{name}_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
        assert table[f"{name}_accuracy"].iloc[-1] == pytest.approx(accuracy, abs=1e-9)


def test_rows_of_epochs_that_are_trained_again_are_replaced(tmp_path):
    _, whole = fit(tmp_path / "whole", 3)
    again = tmp_path / "again"
    again.mkdir()
    whole.assign(test_accuracy=2.0).to_csv(again / "held_out.csv", index=False)
    _, table = fit(again, 3)
    pd.testing.assert_frame_equal(table, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, "held_out.validation must be between 0 and 1"),
        ({"noise": 0.0}, "held_out.noise must be positive"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        HeldOutSettings(**options)


def test_data_without_enough_test_images_is_refused():
    with pytest.raises(InputError, match="has no test split"):
        HeldOutSettings().splits(Dataset("few", DIGITS.train, None, 10))
    one = Split(DIGITS.train.inputs[:1], DIGITS.train.labels[:1])
    with pytest.raises(InputError, match="leaves the validation or the test set empty"):
        HeldOutSettings().splits(Dataset("one", DIGITS.train, one, 10))
