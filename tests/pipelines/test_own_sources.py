"""A direction source of a user's own, from the command line: one Python file, one YAML file."""

import pytest
import torch
from command_line import QUICK, record

from mining.evaluation.storage import load_surface
from mining.storage.table import load_runs

SOURCES = '''
from dataclasses import dataclass, field, replace

import torch

from mining import Descent, Direction, DirectionSource, Miner
from mining.directions.mined.miner import Search


@dataclass(frozen=True)
class Constant(DirectionSource):
    """The same entry for all parameters."""

    value: float = 1.0

    def directions(self, landscape, num, *, generator):
        vector = torch.full_like(landscape.theta, self.value)
        return [Direction(vector, "constant", index) for index in range(num)]


@dataclass(frozen=True)
class Last(DirectionSource):
    """The last weights of an independent training, not their difference to theta."""

    path: str | None = None

    def bind(self, checkpoints):
        return replace(self, path=str(checkpoints.at(None, independent=True)))

    def directions(self, landscape, num, *, generator):
        state = torch.load(self.path, weights_only=True)["model"]
        return [Direction(landscape.space.flatten(state), "last")]


@dataclass(frozen=True)
class Downhill(Miner):
    """Gradient descent from theta."""

    descent: Descent = field(default_factory=lambda: Descent(epochs=1))

    def search(self, landscape, generator):
        def step(loss, epsilon, share, generator):
            return loss(landscape.theta + epsilon)

        start = torch.zeros_like(landscape.theta)
        return Search(start, step, lambda epsilon: Direction(epsilon, "downhill"))
'''
YAML = """# Mine: the same entry for all parameters
_target_: own_sources.Constant
value: 0.5 # of every entry
"""
SEARCHPATH = "hydra.searchpath=[file://own_options]"


@pytest.fixture
def own(command, folder):
    (folder / "own_sources.py").write_text(SOURCES)
    options = folder / "own_options/direction"
    options.mkdir(parents=True, exist_ok=True)
    (options / "constant.yaml").write_text(YAML)
    return command


def vectors(directory):
    return torch.load(directory / "directions.pt", weights_only=True)["vectors"]


def test_a_class_is_named_in_place_of_an_option(own, capsys):
    named = ("direction._target_=own_sources.Constant", "direction.value=2", "grid.num=3")
    directory = own(*QUICK, *named)
    assert torch.equal(vectors(directory), torch.full_like(vectors(directory), 2))
    with pytest.raises(SystemExit):
        own(*QUICK, *named, "normalization=filter")
    assert "Constant sets its own length: leave normalization out." in capsys.readouterr().err


def test_an_option_serves_curves_and_both_axes_of_a_surface(own):
    curve = own(*QUICK, SEARCHPATH, "direction=constant", "grid.num=3")
    assert torch.equal(vectors(curve), torch.full_like(vectors(curve), 0.5))
    axes = ("x_direction=constant", "y_direction=gradient")
    surface = own(*QUICK, SEARCHPATH, "pipeline=surface", *axes, "grid.num=3", "grid.y_num=2")
    assert load_surface(surface / "surface.npz").names == ("constant", "negative gradient")
    assert torch.equal(vectors(surface)[0], vectors(curve)[0])
    swapped = ("x_direction=gradient", "y_direction=constant", "y_direction.value=3", "grid.num=3")
    surface = own(*QUICK, SEARCHPATH, "pipeline=surface", *swapped, "orthogonalize=false")
    assert torch.equal(vectors(surface)[1], 6 * vectors(curve)[0])


def test_a_source_is_given_the_checkpoints_that_it_asks_for(own, folder):
    directory = own(*QUICK, "direction._target_=own_sources.Last", "epoch=1", "grid.num=3")
    (training,) = load_runs(folder / "outputs", pipeline="train", seed=1000)["directory"]
    state = torch.load(training / "epoch_0003.pt", weights_only=True)["model"]
    names = torch.load(directory / "directions.pt", weights_only=True)["names"]
    expected = torch.cat([state[name].flatten() for name in names])
    assert torch.equal(vectors(directory)[0], expected)


def test_an_expensive_source_is_computed_once_for_curve_and_surface(own, folder):
    target = "direction._target_=own_sources.Downhill"
    curve = own(*QUICK, target, "epoch=1", "grid.num=3")
    surface = own(*QUICK, "pipeline=surface", f"x_{target}", "epoch=1", "grid.num=3")
    (mined,) = load_runs(folder / "outputs", pipeline="mine")["directory"]
    assert record(mined)["metrics"]["directions"] == ["downhill"]
    assert torch.equal(vectors(curve)[0], vectors(mined)[0])
    assert torch.equal(vectors(surface)[0], vectors(mined)[0])
