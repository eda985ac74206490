"""Directions of runs: normalization of those that are kept, and parameters that do not move."""

import math

import pytest
import torch
from command_line import QUICK, record

from mining import Normalization, ParameterSpace, load_runs
from mining.evaluation.storage import load_surface
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


ADAM = (*QUICK, "train.optimizer=adam", "train.lr=0.001")


def test_the_moments_of_a_training_span_a_surface(command, folder):
    directory = command(*ADAM, "view=adam_moments", "normalization=none", "epoch=1", "grid.num=3")
    found, names = stored(directory)
    assert names == ["first moment", "second moment"]
    where = record(directory)["config"]["train"]
    runs = load_runs(folder / "outputs", pipeline="train")
    (training,) = runs[[config["train"] == where for config in runs.config]]["directory"]
    state = torch.load(training / "epoch_0001.pt", weights_only=True)["optimizer"]["state"]
    for vector, key in zip(found, ("exp_avg", "exp_avg_sq"), strict=True):
        assert torch.equal(vector, torch.cat([state[n][key].flatten() for n in range(4)]))


def test_the_update_rule_of_adam_from_the_command_line(command, capsys):
    grid = ("grid.num=3", "grid.low=-1", "grid.high=1", "epoch=1")
    directory = command(*ADAM, "view=adameq", *grid)
    surface = load_surface(directory / "surface.npz")
    assert surface.betas.tolist() == pytest.approx([-0.9, 0, 0.1, 1.1])
    assert surface.loss[1].unique().numel() == 1
    assert surface.loss[0, 1] != surface.loss[2, 1]
    plain = command(*ADAM, "view=adameq", *grid, "update=null")
    assert plain != directory
    assert not torch.equal(load_surface(plain / "surface.npz").loss, surface.loss)
    capsys.readouterr()
    for wrong, message in (
        (["grid.y_low=-1"], "must lie above -1"),
        (["orthogonalize=true"], "has negative entries"),
        (["grid.scale=2"], "leave grid.scale at 1"),
        (["view=bowl", "update=adameq"], "set x_direction=adam_moments"),
        (["train.optimizer=sgd"], "needs the state of Adam or AdamW"),
    ):
        with pytest.raises(SystemExit):
            command(*ADAM, *(wrong if "view=bowl" in wrong else ["view=adameq", *wrong]), *grid)
        assert message in capsys.readouterr().err


def test_the_path_of_a_training_is_shown_on_its_own_plane(command, folder):
    kept = ("train.checkpoints=[0,1,2]",)
    directory = command(*QUICK, "view=trajectory", *kept, "grid.num=5")
    surface, metrics = load_surface(directory / "surface.npz"), record(directory)["metrics"]
    assert surface.path_names == ("E=0", "E=1", "E=2", "E=3")
    assert metrics["path"]["names"] == list(surface.path_names)
    assert metrics["path"]["coefficients"] == surface.path.tolist()
    assert surface.path[-1].abs().max() < 1e-6  # θ
    assert surface.path.abs().max(0).values.tolist() == pytest.approx([1, 1], rel=1e-5)
    assert 0.5 < sum(metrics["explained_variance"]) <= 1
    (training,) = (
        found
        for found in load_runs(folder / "outputs", pipeline="train")["directory"]
        if (found / "epoch_0002.pt").exists()
    )
    space = ParameterSpace.of(MLP((1, 8, 8), 10))
    vectors, _ = stored(directory)
    theta, start = (
        space.flatten({name: state[name] for name in space.names})
        for state in (
            torch.load(training / f"epoch_000{epoch}.pt", weights_only=True)["model"]
            for epoch in (3, 0)
        )
    )
    rest = start - theta - surface.path[0].float() @ vectors
    assert float((vectors @ rest).abs().max()) < 1e-3  # what is left is orthogonal to the plane
    files = ",".join(str(training / f"epoch_000{epoch}.pt") for epoch in (0, 1, 3))
    axes = [
        argument
        for axis in ("x_direction", "y_direction")
        for argument in (f"{axis}=trajectory_pca", f"{axis}.states=[{files}]")
    ]
    other = command(*QUICK, "pipeline=surface", *axes, "grid.num=3", *kept)
    assert load_surface(other / "surface.npz").path_names == ("1", "2", "3")


def test_runs_record_where_the_loss_explodes_and_in_which_module(command):
    options = (*QUICK, "model=cifar_resnet8", "grid.num=5", "normalization=filter")
    frozen = (*options, "batchnorm=frozen", "num_directions=2")
    for explosion in record(command(*frozen, "grid.low=-0.2", "grid.high=0.2"))["metrics"][
        "explosion"
    ]:
        assert explosion["start"] is None
        assert explosion["overflow"] is None
    far = record(command(*frozen, "grid.low=-30", "grid.high=30"))["metrics"]["explosion"]
    assert len(far) == 2
    for explosion in far:
        assert explosion["start"] in (15, 30)
        assert explosion["bound"] == pytest.approx(10 * math.log(10))
        assert (explosion["policy"], explosion["normalization"]) == ("frozen", "filter")
        assert explosion["overflow"]["module"] == "conv1"
    surface = (*options, "batchnorm=frozen", "pipeline=surface", "grid.low=-30", "grid.high=30")
    explosion = record(command(*surface, "grid.num=3"))["metrics"]["explosion"]
    assert explosion["start"] == pytest.approx(math.hypot(*explosion["at"]))
    assert explosion["overflow"]["module"] == "conv1"


def test_a_layer_that_is_not_there_is_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(*QUICK, "freeze=layer9", "grid.num=3")
    assert "No parameter matches 'layer9'" in capsys.readouterr().err
