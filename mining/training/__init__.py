"""Training of classifiers, with checkpoints."""

from mining.training.augmentation import crop_and_flip
from mining.training.held_out import HeldOutSettings
from mining.training.hessian_trace import HessianTrace
from mining.training.loop import Callback, DivergenceError, Loop, LossHook
from mining.training.regularizer import HessianTraceSettings, Penalized, Regularizer
from mining.training.settings import TrainingSettings
from mining.training.sharpness_aware import SharpnessAwareSettings
from mining.training.trainer import checkpoint_path, save_model, take_steps, train

__all__ = [
    "Callback",
    "DivergenceError",
    "HeldOutSettings",
    "HessianTrace",
    "HessianTraceSettings",
    "Loop",
    "LossHook",
    "Penalized",
    "Regularizer",
    "SharpnessAwareSettings",
    "TrainingSettings",
    "checkpoint_path",
    "crop_and_flip",
    "save_model",
    "take_steps",
    "train",
]
