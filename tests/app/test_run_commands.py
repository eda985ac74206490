"""The command of a run, found from its configuration, makes the same run."""

import shlex

import pytest

from mining.app.commands import find_commands, spelled
from mining.app.experiments import plan

TRAINED = ["train.epochs=7", "train.checkpoints=[0,3,7]", "seed=3"]
CASES = [
    ["model=cifar_resnet8", "view=negative_eigenvector", *TRAINED],
    ["pipeline=surface", "view=trajectory", "size=smoke", "grid.y_num=7"],
    ["pipeline=surface", "x_direction=gradient", "y_direction=uniform", "freeze=['*.bias',conv1]"],
    ["direction=xu2024_w_peak", "descent.epochs=5", "descent.lr=1e-5", "normalization=filter"],
    ["direction=from_file", "direction.path=it's here\\there, [1] {x}: 50% a=b $1"],
    ["pipeline=spectrum", "spectrum.parameters=['layers.1*',weights]", "precision=fp64"],
    ["data=arrays", "data.path=/tmp/x.npz", "data.mean=[0.1,0.2,0.3]", "data_shifted=digits"],
    ["model=custom", "model._target_=torch.nn.Identity", "+model.width=null", "+model.kind='1e3'"],
    ["pipeline=assess", "assess.rho=0.25", "model.hidden=[]", "chunk=4", "num_threads=2"],
]


@pytest.mark.parametrize("arguments", CASES, ids=lambda given: given[-1] if given else "default")
def test_the_command_of_a_run_plans_the_same_run(arguments):
    if any(argument.startswith("direction.path") for argument in arguments):
        key, _, path = arguments[-1].partition("=")
        arguments = [*arguments[:-1], f"{key}={spelled(path)}"]
    (run,) = plan(arguments)
    (command,) = find_commands([run.config])
    program, again = shlex.split(command.text)[:3], shlex.split(command.text)[3:]
    assert program == ["python", "-m", "mining"]
    (planned,) = plan(again)
    assert planned.directory == run.directory
    for key in ("chunk", "num_threads"):
        assert planned.config[key] == run.config[key]


def test_a_configuration_that_this_version_lacks_has_no_command_and_a_reason():
    (run,) = plan([])
    (command,) = find_commands([run.config | {"pipeline": "of old"}])
    assert command.text is None
    assert "no pipeline of old" in command.why
