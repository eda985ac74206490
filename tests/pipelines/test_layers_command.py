"""Spectra of every layer from the command line, against dense blocks."""

import pandas as pd
import pytest
import torch
from command_line import QUICK, record
from torch import nn

from mining import Landscape, make_dense
from mining.curvature.class_means import class_means
from mining.data import digits
from mining.models import MLP
from mining.pipelines.layers import WHOLE

LAYERS = (
    *("pipeline=layers", *QUICK, "model.hidden=[6]", "num_examples=60", "precision=fp64"),
    *("layers.density_steps=12", "layers.density_probes=3", "seed=1", "batchnorm=frozen"),
)


def landscape(directory):
    """The loss of the run, made by hand."""
    outputs = directory.parents[2]
    (checkpoint,) = outputs.glob("train/mlp-digits/*/epoch_0003.pt")
    model = MLP((1, 8, 8), 10, hidden=[6])
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    few = digits().train.subset(100, torch.Generator().manual_seed(0))
    few = few.subset(60, torch.Generator().manual_seed(0))
    pair = few.inputs.double(), few.labels
    return Landscape(model.double(), nn.CrossEntropyLoss(), [pair], batchnorm="frozen")


def test_blocks_have_the_numbers_of_dense_blocks(command):
    directory = command(*LAYERS)
    table = pd.read_csv(directory / "layers.csv")
    of = landscape(directory)
    assert list(table.operator) == ["hessian"] * 3 + ["gauss_newton"] * 3
    assert list(table.layer) == [*of.space.layers, WHOLE] * 2
    for row in table.itertuples():
        options = {} if row.layer == WHOLE else {"parameters": row.layer}
        dense = make_dense(getattr(of, row.operator)(**options))
        values = torch.linalg.eigvalsh(dense)
        assert row.size == len(values)
        assert row.lambda_max == pytest.approx(float(values[-1]), rel=1e-3)
        assert abs(row.trace - float(values.sum())) < 5 * row.trace_standard_error
    whole = table[table.layer == WHOLE]
    assert (whole[["wasserstein", "jensen_shannon", "kullback_leibler"]] == 0).all(axis=None)
    assert (table[table.layer != WHOLE].normalized_wasserstein > 0).all()
    metrics = record(directory)["metrics"]
    assert metrics["num_layers"] == 2
    assert metrics["num_classes"] == 10
    assert (directory / "layers.png").stat().st_size > 10_000


def test_an_interrupted_run_computes_what_is_missing(command, monkeypatch):
    directory = command(*LAYERS)
    before = pd.read_csv(directory / "layers.csv")
    kept = {p: p.stat().st_mtime_ns for p in directory.glob("*_000[01].npz")}
    (directory / "run.json").unlink()
    for path in directory.glob("*_0002.npz"):
        path.unlink()
    assert command(*LAYERS) == directory
    after = pd.read_csv(directory / "layers.csv")
    assert before.drop(columns="seconds").equals(after.drop(columns="seconds"))
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_class_means_of_every_layer(command):
    directory = command("pipeline=class_means", *LAYERS[1:])
    table = pd.read_csv(directory / "class_means.csv")
    of = landscape(directory)
    assert list(table.layer) == [*of.space.layers, WHOLE]
    means = class_means(of.loss_at(), 10)
    values, vectors = torch.linalg.eigh(make_dense(of.gauss_newton()))
    whole = table.iloc[-1]
    assert whole.eigenvalues == pytest.approx(float(values[-10:].sum()), rel=1e-3)
    of_classes, of_pairs = means.explained(vectors[:, -10:])
    assert whole.class_share == pytest.approx(of_classes / whole.eigenvalues, rel=1e-2)
    assert whole.pair_share == pytest.approx(of_pairs / whole.eigenvalues, rel=1e-2)
    assert table.silhouette.between(-1, 1).all()
    assert (directory / "class_means.png").stat().st_size > 10_000
    assert record(directory)["metrics"]["layers"][0]["place"] == 0.25


def test_wrong_operators_are_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(*LAYERS, "layers.operators=[fisher]")
    assert "layers.operators" in capsys.readouterr().err
