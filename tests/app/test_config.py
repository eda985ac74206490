"""Every option of every group composes and instantiates; --help names them all."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from mining import DirectionSource
from mining.app.experiments import plan, register_resolvers
from mining.app.help import help_text
from mining.app.hydra_versions import VERSION
from mining.directions.normalization import Normalization
from mining.evaluation.grid import Grid
from mining.functional.batchnorm import BatchNormPolicy
from mining.pipelines import PIPELINE_KEYS
from mining.training import TrainingSettings

register_resolvers()
CONF = Path(__file__).parent.parent.parent / "conf"
FILES = sorted(p.relative_to(CONF).with_suffix("") for p in CONF.glob("*/**/*.yaml"))
OPTIONS = [(str(p).split("/", 1)[0], str(p).split("/", 1)[1]) for p in FILES]
REQUIRED = {  # what an option cannot guess
    ("data", "arrays"): ["data.path=x.npz"],
    ("data", "image_folder"): ["data.root=x"],
    ("subject", "mobilenet"): ["data.root=x"],
    ("model", "custom"): ["model._target_=torch.nn.Flatten"],
    ("direction", "from_file"): ["direction.path=x.npz"],
}


def test_help_lists_the_keys_of_options():
    text = " ".join(help_text().split())
    assert "direction.basins=null, direction.barrier=null" in text
    assert "direction.points=8, direction.descent" in text
    assert "model.depth=20, model.width=16, model.skip_connections=true" in text
    assert "data.root=data, data.download=false" in text


def composed(*overrides):
    with initialize_config_module("mining.conf", **VERSION):
        return OmegaConf.to_container(
            compose("config", list(overrides)), resolve=True, throw_on_missing=True
        )


@pytest.mark.parametrize(("subject", "epoch"), [("mlp", 10), ("lenet", 1), ("resnet20", 1)])
def test_the_early_checkpoint_is_the_second_also_where_it_depends_on_the_size(subject, epoch):
    assert composed("view=gaussian_early", f"subject={subject}")["epoch"] == epoch
    with initialize_config_module("mining.conf", **VERSION):
        OmegaConf.resolve(compose("config", [f"subject={subject}"]))  # as --cfg job --resolve does


def test_a_pair_of_data_sets_replaces_that_of_a_subject():
    config = composed("subject=lenet", "generalization=cifar10_cinic10")
    assert (config["model"]["name"], config["data"]["name"]) == ("lenet", "cifar10")
    assert config["data_shifted"]["path"] == "data/cinic10_imagenet.npz"
    assert config["split"] == "test"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_composes_and_instantiates(group, option):
    config = composed(f"{group}={option}", *REQUIRED.get((group, option), []))
    assert config["pipeline"] in PIPELINE_KEYS
    assert isinstance(instantiate(config["train"]), TrainingSettings)
    assert isinstance(instantiate(config["grid"]), Grid)
    if group == "model":
        options = {k: v for k, v in config["model"].items() if k != "name"}
        fitting = {} if option == "custom" else {"input_shape": (3, 32, 32), "num_classes": 7}
        model = instantiate(options, **fitting)
        if option != "custom":
            with torch.no_grad():
                assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    elif group == "direction":
        assert isinstance(instantiate(config[group]), DirectionSource)
    elif group == "normalization":
        order = 1 if option == "filter_l1" else 2
        name = option.removesuffix("_l1")
        assert instantiate(config[group]) == Normalization(name, order)
    elif group == "batchnorm":
        assert instantiate(config[group]) == BatchNormPolicy(option)
    elif group == "data":
        assert callable(get_object(config["data"]["_target_"]))


def test_constructors_are_the_schema():
    assert instantiate(composed()["train"]) == TrainingSettings(momentum=0.0)  # of model=mlp
    assert instantiate(composed("model=cnn")["train"]) == TrainingSettings()
    assert instantiate(composed()["grid"]) == Grid()


@pytest.mark.parametrize("option", [o for g, o in OPTIONS if g == "direction"])
def test_the_axes_of_a_surface_take_every_direction(option):
    axes = [f"{axis}_direction={option}" for axis in "xy"]
    required = REQUIRED.get(("direction", option), [])
    (run,) = plan([*axes, *(f"{axis}_{r}" for axis in "xy" for r in required)])
    config = composed(f"direction={option}", *required)
    assert run.config["x_direction"] == run.config["y_direction"] == config["direction"]


def test_names_that_others_rely_on_are_there():
    config = composed()
    assert config["pipeline"] == "curve"
    assert config["grid"] == {
        "_target_": "mining.evaluation.Grid",
        "low": -1, "high": 1, "num": 41, "y_low": None, "y_high": None, "y_num": None,
        "scale": 1.0,
    }  # fmt: skip
    assert (config["split"], config["num_directions"], config["seed"]) == ("train", 1, 0)
    assert (config["device"], config["precision"]) == ("auto", "fp32")
    assert config["checkpoint"] is None
    assert config["data"]["num_examples"] is None
    assert config["data"]["mean"] is None
    assert config["data"]["std"] is None
    assert config["batchnorm"]["num_examples"] is None


def test_help_names_every_option_with_a_line_on_it():
    text = help_text()
    for group, option in OPTIONS:
        line = next(x for x in text.splitlines() if x.startswith(f"  {option} "))
        assert len(line.split()) > 3, line
        assert f"\n{group}:\n" in text
    axes = ["x_direction", "y_direction"]
    assert f"\ndirection:\n  {' and '.join(axes)}, the axes of pipeline=surface, take" in text
    for key in composed().keys() - axes:
        assert f"\n{key}:" in text


def test_configuration_ships_with_the_package():
    names = {p.name for p in files("mining.conf").iterdir()}
    assert {"config.yaml", "direction", "experiment"} <= names


def test_help_says_where_the_default_run_has_other_values():
    written = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    text, config = help_text(), composed()
    for section in ("train", "descent", "grid", "spectrum", "expansion", "perturbation"):
        for key, value in config[section].items():
            if value != written[section][key]:
                default = next(x for x in text.splitlines() if x.startswith(f"  {key}: "))
                assert f"model=mlp, the default, sets {value}" in default
                assert f"{section}.{key}={value}" in text
    assert config["train"]["momentum"] != written["train"]["momentum"]
