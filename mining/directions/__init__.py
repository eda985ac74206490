"""Direction sources: Gaussian, gradient, checkpoints, eigenvectors, files, and mined ones."""

from mining.directions.adam_moments import AdamMoments
from mining.directions.base import Direction, DirectionSource, cosine
from mining.directions.best_of_n_gaussians import BestOfNGaussians
from mining.directions.checkpoint import CheckpointDelta
from mining.directions.eigenvectors import Eigenvectors
from mining.directions.from_file import FromFile
from mining.directions.gaussian import Gaussian
from mining.directions.gradient import Gradient
from mining.directions.mined.miner import Descent, Mined, Miner, mine
from mining.directions.mined.multipoint import Multipoint
from mining.directions.mined.xu2024_vvv_basin import Xu2024VVVBasin
from mining.directions.mined.xu2024_w_peak import Xu2024WPeak
from mining.directions.trajectory_pca import TrajectoryPCA
from mining.directions.uniform import Uniform
from mining.directions.update_rule import AdamRule, UpdateRule

__all__ = [
    "AdamMoments",
    "AdamRule",
    "BestOfNGaussians",
    "CheckpointDelta",
    "Descent",
    "Direction",
    "DirectionSource",
    "Eigenvectors",
    "FromFile",
    "Gaussian",
    "Gradient",
    "Mined",
    "Miner",
    "Multipoint",
    "TrajectoryPCA",
    "Uniform",
    "UpdateRule",
    "Xu2024VVVBasin",
    "Xu2024WPeak",
    "cosine",
    "mine",
]
