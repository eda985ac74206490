"""What pictures call themselves."""

from mining.directions.normalization import Normalization
from mining.functional.batchnorm import BatchNormPolicy
from mining.pipelines.building import has_batch_norm
from mining.pipelines.settings import Settings
from mining.storage.identity import data_name
from mining.training import TrainingSettings

#: What a picture says of the title below.
EPOCH = "E: epoch of θ."


def describe_point(settings: Settings, second: str = "") -> str:
    """Say in a few words which θ and which loss a picture shows.

    Normalization, where it decides the picture, and seed are named unless they are the defaults.

    Args:
        settings: What the pipeline reads.
        second: Where the loss on the second split of ``split=both`` is, if it is anywhere.
    """
    theta = "given checkpoint" if settings.checkpoint else f"E={settings.epoch}"
    if settings.checkpoint is None and settings.epoch is None:
        theta = f"E={settings.train.make(TrainingSettings).epochs}"
    if settings.step is not None:
        theta += f" and {settings.step} steps"
    parts = [theta, "train loss" if settings.split == "both" else f"{settings.split} loss"]
    if settings.split == "both" and second:
        parts[-1] += f" ({second})"
    if settings.data_shifted is not None:
        parts.append(f"on {data_name(settings.data_shifted.record())}")
    if settings.shift is not None:
        parts.append(f"shift: {settings.shift}")
    if has_batch_norm(settings.model):
        parts.append(f"batch norm: {settings.batchnorm.make(BatchNormPolicy).mode}")
    if settings.normalization is not None:
        normalization = settings.normalization.make(Normalization)
        order = "" if normalization.order == 2 else f" (L{normalization.order})"
        parts.append(f"normalization: {normalization.name}{order}")
    if settings.update is not None:
        parts.append(f"update: {settings.update}")
    if settings.freeze is not None:
        given = [settings.freeze] if isinstance(settings.freeze, str) else settings.freeze
        parts.append(f"not moved: {' '.join(given)}")
    return ", ".join([*parts, *name_seed(settings)])


def name_seed(settings: Settings) -> list[str]:
    """Name the seed where it is not the default, for a title."""
    return [f"seed {settings.seed}"] if settings.seed != 0 else []
