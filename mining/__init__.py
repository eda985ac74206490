"""See, mine and explain the loss landscape of deep networks.

The names below are the library's interface; each is imported when it is first used, so that the
command line starts without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mining.batchnorm import BatchNormPolicy as BatchNormPolicy
    from mining.classification import CurveClassifier as CurveClassifier
    from mining.classification import CurveShape as CurveShape
    from mining.classification import classify as classify
    from mining.curves import Curve as Curve
    from mining.curves import Surface as Surface
    from mining.directions import CheckpointDelta as CheckpointDelta
    from mining.directions import Direction as Direction
    from mining.directions import DirectionSource as DirectionSource
    from mining.directions import FromFile as FromFile
    from mining.directions import Gaussian as Gaussian
    from mining.directions import Gradient as Gradient
    from mining.directions import MostOverlapping as MostOverlapping
    from mining.evaluation import Evaluator as Evaluator
    from mining.landscape import Landscape as Landscape
    from mining.normalization import Normalization as Normalization
    from mining.normalization import filter_normalize as filter_normalize
    from mining.normalization import orthogonalize as orthogonalize
    from mining.parameters import ParameterSpace as ParameterSpace
    from mining.plotting import draw_curves as draw_curves
    from mining.plotting import draw_surface as draw_surface
    from mining.runs import load_runs as load_runs

_MODULES = {
    "BatchNormPolicy": "batchnorm",
    "CheckpointDelta": "directions",
    "Curve": "curves",
    "CurveClassifier": "classification",
    "CurveShape": "classification",
    "Direction": "directions",
    "DirectionSource": "directions",
    "Evaluator": "evaluation",
    "FromFile": "directions",
    "Gaussian": "directions",
    "Gradient": "directions",
    "Landscape": "landscape",
    "MostOverlapping": "directions",
    "Normalization": "normalization",
    "ParameterSpace": "parameters",
    "Surface": "curves",
    "classify": "classification",
    "draw_curves": "plotting",
    "draw_surface": "plotting",
    "filter_normalize": "normalization",
    "load_runs": "runs",
    "orthogonalize": "normalization",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mining.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
