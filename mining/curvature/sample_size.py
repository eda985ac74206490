"""How many random vectors the trace needs for an error at a confidence."""

import math
from typing import Literal, get_args

from scipy.stats import norm

from mining import InputError

Bound = Literal["chebyshev", "normal", "alabdulkareem2022"]


def sample_size(
    standard_deviation: float,
    trace: float,
    *,
    relative_error: float = 0.1,
    absolute_error: float = 0.0,
    confidence: float = 0.95,
    bound: Bound = "chebyshev",
) -> int:
    """Give the number of random vectors v whose mean of vᵀHv is close to the trace.

    With the standard deviation σ of vᵀHv, the error e = max(``relative_error`` |tr H|,
    ``absolute_error``) and the confidence 1 - δ, the number n is at least

    - ``chebyshev``: σ² / (δ e²). Chebyshev's inequality for the mean, whose variance is σ² / n.
      It holds for samples of any distribution.
    - ``normal``: (z σ / e)², with the quantile z of the normal distribution at 1 - δ/2. It holds
      approximately where n is large enough for the mean to be normal.
    - ``alabdulkareem2022``: σ / (√δ e), as Eqs. 3 and 16 of Alabdulkareem (2022) print it.
      It is the root of ``chebyshev``, because Eq. 15 gives the variance of the mean as σ² / n².
      It does not ensure the confidence unless n is 1.

    Gaussian vectors have σ² = 2 ‖H‖²; for those of ±1 the squares of the diagonal are left out of
    ‖H‖². If σ and the trace are estimated, so is the number.

    Args:
        standard_deviation: σ, of single samples: ``TraceEstimate.samples.std()``.
        trace: tr H, or an estimate of it.
        relative_error: Largest error, as a fraction of the trace.
        absolute_error: Largest error in units of the trace, if that is larger.
        confidence: Probability 1 - δ with which the error is not exceeded, between 0 and 1.
        bound: One of the three.

    Returns:
        The smallest whole number that satisfies the bound, at least 1.

    Raises:
        InputError: If an argument is out of its range, or no error is allowed.
    """
    if bound not in get_args(Bound):
        raise InputError(f"bound must be one of {get_args(Bound)}, got {bound!r}.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, got {confidence}.")
    for name, value in (
        ("standard_deviation", standard_deviation),
        ("relative_error", relative_error),
        ("absolute_error", absolute_error),
    ):
        if not 0 <= value < math.inf:
            raise InputError(f"{name} must be finite and not negative, got {value}.")
    if not math.isfinite(trace):
        raise InputError(f"trace must be finite, got {trace}.")
    if standard_deviation == 0:
        return 1
    error = max(relative_error * abs(trace), absolute_error)
    if error == 0:
        raise InputError(
            f"No error is allowed with relative_error={relative_error} of the trace {trace} and "
            f"absolute_error={absolute_error}: give a positive absolute_error."
        )
    ratio, delta = standard_deviation / error, 1 - confidence
    needed = {
        "chebyshev": ratio**2 / delta,
        "normal": (ratio * float(norm.isf(delta / 2))) ** 2,
        "alabdulkareem2022": ratio / math.sqrt(delta),
    }[bound]
    return max(1, math.ceil(needed * (1 - 1e-12)))  # not one more for the rounding of 1 - 0.95
