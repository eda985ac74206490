"""From settings to device, data and model."""

import functools
import json
import logging

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mining import InputError, ranks
from mining.data import Dataset
from mining.pipelines.settings import Settings
from mining.pipelines.targets import Target

log = logging.getLogger(__name__)

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.float32,
    "tf32": torch.float32,
    "fp64": torch.float64,
}


def find_device(settings: Settings) -> torch.device:
    """Choose the device: auto, cpu or cuda.

    Raises:
        InputError: If cuda is asked for and absent.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda, but no CUDA device is available. Use device=cpu.")
    use_cuda = settings.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def load_data(settings: Settings) -> Dataset:
    """Load the data set onto its device, in the configured precision."""
    group = ranks.current()
    # The first rank may have to download it, or to decode it into a cache.
    dataset = settings.data.make(Dataset) if group.first else None
    group.wait_for_first()
    if dataset is None:
        dataset = settings.data.make(Dataset)
    return dataset.to(find_device(settings), DTYPES[settings.precision])


def build_model(settings: Settings, dataset: Dataset) -> nn.Module:
    """Build the model, initialized from the seed, in float32.

    ``input_shape`` and ``num_classes`` are handed over where the constructor knows them.
    """
    with torch.random.fork_rng(devices=[]):  # initializers draw from the global generator
        torch.manual_seed(settings.seed)
        model = settings.model.without("name").make(
            nn.Module, input_shape=dataset.input_shape, num_classes=dataset.num_classes
        )
    return model.to(find_device(settings))


def has_batch_norm(model: Target) -> bool:
    """Whether a network has layers that ``batchnorm`` acts on.

    It is built once more, a large one without memory for its weights. One that cannot be built
    without its data counts as having some.
    """
    options = {key: value for key, value in model.record().items() if key != "name"}
    return _has_batch_norm(json.dumps(options, sort_keys=True, default=str))


@functools.cache
def _has_batch_norm(options: str) -> bool:
    """Look for batch norm in the model of these options, in JSON."""
    model = Target.read("model", json.loads(options))
    if "weights" in model.options:  # the architecture alone matters: nothing is downloaded
        model = model.with_options(weights=None)
    own = model.name.startswith("mining.models.") and "architecture" not in model.options
    try:
        with torch.device("cpu" if own else "meta"), torch.random.fork_rng(devices=[]):
            module = model.make(nn.Module, input_shape=(3, 32, 32), num_classes=10)
    except Exception as error:  # a model of one's own may do anything
        log.debug("The model could not be built to look for batch norm: %s", error)
        return True
    return any(isinstance(layer, _NormBase) for layer in module.modules())
