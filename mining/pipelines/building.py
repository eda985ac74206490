"""From a configuration to device, data and model."""

import functools
import json
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mining import InputError
from mining.data import Dataset
from mining.pipelines.schema import make

Config = Mapping[str, Any]
log = logging.getLogger(__name__)


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
    """Whether the network of a run has layers that ``batchnorm`` acts on.

    It is built once more, a large one without memory for its weights. One that cannot be built
    without its data counts as having some.
    """
    model = {key: value for key, value in config["model"].items() if key != "name"}
    return _has_batch_norm(json.dumps(model, sort_keys=True, default=str))


@functools.cache
def _has_batch_norm(options: str) -> bool:
    """Look for batch norm in the model of these options, in JSON."""
    model = json.loads(options)
    if "weights" in model:
        model["weights"] = None  # the architecture alone matters: nothing is downloaded
    own = model["_target_"].startswith("mining.models.") and "architecture" not in model
    try:
        with torch.device("cpu" if own else "meta"), torch.random.fork_rng(devices=[]):
            module = make("model", model, input_shape=(3, 32, 32), num_classes=10)
    except Exception as error:  # a model of one's own may do anything
        log.debug("The model could not be built to look for batch norm: %s", error)
        return True
    return any(isinstance(layer, _NormBase) for layer in module.modules())
