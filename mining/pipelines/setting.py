"""From a configuration to a landscape."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mining import InputError
from mining.data import Dataset, Split
from mining.directions import Direction
from mining.directions.base import Scale
from mining.directions.scaling import stretch, with_scales
from mining.directions.storage import load_directions, read_directions, save_directions
from mining.functional.batchnorm import BatchNormPolicy, norm_layers
from mining.landscape import Landscape
from mining.pipelines import PIPELINE_KEYS
from mining.pipelines.building import Config, build_model, has_batch_norm, load_data
from mining.pipelines.schema import make
from mining.pipelines.train import find_checkpoint
from mining.storage.checkpoints import load_weights
from mining.storage.files import drop_if_damaged

log = logging.getLogger(__name__)

_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.float32,
    "tf32": torch.float32,
    "fp64": torch.float64,
}


@dataclass(frozen=True)
class Setting:
    """What the pipelines that look at a landscape work on."""

    dataset: Dataset
    landscape: Landscape
    test: list[tuple[Tensor, Tensor]] | None  # the second split of split=both
    generator: torch.Generator
    num_recalibrating: int | None  # training examples that re-estimate batch norm, if any do

    def record(self) -> dict[str, Any]:
        """Describe the landscape for the record of a run."""
        num = self.num_recalibrating
        return {
            "num_parameters": self.landscape.space.size,
            "num_examples": self.landscape.num_examples,
            "recalibration": None if num is None else {"split": "train", "num_examples": num},
            "landscape": self.landscape.describe(),
        }


def build_setting(config: Config) -> Setting:
    """Load data and checkpoint and make the landscape.

    Raises:
        InputError: If a value is out of its range, or model, weights and data do not fit.
    """
    if config["checkpoint"] is not None and config["epoch"] is not None:
        raise InputError("epoch is that of a training: leave it out with checkpoint=FILE.")
    if config["checkpoint"] is not None and not Path(config["checkpoint"]).is_file():
        raise FileNotFoundError(f"checkpoint: no file {config['checkpoint']}.")
    dtype = _DTYPES[config["precision"]]
    dataset = load_data(config, dtype)
    model = build_model(config, dataset)
    load_weights(
        model,
        Path(config["checkpoint"])
        if config["checkpoint"] is not None
        else find_checkpoint(config, epoch=config["epoch"]),
    )
    model.to(dtype)
    policy: BatchNormPolicy = make("batchnorm", config["batchnorm"], BatchNormPolicy)
    main: Literal["train", "test"] = "test" if config["split"] == "test" else "train"
    evaluated = _chosen(dataset, main, config["num_examples"])
    statistics = recalibration = None
    if policy.mode == "recalibrate" and norm_layers(model):
        statistics = _recalibrating(dataset, policy)
        # Both subsets are drawn alike: equally many training examples are the same ones.
        if main == "test" or len(statistics) != len(evaluated):
            recalibration = statistics.batches(config["batch_size"])
        if len(statistics) > 2 * len(evaluated):
            log.info(
                "Batch norm is recalibrated on %d training examples at every point, and the loss "
                "evaluated on %d: batchnorm.num_examples=%d is faster.",
                len(statistics),
                len(evaluated),
                len(evaluated),
            )
    landscape = Landscape(
        model,
        nn.CrossEntropyLoss(),
        evaluated.batches(config["batch_size"]),
        batchnorm=policy,
        recalibration=recalibration,
        autocast=torch.bfloat16 if config["precision"] == "bf16" else None,
        tf32=config["precision"] == "tf32",
        compile=config["compile"],
    )
    test = None
    if config["split"] == "both":
        test = _chosen(dataset, "test", config["num_examples"]).batches(config["batch_size"])
    generator = torch.Generator().manual_seed(config["seed"])
    num = None if statistics is None else len(statistics)
    return Setting(dataset, landscape, test, generator, num)


def _recalibrating(dataset: Dataset, policy: BatchNormPolicy) -> Split:
    """Take the examples that re-estimate batch norm, whatever is evaluated."""
    if dataset.train is None:
        raise InputError(
            f"{dataset.name} has no training images to recalibrate batch norm on: use "
            "batchnorm=frozen."
        )
    return _chosen(dataset, "train", policy.num_examples)


def _chosen(dataset: Dataset, split: Literal["train", "test"], num_examples: int | None) -> Split:
    """Take ``num_examples`` of a split, the same ones in every run."""
    examples = dataset.split(split)
    if num_examples is None:
        return examples
    return examples.subset(num_examples, torch.Generator().manual_seed(0))


def take_directions(
    directory: Path, landscape: Landscape, scale: Scale, make_them: Callable[[], list[Direction]]
) -> list[Direction]:
    """Take the directions that an interrupted run had, or make and store them.

    Args:
        directory: Of the run.
        landscape: Where they start.
        scale: The grid's, which is kept with them.
        make_them: Gives them anew.

    Returns:
        The directions, each as long as it is to be followed.
    """
    stored = directory / "directions.pt"
    drop_if_damaged(stored, read_directions)
    if not stored.exists():
        save_directions(stored, with_scales(landscape, make_them(), scale), landscape)
    return [stretch(direction) for direction in load_directions(stored, landscape)]


def describe_point(config: Config, second: str = "") -> str:
    """Say in a few words which θ and which loss a picture shows.

    Normalization, where it decides the picture, and seed are named unless they are the defaults.

    Args:
        config: Of the run.
        second: Where the loss on the second split of ``split=both`` is, if it is anywhere.
    """
    theta = "given checkpoint" if config["checkpoint"] else f"E={config['epoch']}"
    if config["checkpoint"] is None and config["epoch"] is None:
        theta = f"E={config['train']['epochs']}"
    parts = [theta, "train loss" if config["split"] == "both" else f"{config['split']} loss"]
    if config["split"] == "both" and second:
        parts[-1] += f" ({second})"
    if has_batch_norm(config):
        parts.append(f"batch norm: {config['batchnorm']['mode']}")
    normalization = config.get("normalization")
    if normalization is not None and "normalization" in PIPELINE_KEYS[config["pipeline"]]:
        order = "" if normalization.get("order", 2) == 2 else f" (L{normalization['order']})"
        parts.append(f"normalization: {normalization['name']}{order}")
    return ", ".join([*parts, *name_seed(config)])


def name_seed(config: Config) -> list[str]:
    """Name the seed where it is not the default, for a title."""
    return [f"seed {config['seed']}"] if config["seed"] != 0 else []
