"""Direction sources: random, descent, towards checkpoints, one's own."""

from mining.directions.base import Direction, DirectionSource, cosine
from mining.directions.checkpoint import CheckpointDelta
from mining.directions.eigenvectors import Eigenvectors
from mining.directions.from_file import FromFile
from mining.directions.gaussian import Gaussian
from mining.directions.gradient import Gradient
from mining.directions.overlap import MostOverlapping

__all__ = [
    "CheckpointDelta",
    "Direction",
    "DirectionSource",
    "Eigenvectors",
    "FromFile",
    "Gaussian",
    "Gradient",
    "MostOverlapping",
    "cosine",
]
