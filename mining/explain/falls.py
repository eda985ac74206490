"""How far the loss falls from θ on either side of a curve, against its sampling error."""

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mining import InputError
from mining.directions import Direction
from mining.evaluation.curves import Curve
from mining.landscape import Landscape

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Falls:
    """The falls of the loss from θ to the lowest points on its two sides, nats.

    The standard errors are those of the mean over the examples, of which both losses are: nearly
    equal errors of the two cancel. ``None`` where the loss is no mean over independent examples.
    """

    left: float  # 0 if no point on that side is lower than θ
    right: float
    left_error: float | None
    right_error: float | None

    @property
    def height(self) -> float:
        """The height of the peak on which θ lies: the smaller fall; 0 if θ lies on none."""
        return min(self.left, self.right)

    @property
    def height_error(self) -> float | None:
        """The standard error of ``height``."""
        return self.left_error if self.left <= self.right else self.right_error


def measure_falls(landscape: Landscape, direction: Direction, curve: Curve) -> Falls:
    """Measure the falls on both sides of θ.

    Three points are evaluated once more, example by example, unless the curve was estimated from
    samples of the examples and knows its errors.

    Args:
        landscape: Of which the curve is.
        direction: Along which it is.
        curve: Its losses.

    Raises:
        InputError: If α = 0 is not among the points of the curve.
    """
    loss, origin = curve.loss.numpy(), curve.origin
    lowest = [_lowest(loss, 0, origin + 1), _lowest(loss, origin, len(loss))]
    left, right = (float(loss[origin] - loss[i]) for i in lowest)
    if curve.loss_covariance is not None:
        errors = [curve.difference_error(origin, i) for i in lowest]
        return Falls(left, right, *errors)
    points = [[float(curve.alphas[i])] for i in (origin, *lowest)]
    try:
        found = landscape.losses_of_examples([direction.vector], points, landscape.batches)
    except InputError as error:
        log.debug("No sampling error of the falls of %s: %s", curve.name, error)
        return Falls(left, right, None, None)
    of_theta, *others = found[..., 0].cpu().numpy()
    size = math.sqrt(len(of_theta))
    errors = [float((of_theta - other).std(ddof=1)) / size for other in others]
    return Falls(left, right, *errors)


def _lowest(loss: NDArray[np.float64], start: int, stop: int) -> int:
    """Find the lowest finite loss between two points; θ is at one of them."""
    return start + int(np.where(np.isfinite(loss[start:stop]), loss[start:stop], np.inf).argmin())
