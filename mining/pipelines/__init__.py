"""Pipelines: what the command line runs. This module imports nothing heavy."""

_POINT = (
    *("model", "data", "checkpoint", "epoch", "step", "train", "seed", "precision"),
    "regularizer",
)
_LOSS = (
    *(*_POINT, "split", "num_examples", "batchnorm", "batch_size"),
    *("data_shifted", "shift"),
)
_GRID = (*_LOSS, "normalization", "grid", "freeze")
_EVALUATION = (*_GRID, "tolerance")

#: Keys that came later: without a value they leave the name of a run as it was.
OPTIONAL_KEYS = (
    *("step", "tolerance", "refine", "freeze", "update", "data_shifted", "shift"),
    *("monitor", "held_out", "regularizer"),
)

#: Keys that say what to compute through others, or how: they name no runs.
UNNAMED_KEYS = (
    *("pipeline", "experiment", "subject", "generalization", "view", "size", "descent", "hydra"),
    *("device", "num_threads", "compile", "chunk", "outputs", "progress", "picture"),
)

#: The file of a run that is printed on the terminal, when it finishes and when it is skipped.
PAGE = "page.txt"

#: The configuration keys that each pipeline reads: they name its runs.
PIPELINE_KEYS: dict[str, tuple[str, ...]] = {
    "train": ("model", "data", "train", "seed", "monitor", "held_out", "regularizer"),
    "curve": (*_EVALUATION, "direction", "num_directions"),
    "surface": (*_EVALUATION, "x_direction", "y_direction", "orthogonalize", "refine", "update"),
    "spectrum": (*_LOSS, "spectrum"),
    "layers": (*_LOSS, "layers"),
    "class_means": _LOSS,
    "second_order": (*_GRID, "direction", "expansion"),
    "perturbation": (*_LOSS, "perturbation"),
    "power_iteration": (*_LOSS, "power"),
    "assess": (*_LOSS, "assess"),
    "eigenvectors": (*_LOSS, "direction", "num_directions"),
    "mine": (*_POINT, "split", "batchnorm", "batch_size", "direction", "num_directions"),
    "angles": (*_POINT, "num_examples", "batchnorm", "num_directions", "batch_size"),
}
