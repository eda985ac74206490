"""See, mine and explain the loss landscape of deep networks.

The names below are the library's interface; each is imported when it is first used, so that the
command line starts without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mining.batchnorm import BatchNormPolicy as BatchNormPolicy
    from mining.centre import Centre as Centre
    from mining.centre import classify_centre as classify_centre
    from mining.classification import CurveClassifier as CurveClassifier
    from mining.classification import CurveShape as CurveShape
    from mining.classification import classify as classify
    from mining.curvature import CurvatureOperator as CurvatureOperator
    from mining.curvature import Eigenpairs as Eigenpairs
    from mining.curvature import MatrixOperator as MatrixOperator
    from mining.curvature import SpectralDensity as SpectralDensity
    from mining.curvature import TraceEstimate as TraceEstimate
    from mining.curvature import eigenpairs as eigenpairs
    from mining.curvature import make_dense as make_dense
    from mining.curvature import spectral_density as spectral_density
    from mining.curvature import trace as trace
    from mining.curves import Curve as Curve
    from mining.curves import Surface as Surface
    from mining.directions import CheckpointDelta as CheckpointDelta
    from mining.directions import Descent as Descent
    from mining.directions import Direction as Direction
    from mining.directions import DirectionSource as DirectionSource
    from mining.directions import Eigenvectors as Eigenvectors
    from mining.directions import FromFile as FromFile
    from mining.directions import Gaussian as Gaussian
    from mining.directions import Gradient as Gradient
    from mining.directions import Mined as Mined
    from mining.directions import Miner as Miner
    from mining.directions import MostOverlapping as MostOverlapping
    from mining.directions import Multipoint as Multipoint
    from mining.directions import Xu2024VVVBasin as Xu2024VVVBasin
    from mining.directions import Xu2024WPeak as Xu2024WPeak
    from mining.directions import mine as mine
    from mining.errors import InputError as InputError
    from mining.evaluation import Evaluator as Evaluator
    from mining.forward import ForwardPath as ForwardPath
    from mining.landscape import Landscape as Landscape
    from mining.normalization import Normalization as Normalization
    from mining.normalization import filter_normalize as filter_normalize
    from mining.normalization import orthogonalize as orthogonalize
    from mining.parameters import ParameterSpace as ParameterSpace
    from mining.plotting import draw_curves as draw_curves
    from mining.plotting import draw_surface as draw_surface
    from mining.runs import load_runs as load_runs
    from mining.scaling import stretch as stretch
    from mining.scaling import with_scales as with_scales
    from mining.second_order import Expansions as Expansions
    from mining.second_order import Perturbations as Perturbations
    from mining.second_order import expand as expand
    from mining.second_order import perturb as perturb

_MODULES = {
    "BatchNormPolicy": "batchnorm",
    "Centre": "centre",
    "CheckpointDelta": "directions",
    "Curve": "curves",
    "CurveClassifier": "classification",
    "CurveShape": "classification",
    "Direction": "directions",
    "DirectionSource": "directions",
    "Evaluator": "evaluation",
    "FromFile": "directions",
    "InputError": "errors",
    "ForwardPath": "forward",
    "Gaussian": "directions",
    "Gradient": "directions",
    "Landscape": "landscape",
    "MostOverlapping": "directions",
    "Descent": "directions",
    "Mined": "directions",
    "Miner": "directions",
    "Multipoint": "directions",
    "Xu2024VVVBasin": "directions",
    "Xu2024WPeak": "directions",
    "mine": "directions",
    "Normalization": "normalization",
    "ParameterSpace": "parameters",
    "Surface": "curves",
    "CurvatureOperator": "curvature",
    "Eigenpairs": "curvature",
    "MatrixOperator": "curvature",
    "SpectralDensity": "curvature",
    "TraceEstimate": "curvature",
    "eigenpairs": "curvature",
    "make_dense": "curvature",
    "spectral_density": "curvature",
    "trace": "curvature",
    "Eigenvectors": "directions",
    "Expansions": "second_order",
    "Perturbations": "second_order",
    "expand": "second_order",
    "perturb": "second_order",
    "with_scales": "scaling",
    "stretch": "scaling",
    "classify": "classification",
    "classify_centre": "centre",
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
