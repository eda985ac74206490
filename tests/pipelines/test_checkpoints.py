"""Checkpoints of a configured training: found, or trained where nothing is there."""

import traceback
from dataclasses import replace

import pytest
import torch
from command_line import QUICK

from mining import InputError
from mining.app.experiments import plan
from mining.pipelines.building import build_model, load_data
from mining.pipelines.checkpoints import Checkpoints
from mining.pipelines.titles import describe_point
from mining.storage.checkpoints import load_optimizer_state, load_state_dict, read_tensors
from mining.storage.table import load_runs
from mining.training import TrainingSettings


def checkpoints(folder, *overrides):
    (run,) = plan([*QUICK, f"outputs={folder}", *overrides])
    return Checkpoints(run.settings)


def test_the_initialization_takes_no_training_and_the_trajectory_one(tmp_path):
    found = checkpoints(tmp_path)
    start = found.at(0)
    assert load_runs(tmp_path).empty
    weights = load_state_dict(start)
    trajectory = found.trajectory()
    assert [path.name for path in trajectory] == [f"epoch_000{e}.pt" for e in (0, 1, 3)]
    assert trajectory[0] == start
    assert len(load_runs(tmp_path, pipeline="train")) == 1
    assert found.at(None) == trajectory[-1] == found.theta()
    assert all(torch.equal(weights[n], value) for n, value in load_state_dict(start).items())
    other = found.at(1, independent=True)
    assert sorted(load_runs(tmp_path, pipeline="train")["seed"]) == [0, 1000]
    assert other.parent != start.parent
    with pytest.raises(InputError, match=r"Epoch 2 is not among the kept checkpoints \[0, 1, 3\]"):
        found.at(2)


def test_a_watched_training_serves_as_well(tmp_path, command):
    watching = ("monitor=default", "held_out=alabdulkareem2022")
    watched = command(*QUICK, f"outputs={tmp_path}", "pipeline=train", *watching)
    found = checkpoints(tmp_path).at(3)
    assert found.parent == watched
    for other in ("seed=1", "train.lr=0.2"):  # another training does not
        assert not (checkpoints(tmp_path, other).at(3).parent / "curvature.csv").exists()
    # It is the training without a monitor, to the last bit.
    plain = load_state_dict(checkpoints(tmp_path / "alone").at(3))
    weights = load_state_dict(found)
    assert all(torch.equal(weights[name], value) for name, value in plain.items())
    found.write_bytes(found.read_bytes()[:-9])
    assert checkpoints(tmp_path).at(3).parent != watched


def test_the_state_of_the_optimizer_is_that_of_the_epoch(tmp_path):
    found = checkpoints(tmp_path, "train.optimizer=adam", "train.lr=0.001")
    state = found.optimizer_state(1)
    content = torch.load(found.at(1), weights_only=True)
    steps = {float(moments["step"]) for moments in state["state"].values()}
    last = {float(m["step"]) for m in found.optimizer_state(None)["state"].values()}
    assert last == {3 * step for step in steps}  # of three epochs, not one
    for number, weights in enumerate(content["model"].values()):
        assert state["state"][number]["exp_avg"].shape == weights.shape
    assert not found.optimizer_state(0)["state"]  # before the first step
    given = replace(found.settings, checkpoint=str(found.at(1)))
    of_file = Checkpoints(given).optimizer_state(None)
    assert {float(moments["step"]) for moments in of_file["state"].values()} == steps


def test_a_given_file_has_no_training(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    given = replace(checkpoints(tmp_path).settings, checkpoint=str(path))
    assert Checkpoints(given).theta() == path
    with pytest.raises(InputError, match=r"no training .* give x_direction.checkpoint too"):
        Checkpoints(given, "x_direction").at(0)
    with pytest.raises(InputError, match=r"no training .* give x_direction.states, a list of"):
        Checkpoints(given, "x_direction").trajectory()
    with pytest.raises(InputError, match="holds no state of an optimizer"):
        Checkpoints(given).optimizer_state(None)
    with pytest.raises(InputError, match="leave it out with checkpoint=FILE"):
        Checkpoints(replace(given, epoch=1)).theta()


@pytest.mark.parametrize("name", [None, "optimizer", "optimizer_state_dict", "optim"])
def test_states_of_optimizers_are_found_where_scripts_put_them(tmp_path, name):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    torch.save(state if name is None else {name: state, "epoch": 1}, tmp_path / "state.pt")
    found = load_optimizer_state(tmp_path / "state.pt")
    assert torch.equal(found["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    assert found["param_groups"] == state["param_groups"]


def test_steps_after_an_epoch_are_those_of_plain_sgd(tmp_path):
    found = checkpoints(tmp_path, "epoch=1", "step=2", "train.momentum=0.9", "train.batch_size=30")
    path = found.theta()
    assert path.name == "epoch_0001_step_0002.pt"
    settings = replace(found.settings, pipeline="train").as_read()
    dataset = load_data(settings)
    model = build_model(settings, dataset)
    content = torch.load(found.at(1), weights_only=True)
    model.load_state_dict(content["model"])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    optimizer.load_state_dict(content["optimizer"])  # with its learning rate
    examples = dataset.split("train")
    generator = torch.Generator().manual_seed(settings.seed + 1)
    order = torch.randperm(len(examples), generator=generator)
    recipe = settings.train.make(TrainingSettings)
    batches = order.tensor_split(-(-len(order) // recipe.batch_size))
    for chosen in batches[:2]:
        optimizer.zero_grad()
        logits = model(examples.inputs[chosen])
        torch.nn.functional.cross_entropy(logits, examples.labels[chosen]).backward()
        optimizer.step()
    after = load_state_dict(path)
    for name, value in model.state_dict().items():
        assert torch.equal(after[name], value)
    with pytest.raises(InputError, match=r"between 1 and \d+, one epoch, got 99"):
        Checkpoints(replace(found.settings, step=99)).theta()


def test_a_point_between_epochs_makes_runs_of_its_own():
    (plain,), (after,) = plan(["epoch=10"]), plan(["epoch=10", "step=3"])
    assert plain.directory != after.directory
    assert describe_point(after.settings) == "E=10 and 3 steps, train loss"


def test_from_the_configuration_to_weights_it_is_a_dozen_calls(command, monkeypatch):
    command(*QUICK, "pipeline=train")
    depths = []

    def read(path):
        frames = [frame.f_globals["__name__"] for frame, _ in traceback.walk_stack(None)]
        ours = [name for name in frames if name.startswith("mining.")]
        depths.append(1 + ours.index("mining.app.command_line"))
        return read_tensors(path)

    monkeypatch.setattr("mining.storage.checkpoints.read_tensors", read)
    command(*QUICK, "grid.num=3")
    assert depths[0] <= 12
