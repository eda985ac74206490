"""Critical sharpness: the curvature that a step along an update runs into."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mining import InputError

#: A step is at most this many times as long as the one before, and the first one at most this
#: power of two away from the step that is found.
_GROWTH, _REACH = 16.0, 60
#: The first step, if none is given, lowers the loss to first order by this share of it.
_FIRST_FALL = 0.1


@dataclass(frozen=True)
class CriticalSharpness:
    """The critical step η_c along an update, and the critical sharpness λ_c = 2 / η_c.

    If there is no such step, both are ``None`` and ``why`` gives the reason.
    """

    step: float | None  # η_c, in units of the update
    low: float  # the longest step tried at which the loss does not exceed that of θ
    high: float  # the shortest step tried at which it does; inf: none was found
    rounding: float  # what rounding of the losses changes of ``step``
    passes: int  # evaluations of the loss
    why: str = ""

    @property
    def sharpness(self) -> float | None:
        """λ_c = 2 / η_c, for gradient descent in the units of an eigenvalue of the Hessian."""
        return None if self.step is None else 2 / self.step

    @property
    def error(self) -> float | None:
        """What the search leaves open of the sharpness: its tolerance and the rounding."""
        if self.step is None:
            return None
        return 2 / self.step**2 * math.hypot((self.high - self.low) / 2, self.rounding)


def critical_sharpness(
    loss: Callable[[float], float],
    slope: float,
    *,
    start: float | None = None,
    tolerance: float = 0.01,
    max_passes: int = 60,
    rounding: float = 0.0,
) -> CriticalSharpness:
    """Find the step along an update from which the loss is higher than before the update.

    With the update Δ, the critical step η_c is the smallest η > 0 with L(θ - ηΔ) > L(θ), and the
    critical sharpness is λ_c = 2 / η_c. Kalra et al. (2026), arXiv 2601.16979. On a quadratic loss
    with Hessian H and gradient g it is ΔᵀHΔ / gᵀΔ: the eigenvalue, if Δ = g is an eigenvector.

    The search needs forward passes only: the step is multiplied until the loss exceeds that of θ,
    and then enclosed. It interpolates the mean slope (L(θ - ηΔ) - L(θ)) / η, which is linear in η
    on a quadratic, so that five passes suffice there. Of several intervals in which the loss is
    higher it finds one, which is the first if the steps that are tried do not jump over it.

    Args:
        loss: Maps η to L(θ - ηΔ). A loss that is not finite counts as higher.
        slope: The derivative at η = 0, -gᵀΔ, which is negative along a descent direction.
        start: The first step; ``None`` takes the one that lowers the loss by a tenth to first
            order. A step found before saves passes.
        tolerance: Width of the interval in which η_c lies, relative to η_c.
        max_passes: Most evaluations of the loss.
        rounding: Absolute rounding error of a loss.

    Raises:
        InputError: If an argument is out of its range, or the loss at η = 0 is not finite.
    """
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance must be between 0 and 1, got {tolerance}.")
    if start is not None and not 0 < start < math.inf:
        raise InputError(f"start must be a positive step, got {start}.")
    if max_passes < 2:
        raise InputError(f"max_passes must be at least 2, got {max_passes}.")
    at_theta = loss(0.0)
    if not math.isfinite(at_theta):
        raise InputError(f"The loss at theta is {at_theta}: no step can raise it.")
    if not slope < 0:
        why = f"The loss does not fall along the update: its slope at theta is {slope:.3g}."
        return CriticalSharpness(None, 0.0, math.inf, 0.0, 1, why)
    search = _Search(slope, tolerance)
    step = start or _FIRST_FALL * (abs(at_theta) or 1.0) / -slope
    passes, first = 1, step
    while passes < max_passes:
        rise = loss(step) - at_theta
        passes += 1
        search.add(step, rise)
        if search.done or not first * 2.0**-_REACH < search.next() < first * 2.0**_REACH:
            break
        step = search.next()
    low, high = search.low, search.high
    if search.done:
        found = search.root()
        # On a quadratic the loss crosses that of θ with minus the slope at θ.
        return CriticalSharpness(found, low, high, rounding / -slope, passes)
    why = f"Not enclosed in {passes} evaluations: the loss is higher from between {low:.3g} and "
    why += f"{high:.3g} on."
    if high == math.inf:
        why = f"The loss does not rise above that of theta up to a step of {low:.3g}."
    elif low == 0:
        why = f"The loss is higher at every step that was tried, down to {high:.3g}."
    return CriticalSharpness(None, low, high, 0.0, passes, why)


class _Search:
    """Encloses the step at which the mean slope changes its sign.

    Args:
        slope: At step 0, negative.
        tolerance: Relative width at which to stop.
    """

    def __init__(self, slope: float, tolerance: float) -> None:
        self._tolerance = tolerance
        self.low, self.high = 0.0, math.inf
        self._at_low, self._at_high = slope, math.inf  # mean slopes
        self._before_low: tuple[float, float] | None = None
        self._same_side = 0  # how often in a row one end has moved

    @property
    def done(self) -> bool:
        return self.low > 0 and self.high <= self.low * (1 + self._tolerance)

    def add(self, step: float, rise: float) -> None:
        """Take the rise of the loss at a step between the two ends."""
        mean = rise / step if math.isfinite(rise) else math.inf
        if mean <= 0:
            self._before_low = (self.low, self._at_low)
            self.low, self._at_low = step, mean
            self._same_side = max(1, self._same_side + 1)
        else:
            self.high, self._at_high = step, mean
            self._same_side = min(-1, self._same_side - 1)

    def root(self) -> float:
        """Interpolate, or extrapolate, the mean slope to its zero; ``nan`` where it has none."""
        points = [(self.low, self._at_low), (self.high, self._at_high)]
        if self.high == math.inf:
            if self._before_low is None:
                return math.nan
            points = [self._before_low, points[0]]
        (left, at_left), (right, at_right) = points
        if not math.isfinite(at_right):
            return (left + right) / 2
        if at_right == at_left:
            return math.nan
        return left - at_left * (right - left) / (at_right - at_left)

    def next(self) -> float:
        """Choose the next step to try."""
        if self.high == math.inf:
            guess = self.root() * (1 + self._tolerance / 3)
            most = _GROWTH * self.low
            return min(guess, most) if guess > self.low else most
        if abs(self._same_side) > 2 or not math.isfinite(self._at_high):
            # One end stands still: halve the interval.
            return math.sqrt(self.low * self.high) if self.low > 0 else self.high / 4
        guess, shift = self.root(), self._tolerance / 3
        # Beside the guess, towards the end that is further away, so that both ends move.
        near_high = self.high <= guess * (1 + self._tolerance)
        step = guess * (1 - shift if near_high else 1 + shift)
        inside = self.low < step < self.high
        return step if inside else (self.low + self.high) / 2
