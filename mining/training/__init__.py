"""Training of classifiers, with checkpoints."""

from mining.training.augmentation import crop_and_flip
from mining.training.settings import TrainingSettings
from mining.training.trainer import DivergenceError, checkpoint_path, save_initialization, train

__all__ = [
    "DivergenceError",
    "TrainingSettings",
    "checkpoint_path",
    "crop_and_flip",
    "save_initialization",
    "train",
]
