"""Pipelines: what the command line runs. This module imports nothing heavy."""

_POINT = ("model", "data", "checkpoint", "epoch", "train", "seed", "precision")
_EVALUATION = (*_POINT, "split", "normalization", "batchnorm", "grid", "batch_size")

#: The configuration keys that each pipeline reads: they name its runs.
PIPELINE_KEYS: dict[str, tuple[str, ...]] = {
    "train": ("model", "data", "train", "seed"),
    "curve": (*_EVALUATION, "direction", "num_directions"),
    "surface": (*_EVALUATION, "x_direction", "y_direction", "orthogonalize"),
    "angles": (*_POINT, "batchnorm", "num_directions", "batch_size"),
}
