"""What a run records of value explosion."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from mining.directions.base import as_normalization
from mining.evaluation.curves import Curve, Surface
from mining.explain.explosion import find_explosion, find_overflow
from mining.functional.activations import Activation
from mining.pipelines.problem import Problem
from mining.pipelines.targets import Target

log = logging.getLogger(__name__)


class Explosions:
    """Finds where curves or surfaces of a run explode, and in which module.

    Args:
        problem: The run.
        target: The source of the direction, or of the first one.
    """

    def __init__(self, problem: Problem, target: Target) -> None:
        self._landscape = problem.landscape
        normalization = problem.source(target).normalization
        self._about = {
            "policy": problem.batchnorm.mode,
            "normalization": None if normalization is None else _name(normalization),
        }
        self._reference = cache(self._measure)

    def describe(self, found: Curve | Surface, name: str, point: Any) -> dict[str, object]:
        """Describe the explosion of a curve or surface for the record of the run.

        Args:
            found: The curve or surface.
            name: Of its directions, for the log.
            point: Maps coefficients to the point of parameter space, shape ``(D,)``.
        """
        explosion = find_explosion(found)
        record: dict[str, object] = {**asdict(explosion), **self._about, "overflow": None}
        if explosion.at is not None:
            overflow = find_overflow(
                self._landscape, point(explosion.at), reference=self._reference()
            )
            record["overflow"] = asdict(overflow)
            where = overflow.module or f"no module ({overflow.largest_module} most)"
            log.info(
                "%s: the loss is %.3g at a distance of %.3g, beyond %s; outputs grow %g-fold first "
                "in %s.",
                name,
                explosion.loss,
                explosion.start,
                "what is finite" if explosion.bound is None else f"{explosion.bound:.3g}",
                overflow.factor,
                where,
            )
        return record

    def _measure(self) -> Mapping[str, Activation]:
        return self._landscape.activations(self._landscape.theta)


def _name(normalization: Any) -> str:
    found = as_normalization(normalization)
    return found.name if found.order == 2 else f"{found.name} (L{found.order})"
