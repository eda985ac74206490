"""The labels of curves, and which one follows from the valleys of a curve."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mining.explain.noise import count_turns
from mining.explain.valleys import Array, average, find_barriers, find_rims, find_valleys

#: A curve that turns less often is not chaotic.
_MANY_TURNS = 12


class Shape(StrEnum):
    """The shapes of Xu et al. (2024), Sec. 2, and what else a curve can be.

    Curves of four valleys and more are named by their number: ``4-basin``, ``5-basin``, ….
    """

    V_BASIN = "v-basin"  # one valley, θ at its bottom
    V_SIDE = "v-side"  # one valley, θ on its side
    W_BASIN = "w-basin"  # two valleys, θ at the bottom of one
    W_PEAK = "w-peak"  # θ on the peak between two valleys
    VVV_BASIN = "vvv-basin"  # three valleys
    CHAOTIC = "chaotic"  # far more stationary points than valleys, or turns at every other point
    FLAT = "flat"  # no variation beyond rounding and sampling errors
    EXPLODED = "exploded"  # the loss overflows or leaves its scale
    OTHER = "other"  # two valleys, θ neither at a bottom nor on the peak


@dataclass(frozen=True)
class Line:
    """A curve as it is seen."""

    alphas: Array  # (T,)
    loss: Array  # (T,) clipped
    origin: int  # index of θ
    bounds: Array  # (T, T) of what sampling errors explain of differences

    @property
    def span(self) -> float:
        """The range of the loss."""
        return float(self.loss.max() - self.loss.min())


def name_shape(line: Line, bottoms: list[int], noise: float, slack: float) -> str:
    """Name the shape of a curve that is neither flat nor exploded.

    Curves that turn far more often than they have deep valleys are chaotic, and all others are
    named after the number of their valleys.

    With one valley, θ is on its side if it lies above the bottom by more than ``slack`` of the
    range, by more than three times the noise and by more than 6 % of the lower rim, also when the
    loss is averaged over a twentieth of the window on both sides. With two, θ is at a bottom if
    its loss is in the lowest quarter between bottom and peak, and on the peak if it is in the
    highest. Where θ lies among three valleys or more does not matter.

    Args:
        line: The curve.
        bottoms: Of its valleys, from left to right.
        noise: Its standard deviation, in units of the loss.
        slack: Height of θ above a bottom that does not matter, as a share of the range.
    """
    if _is_chaotic(line, noise):
        return Shape.CHAOTIC
    least = max(slack * line.span, 3 * noise)
    match len(bottoms):
        case 1:
            return _name_one(line, bottoms[0], least)
        case 2:
            return _name_two(line, bottoms, least)
        case 3:
            return Shape.VVV_BASIN
    return f"{len(bottoms)}-basin"


def _is_chaotic(line: Line, noise: float) -> bool:
    """Say whether a curve turns far more often than its deep valleys explain.

    It turns at least twelve times by 4 % of the range and by five times the noise. That is half as
    often again as the valleys deeper than half the range turn alone (2n - 1), or at every other
    point of the grid.
    """
    if np.count_nonzero(np.diff(np.sign(np.diff(line.loss)))) < _MANY_TURNS:
        return False  # of whatever height
    turns = count_turns(line.loss, np.maximum(line.bounds, max(0.04 * line.span, 5 * noise)))
    if turns < _MANY_TURNS:
        return False
    deep = len(find_valleys(line.loss, 0.5 * line.span, line.bounds))
    most = min(1.5 * (2 * deep - 1), (len(line.loss) - 1) / 2)
    return turns > most


def _name_one(line: Line, bottom: int, least: float) -> Shape:
    loss, origin = line.loss, line.origin
    (rim,) = find_rims(loss, [bottom], [])
    smooth = average(line.alphas, loss)
    # The plain loss decides where averaging would blunt a valley with unequal slopes.
    height = min(values[origin] - values.min() for values in (loss, smooth))
    beyond_errors = loss[origin] - loss[bottom] > line.bounds[origin, bottom]
    on_side = height > max(least, 0.06 * (loss[rim] - loss[bottom])) and beyond_errors
    return Shape.V_SIDE if on_side else Shape.V_BASIN


def _name_two(line: Line, bottoms: list[int], least: float) -> Shape:
    loss, origin, bounds = line.loss, line.origin, line.bounds
    (peak,) = find_barriers(loss, bottoms)
    # The valley in which θ lies is the one on its side of the peak.
    bottom = bottoms[0] if origin <= peak else bottoms[1]
    height, below = loss[origin] - loss[bottom], loss[peak] - loss[origin]
    margin = max(least, 0.25 * (loss[peak] - loss[bottom]))
    if height <= min(max(margin, bounds[origin, bottom]), below):
        return Shape.W_BASIN
    if bottoms[0] < origin < bottoms[1] and below <= max(margin, bounds[origin, peak]):
        return Shape.W_PEAK
    return Shape.OTHER
