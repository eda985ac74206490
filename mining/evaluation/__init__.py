"""Curves and surfaces: a landscape evaluated over grids."""

from mining.evaluation.curves import Curve, Surface
from mining.evaluation.evaluator import Evaluator
from mining.evaluation.grid import Grid

__all__ = ["Curve", "Evaluator", "Grid", "Surface"]
