"""A measured number with the parts of its error, so that two of them can be compared."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mining.explain.measurement import Measurement


@dataclass(frozen=True, eq=False)
class Quantity:
    """A number, its sampling error and the rest of its error.

    The sampling error is kept as a vector whose norm it is: of two quantities measured on the
    same examples with the same random numbers, the norm of the difference of the vectors is the
    sampling error of the difference. The rest is independent of the other quantity.
    """

    value: float | None  # None: there is no such number, because of why
    sampling: Tensor | None = None  # (M,) float64; its norm is the standard error
    rest: float = 0.0  # residuals, the width of brackets, the tolerance of a search
    applies: bool = True
    why: str = ""
    interval: tuple[float, float] | None = None  # 95 %, where it is not that of the error

    @property
    def error(self) -> float | None:
        """The standard error, with the rest added in quadrature; ``None`` if it is unknown."""
        if self.value is None or self.sampling is None:
            return None
        return math.hypot(float(self.sampling.norm()), self.rest)

    @property
    def measurement(self) -> Measurement:
        """The number as it is reported."""
        return Measurement(self.value, self.error, self.applies, self.why)

    @classmethod
    def missing(cls, why: str) -> "Quantity":
        """Make a quantity without a value."""
        return cls(None, applies=False, why=why)

    @classmethod
    def of(cls, measurement: Measurement) -> "Quantity":
        """Take a measurement of which only the error is known, which counts as independent."""
        sampling = None if measurement.error is None else torch.zeros(1, dtype=torch.float64)
        rest = measurement.error or 0.0
        return cls(measurement.value, sampling, rest, measurement.applies, measurement.why)


@dataclass(frozen=True)
class Difference:
    """How a quantity of a second network differs from that of a first one, on the same examples."""

    value: float | None  # second minus first; None if one of them is missing
    error: float | None  # standard error of the paired difference; None: not known

    @property
    def interval(self) -> tuple[float, float] | None:
        """The normal 95 % interval."""
        if self.value is None or self.error is None:
            return None
        return self.value - 1.96 * self.error, self.value + 1.96 * self.error

    def record(self) -> dict[str, Any]:
        """Return what goes into ``run.json``."""
        ends = None if self.interval is None else list(self.interval)
        found = {"value": self.value, "error": self.error, "interval": ends}
        return {**found, "is_clear": self.is_clear}

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def difference(first: Quantity, second: Quantity) -> Difference:
    """Subtract the first from the second; their sampling errors are paired if they can be."""
    if first.value is None or second.value is None:
        return Difference(None, None)
    value = second.value - first.value
    if first.sampling is None or second.sampling is None:
        return Difference(value, None)
    if len(first.sampling) == len(second.sampling):
        sampling = float((second.sampling - first.sampling).norm())
    else:
        sampling = math.hypot(float(first.sampling.norm()), float(second.sampling.norm()))
    return Difference(value, math.hypot(sampling, first.rest, second.rest))
