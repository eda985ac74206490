"""From a configuration to device, data and model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mining.data import Dataset
from mining.errors import InputError
from mining.pipelines.schema import make

Config = Mapping[str, Any]


def find_device(config: Config) -> torch.device:
    """Choose the device of ``config["device"]``: auto, cpu or cuda.

    Raises:
        InputError: If cuda is asked for and absent.
    """
    if config["device"] == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda, but no CUDA device is available. Use device=cpu.")
    use_cuda = config["device"] != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def load_data(config: Config, dtype: torch.dtype = torch.float32) -> Dataset:
    """Load the data set of ``config["data"]`` onto its device."""
    dataset: Dataset = make("data", config["data"], Dataset)
    return dataset.to(find_device(config), dtype)


def build_model(config: Config, dataset: Dataset) -> nn.Module:
    """Build the model of ``config["model"]``, initialized from ``config["seed"]``.

    ``input_shape`` and ``num_classes`` are handed over where the constructor knows them.
    """
    options = {k: v for k, v in config["model"].items() if k != "name"}
    with torch.random.fork_rng(devices=[]):  # initializers draw from the global generator
        torch.manual_seed(config["seed"])
        model: nn.Module = make(
            "model",
            options,
            nn.Module,
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
        )
    return model.to(find_device(config))


def has_batch_norm(config: Config) -> bool:
    """Whether the network of a run has batch norm, by its class and options; one's own may."""
    model = config["model"]
    without = str(model["_target_"]).rpartition(".")[2] in ("MLP", "LeNet")
    return not without and bool(model.get("batch_norm", True))
