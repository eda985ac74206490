"""See, mine and explain the loss landscape of deep networks.

The names below are the public interface. Each is imported when it is first used, so that the
command line starts without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


class InputError(ValueError):
    """Raised if an argument, a file, a model or its data are invalid.

    The message names the argument, what was expected, what was given and, if there is one, the
    remedy. The command line prints only this message. Every other exception is a fault of the
    program and is reported with its traceback.
    """


if TYPE_CHECKING:
    from mining.app.reports import report as report
    from mining.curvature import CurvatureOperator as CurvatureOperator
    from mining.curvature import Eigenpairs as Eigenpairs
    from mining.curvature import MatrixOperator as MatrixOperator
    from mining.curvature import SpectralDensity as SpectralDensity
    from mining.curvature import TraceEstimate as TraceEstimate
    from mining.curvature import eigenpairs as eigenpairs
    from mining.curvature import make_dense as make_dense
    from mining.curvature import spectral_density as spectral_density
    from mining.curvature.critical_sharpness import CriticalSharpness as CriticalSharpness
    from mining.curvature.critical_sharpness import critical_sharpness as critical_sharpness
    from mining.curvature.gradient_noise import GradientNoise as GradientNoise
    from mining.curvature.gradient_noise import gradient_noise as gradient_noise
    from mining.curvature.sample_size import sample_size as sample_size
    from mining.curvature.trace import trace as trace
    from mining.directions import AdamMoments as AdamMoments
    from mining.directions import AdamRule as AdamRule
    from mining.directions import BestOfNGaussians as BestOfNGaussians
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
    from mining.directions import Multipoint as Multipoint
    from mining.directions import TrajectoryPCA as TrajectoryPCA
    from mining.directions import Uniform as Uniform
    from mining.directions import UpdateRule as UpdateRule
    from mining.directions import Xu2024VVVBasin as Xu2024VVVBasin
    from mining.directions import Xu2024WPeak as Xu2024WPeak
    from mining.directions import mine as mine
    from mining.directions.normalization import Normalization as Normalization
    from mining.directions.normalization import filter_normalize as filter_normalize
    from mining.directions.normalization import orthogonalize as orthogonalize
    from mining.directions.scaling import stretch as stretch
    from mining.directions.scaling import with_scales as with_scales
    from mining.evaluation.curves import Curve as Curve
    from mining.evaluation.curves import Surface as Surface
    from mining.evaluation.evaluator import Evaluator as Evaluator
    from mining.evaluation.paths import with_path as with_path
    from mining.explain.adaptive_sharpness import AdaptiveSharpness as AdaptiveSharpness
    from mining.explain.adaptive_sharpness import adaptive_sharpness as adaptive_sharpness
    from mining.explain.assess import Assessment as Assessment
    from mining.explain.assess import assess as assess
    from mining.explain.assess import compare as compare
    from mining.explain.assessment_settings import AssessmentSettings as AssessmentSettings
    from mining.explain.basins import Basin as Basin
    from mining.explain.basins import find_basins as find_basins
    from mining.explain.basins import find_basins_of_points as find_basins_of_points
    from mining.explain.calibration import Calibration as Calibration
    from mining.explain.calibration import calibration_error as calibration_error
    from mining.explain.criteria_over_batches import criteria_over_batches as criteria_over_batches
    from mining.explain.critical_point import CriticalPoint as CriticalPoint
    from mining.explain.critical_point import classify_critical_point as classify_critical_point
    from mining.explain.curve_shape import CurveClassifier as CurveClassifier
    from mining.explain.curve_shape import CurveShape as CurveShape
    from mining.explain.curve_shape import classify as classify
    from mining.explain.explosion import Explosion as Explosion
    from mining.explain.explosion import Overflow as Overflow
    from mining.explain.explosion import find_explosion as find_explosion
    from mining.explain.explosion import find_overflow as find_overflow
    from mining.explain.first_look import SampledCurvature as SampledCurvature
    from mining.explain.first_look import sampled_curvature as sampled_curvature
    from mining.explain.measurement import Measurement as Measurement
    from mining.explain.second_order import Expansions as Expansions
    from mining.explain.second_order import Perturbations as Perturbations
    from mining.explain.second_order import expand as expand
    from mining.explain.second_order import perturb as perturb
    from mining.explain.spectral_criteria import SpectralCriteria as SpectralCriteria
    from mining.explain.spectral_criteria import SpectrumType as SpectrumType
    from mining.explain.spectral_criteria import k_as_printed as k_as_printed
    from mining.explain.spectral_criteria import k_hn as k_hn
    from mining.explain.spectral_criteria import k_of_eigenvalues as k_of_eigenvalues
    from mining.explain.spectral_criteria import spectral_criteria as spectral_criteria
    from mining.functional.batchnorm import BatchNormPolicy as BatchNormPolicy
    from mining.functional.execution_plan import ExecutionPlan as ExecutionPlan
    from mining.functional.parameters import ParameterSpace as ParameterSpace
    from mining.landscape import Landscape as Landscape
    from mining.monitoring import Monitor as Monitor
    from mining.plotting import draw_curves as draw_curves
    from mining.plotting import draw_surface as draw_surface
    from mining.plotting.latex import latex_table as latex_table
    from mining.plotting.meshes import export_surface as export_surface
    from mining.ranks import distributed as distributed
    from mining.storage.table import load_runs as load_runs
    from mining.training.hessian_trace import HessianTrace as HessianTrace

_MODULES = {
    "report": "app.reports",
    "AdaptiveSharpness": "explain.adaptive_sharpness",
    "adaptive_sharpness": "explain.adaptive_sharpness",
    "Assessment": "explain.assess",
    "AssessmentSettings": "explain.assessment_settings",
    "assess": "explain.assess",
    "compare": "explain.assess",
    "Basin": "explain.basins",
    "find_basins": "explain.basins",
    "find_basins_of_points": "explain.basins",
    "Calibration": "explain.calibration",
    "calibration_error": "explain.calibration",
    "CriticalSharpness": "curvature.critical_sharpness",
    "critical_sharpness": "curvature.critical_sharpness",
    "GradientNoise": "curvature.gradient_noise",
    "gradient_noise": "curvature.gradient_noise",
    "AdamMoments": "directions",
    "AdamRule": "directions",
    "BatchNormPolicy": "functional.batchnorm",
    "BestOfNGaussians": "directions",
    "CheckpointDelta": "directions",
    "CriticalPoint": "explain.critical_point",
    "Curve": "evaluation.curves",
    "CurveClassifier": "explain.curve_shape",
    "CurveShape": "explain.curve_shape",
    "Direction": "directions",
    "DirectionSource": "directions",
    "Evaluator": "evaluation.evaluator",
    "Explosion": "explain.explosion",
    "find_explosion": "explain.explosion",
    "find_overflow": "explain.explosion",
    "FromFile": "directions",
    "Overflow": "explain.explosion",
    "ExecutionPlan": "functional.execution_plan",
    "Gaussian": "directions",
    "Gradient": "directions",
    "HessianTrace": "training.hessian_trace",
    "Landscape": "landscape",
    "Descent": "directions",
    "Mined": "directions",
    "Miner": "directions",
    "Multipoint": "directions",
    "TrajectoryPCA": "directions",
    "Uniform": "directions",
    "UpdateRule": "directions",
    "Xu2024VVVBasin": "directions",
    "Xu2024WPeak": "directions",
    "mine": "directions",
    "Monitor": "monitoring",
    "Normalization": "directions.normalization",
    "ParameterSpace": "functional.parameters",
    "Surface": "evaluation.curves",
    "CurvatureOperator": "curvature",
    "Eigenpairs": "curvature",
    "MatrixOperator": "curvature",
    "SpectralDensity": "curvature",
    "TraceEstimate": "curvature",
    "eigenpairs": "curvature",
    "make_dense": "curvature",
    "spectral_density": "curvature",
    "distributed": "ranks",
    "sample_size": "curvature.sample_size",
    "trace": "curvature",
    "Eigenvectors": "directions",
    "Expansions": "explain.second_order",
    "Perturbations": "explain.second_order",
    "expand": "explain.second_order",
    "perturb": "explain.second_order",
    "with_path": "evaluation.paths",
    "Measurement": "explain.measurement",
    "SampledCurvature": "explain.first_look",
    "sampled_curvature": "explain.first_look",
    "SpectralCriteria": "explain.spectral_criteria",
    "SpectrumType": "explain.spectral_criteria",
    "criteria_over_batches": "explain.criteria_over_batches",
    "k_as_printed": "explain.spectral_criteria",
    "k_hn": "explain.spectral_criteria",
    "k_of_eigenvalues": "explain.spectral_criteria",
    "spectral_criteria": "explain.spectral_criteria",
    "with_scales": "directions.scaling",
    "stretch": "directions.scaling",
    "classify": "explain.curve_shape",
    "classify_critical_point": "explain.critical_point",
    "draw_curves": "plotting",
    "draw_surface": "plotting",
    "export_surface": "plotting.meshes",
    "latex_table": "plotting.latex",
    "filter_normalize": "directions.normalization",
    "load_runs": "storage.table",
    "orthogonalize": "directions.normalization",
}

__all__ = ["InputError", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mining.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
