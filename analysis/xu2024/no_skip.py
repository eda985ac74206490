"""Numbers of Fig. 3 of Xu et al. (2024): networks without skip connections."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.archive import Record
from analysis.xu2024.quantities import Records, at, mean, share
from mining.evaluation.curves import Curve
from mining.explain.curve_shape import find_stationary_points

Array = NDArray[np.float64]


def within(records: Records, reach: float, mode: str) -> list[Record]:
    """Choose curves around the last checkpoint within ±reach under a batch-norm policy."""
    return [
        record
        for record in at(records, 200)
        if record.pipeline == "curve"
        and record.config["grid"]["high"] == reach
        and record.config["batchnorm"]["mode"] == mode
    ]


def explosion(records: Records) -> float | None:
    """Return log10 of the largest finite loss within ±1 with frozen batch norm."""
    losses = [curve.loss for record in within(records, 1.0, "frozen") for curve in record.curves]
    found = [float(loss[loss.isfinite()].max()) for loss in losses if loss.isfinite().any()]
    return math.log10(max(found)) if found else None


def stationary_heights(curve: Curve) -> Array:
    """Return the losses at the stationary points of a curve, as the paper counts them."""
    heights: Array = curve.loss[find_stationary_points(curve.loss)].numpy()
    return heights


def chaos_above_chance(mode: str) -> Callable[[Records], float | None]:
    """Share above log C of the stationary points within ±1, θ itself left out."""

    def quantity(records: Records) -> float | None:
        above = []
        for record in within(records, 1.0, mode):
            for curve in record.curves:
                theta = float(curve.loss[curve.origin])
                heights = [h for h in stationary_heights(curve).tolist() if h != theta]
                above += [height > (curve.chance_loss or math.inf) for height in heights]
        return share(above)

    return quantity


def smoother_far_away(mode: str) -> Callable[[Records], float | None]:
    """Stationary points per curve within ±4 less those within ±1."""

    def quantity(records: Records) -> float | None:
        numbers = [
            mean(len(stationary_heights(c)) for r in within(records, reach, mode) for c in r.curves)
            for reach in (4.0, 1.0)
        ]
        return None if numbers[0] is None or numbers[1] is None else numbers[0] - numbers[1]

    return quantity
