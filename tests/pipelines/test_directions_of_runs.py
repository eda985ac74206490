"""Directions of runs: normalization of those that are kept, and parameters that do not move."""

import pytest
import torch
from command_line import QUICK

from mining import Normalization, ParameterSpace, load_runs
from mining.models import MLP


def stored(directory):
    content = torch.load(directory / "directions.pt", weights_only=True)
    return content["vectors"], content["sources"]


def test_one_run_finds_both_top_eigenvectors_and_every_normalization_uses_it(command, folder):
    axes = ("x_direction=eigenvectors", "y_direction=eigenvectors", "y_direction.start=2")
    options = (*QUICK, "pipeline=surface", *axes, "orthogonalize=false", "grid.num=2")
    plain, names = stored(command(*options))
    assert names == ["P.E.1", "P.E.2"]
    scaled, _ = stored(command(*options, "normalization=filter"))
    (kept,) = load_runs(folder / "outputs", pipeline="eigenvectors")["directory"]
    assert torch.equal(stored(kept)[0], plain)
    (training,) = load_runs(folder / "outputs", pipeline="train")["directory"]
    state = torch.load(training / "epoch_0003.pt", weights_only=True)["model"]
    space = ParameterSpace.of(MLP((1, 8, 8), 10))
    theta = space.flatten({name: state[name] for name in space.names})
    for vector, unit in zip(scaled, plain, strict=True):
        assert torch.equal(vector, Normalization("filter")(unit, theta, space))


@pytest.mark.parametrize("source", ["gaussian", "eigenvectors", "checkpoint_delta"])
def test_frozen_parameters_do_not_move(command, source):
    options = (*QUICK, f"direction={source}", "epoch=1", "grid.num=3")
    free, frozen = (
        stored(command(*options, *more))[0] for more in ((), ("freeze=[layers.1,'*.bias']",))
    )
    space = ParameterSpace.of(MLP((1, 8, 8), 10))
    before, after = (space.unflatten(vectors[0]) for vectors in (free, frozen))
    for name in space.names:
        expected = before[name] if name == "layers.3.weight" else torch.zeros_like(before[name])
        assert torch.equal(after[name], expected)


def test_a_layer_that_is_not_there_is_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(*QUICK, "freeze=layer9", "grid.num=3")
    assert "No parameter matches 'layer9'" in capsys.readouterr().err
