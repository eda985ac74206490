"""Criteria that compare the negative part of a Hessian's spectrum with the positive one.

Gabdullin (2024), Investigating generalization capabilities of neural networks by means of loss
landscapes and Hessian analysis, Sec. 3.3; and the type of spectrum of his later paper, The effects
of Hessian eigenvalue spectral density type (2025, arXiv 2504.17618).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple

from torch import Tensor

from mining import InputError
from mining.curvature import SpectralDensity
from mining.explain.measurement import Measurement

#: C_t below which a spectrum is no longer mainly positive: the threshold of the author's library
#: as of December 2025. A spectrum whose mirror image is mainly positive is mainly negative.
MAINLY_POSITIVE = -0.6


class SpectrumType(StrEnum):
    """What a spectrum consists of; ``spectral_criteria`` defines each."""

    MAINLY_POSITIVE = "mainly positive"
    SYMMETRIC = "symmetric"
    MAINLY_NEGATIVE = "mainly negative"
    QUASI_SINGULAR = "quasi-singular"


#: Why r_e and K do not say what they are taken to say.
_UNFIT = {
    SpectrumType.MAINLY_NEGATIVE: (
        "the spectrum is mainly negative, for which the criteria are not meant"
    ),
    SpectrumType.QUASI_SINGULAR: (
        "the spectrum is quasi-singular: eigenvalues that are zero up to rounding could outweigh "
        "all others; compute in float64"
    ),
}
_NO_POSITIVE = "no eigenvalue is positive beyond rounding"
_ALL_ZERO = "every eigenvalue is zero up to rounding"


@dataclass(frozen=True)
class SpectralCriteria:
    """The criteria of one spectrum. The error of each is a standard error; see ``docs``."""

    r_e: Measurement  # |λmin| / λmax
    k_h05: Measurement  # K_Hn for n = 0.5
    k_h1: Measurement  # for n = 1
    c_t: Measurement  # λmin / λmax
    negative_share: Measurement  # Σ |λ| of the negative eigenvalues / Σ |λ| of all
    k_h05_printed: Measurement  # as the paper prints it; see k_as_printed
    k_h1_printed: Measurement
    spectrum: SpectrumType

    def record(self) -> dict[str, Any]:
        """Return what goes into ``run.json``, by name."""
        measured = {name: value.record() for name, value in self.measurements().items()}
        return {**measured, "spectrum_type": self.spectrum.value}

    def measurements(self) -> dict[str, Measurement]:
        """Return the measurements by name."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: of for name, of in known.items() if isinstance(of, Measurement)}


def spectral_criteria(
    density: SpectralDensity, eigenvalues: Tensor | None = None, residuals: Tensor | None = None
) -> SpectralCriteria:
    """Compute r_e, K_H0.5, K_H1 and C_t of a spectrum, with their errors.

    - C_t = λmin / λmax; r_e = |λmin| / λmax, or 0 if no eigenvalue is negative (Eq. 2).
    - K_Hn as ``k_hn`` defines it (Eq. 3).
    - The type of the spectrum: *mainly positive* if C_t ≥ -0.6, *mainly negative* if λmax/λmin
      > -0.6 or no eigenvalue is positive, *symmetric* in between; but *quasi-singular* if the
      eigenvalues within the rounding error r of zero, a share s of all, could outweigh the rest in
      K_H0.5: s √r ≥ ∫_{|λ|>r} √|λ| ρ. The first threshold is that of the author's library (which
      calls everything below it mainly negative, so that untrained networks are). The definition of
      quasi-singular is ours: that of the paper was not available to us.

    r_e and K do not apply to mainly negative and quasi-singular spectra. Where they apply, a low
    value means that hardly any direction leads down from θ: it says nothing about a test set.

    Args:
        density: The spectral density of the Hessian.
        eigenvalues: Eigenvalues at one or both ends, as ``eigenpairs`` finds them, shape ``(k,)``.
            Without them, λmin and λmax are the extreme nodes of the density, which lie inside the
            spectrum: the error is then how far they differ between random vectors, or from those
            of a quarter fewer steps if that is more.
        residuals: ‖Hv - λv‖ of each, shape ``(k,)``, which bounds its error.

    Raises:
        InputError: If only one of ``eigenvalues`` and ``residuals`` is given, or they differ in
            shape.
    """
    low, high = _ends(density, eigenvalues, residuals)
    kind = _type(density, low.value, high.value)
    return SpectralCriteria(
        _fit(_extreme_ratio(low, high, density.zero), kind),
        k_hn(density, 0.5, kind),
        k_hn(density, 1.0, kind),
        _c_t(low, high, density.zero),
        negative_share(density),
        k_as_printed(density, 0.5),
        k_as_printed(density, 1.0),
        kind,
    )


def k_hn(density: SpectralDensity, n: float, kind: SpectrumType | None = None) -> Measurement:
    """Estimate K_Hn = Σ_{λ<0} |λ|ⁿ / Σ_{λ>0} λⁿ over all eigenvalues.

    On the density this is ∫_{λ<0} |λ|ⁿ ρ / ∫_{λ>0} λⁿ ρ, which is linear in the weights: it does
    not depend on how a quadrature divides the mass (see ``k_as_printed``). Eigenvalues that are
    zero up to the rounding of the operator count as zero: for small n they would add up.

    Args:
        density: The spectral density.
        n: The power, positive.
        kind: The type of the spectrum, which decides whether K applies; ``None``: that of the
            nodes of the density.

    Returns:
        K: 0 without negative eigenvalues, 1 for a symmetric spectrum, none without positive ones.
        Its error combines the standard error over the random vectors (of a ratio of means, by the
        delta method) with that of the Lanczos steps: the largest change of K if a quarter or half
        of them are left out, or if the node nearest to zero, which stands for small eigenvalues of
        both signs, had the other sign. With few steps that is most of the error.

    Raises:
        InputError: If n is not positive.
    """
    _check_power(n)
    kind = _type(density, density.low, density.high) if kind is None else kind
    found = _ratio(density, lambda of: (_mass(of, n, -1), _mass(of, n, 1)))
    return _fit(found, kind)


def negative_share(density: SpectralDensity) -> Measurement:
    """Estimate the share of the curvature that is negative, Σ_{λ<0} |λ| / Σ |λ|; errors as K."""
    found = _ratio(density, lambda of: (_mass(of, 1.0, -1), _mass(of, 1.0, -1) + _mass(of, 1.0, 1)))
    return Measurement(None, why=_ALL_ZERO, applies=False) if found.value is None else found


def k_of_eigenvalues(eigenvalues: Tensor, n: float, rounding: float = 0.0) -> float:
    """Compute K_Hn from all eigenvalues, shape ``(D,)``; ``inf`` or ``nan`` if none is positive.

    Args:
        eigenvalues: All of them, for instance of a dense matrix.
        n: The power, positive.
        rounding: Magnitude up to which an eigenvalue counts as zero.

    Raises:
        InputError: If n is not positive.
    """
    _check_power(n)
    values = eigenvalues.double()
    negative = values[values < -rounding].abs().pow(n).sum()
    return float(negative / values[values > rounding].pow(n).sum())


def k_as_printed(density: SpectralDensity, n: float) -> Measurement:
    """Compute K_Hn as it is printed and as LLA has it: Σ_{λ<0} (|λ|w)ⁿ / Σ_{λ>0} (λw)ⁿ.

    The weights w are inside of the power: for n = 0.5, a node that is divided into two equal
    halves contributes √2 times as much, so the value depends on the number of steps and on the
    ghosts of vectors that are not orthogonalized. Only values of equal computations compare.

    Returns:
        The mean over the random vectors, with its standard error. It never applies.

    Raises:
        InputError: If n is not positive.
    """
    _check_power(n)
    terms = (density.nodes.abs() * density.weights) ** n
    below = (terms * (density.nodes < -density.zero)).sum(1)
    above = (terms * (density.nodes > density.zero)).sum(1)
    if not bool((above > 0).all()):
        nothing = float(above.sum() + below.sum()) == 0
        why = _ALL_ZERO if nothing else f"for a random vector, {_NO_POSITIVE}"
        return Measurement(None, applies=False, why=why)
    samples = below / above
    why = "the printed form depends on how the quadrature divides the spectrum"
    return Measurement(float(samples.mean()), _standard_error(samples), applies=False, why=why)


class _End(NamedTuple):
    """An extreme eigenvalue."""

    value: float
    error: float


def _ends(
    density: SpectralDensity, eigenvalues: Tensor | None, residuals: Tensor | None
) -> tuple[_End, _End]:
    """Take the outermost of what is known: every estimate lies inside the spectrum."""
    if (eigenvalues is None) != (residuals is None):
        raise InputError("eigenvalues and residuals go together: give both or neither.")
    smallest, largest = _extreme_nodes(density, -1), _extreme_nodes(density, 1)
    if eigenvalues is None or residuals is None or not len(eigenvalues):
        return smallest, largest
    if eigenvalues.shape != residuals.shape:
        raise InputError(
            f"eigenvalues and residuals must be of one shape, got {tuple(eigenvalues.shape)} and "
            f"{tuple(residuals.shape)}."
        )
    low, high = int(eigenvalues.argmin()), int(eigenvalues.argmax())
    # A node beyond a pair by no more than rounding and the pair's own error is the same eigenvalue.
    pairs = [_End(float(eigenvalues[i]), float(residuals[i])) for i in (low, high)]
    margins = [density.zero + pair.error for pair in pairs]
    return (
        smallest if smallest.value < pairs[0].value - margins[0] else pairs[0],
        largest if largest.value > pairs[1].value + margins[1] else pairs[1],
    )


def _extreme_nodes(density: SpectralDensity, sign: int) -> _End:
    """Find the outermost node, and how far those of other vectors or of fewer steps are from it."""

    def ends(of: SpectralDensity) -> Tensor:
        return (sign * of.nodes).masked_fill(of.weights <= 0, -math.inf).amax(1)

    found = ends(density)
    spread = float(found.std()) if len(found) > 1 else 0.0
    if density.exact:
        return _End(sign * float(found.max()), spread)
    change = float(found.max() - ends(_shorter(density, 3, 4)).max())
    return _End(sign * float(found.max()), max(spread, change))


def _type(density: SpectralDensity, low: float, high: float) -> SpectrumType:
    """Classify a spectrum from its extremes and from what rounding hides of it."""
    zero = density.zero
    hidden = float((density.weights * (density.nodes.abs() <= zero)).sum(1).mean())
    seen = float((_mass(density, 0.5, -1) + _mass(density, 0.5, 1)).mean())
    if hidden * math.sqrt(zero) >= seen:
        return SpectrumType.QUASI_SINGULAR
    if high <= zero or high / min(low, -zero) > MAINLY_POSITIVE:
        return SpectrumType.MAINLY_NEGATIVE
    positive = low / high >= MAINLY_POSITIVE
    return SpectrumType.MAINLY_POSITIVE if positive else SpectrumType.SYMMETRIC


def _c_t(low: _End, high: _End, zero: float) -> Measurement:
    """Divide the smallest eigenvalue by the largest; the error is that of both."""
    if high.value <= zero:
        why = _ALL_ZERO if low.value >= -zero else _NO_POSITIVE
        return Measurement(None, applies=False, why=why)
    ratio = low.value / high.value
    error = math.hypot(low.error, ratio * high.error) / high.value
    return Measurement(0.0 if abs(low.value) <= zero else ratio, error)


def _extreme_ratio(low: _End, high: _End, zero: float) -> Measurement:
    found = _c_t(low, high, zero)
    if found.value is None:
        return found
    return Measurement(max(0.0, -found.value), found.error)


def _fit(found: Measurement, kind: SpectrumType) -> Measurement:
    """Add whether a criterion applies to a type of spectrum."""
    if found.value is None or kind not in _UNFIT:
        return found
    return Measurement(found.value, found.error, applies=False, why=_UNFIT[kind])


def _mass(density: SpectralDensity, n: float, sign: int) -> Tensor:
    """Integrate |λ|ⁿ over the eigenvalues of one sign, for each random vector, shape ``(P,)``."""
    ours = sign * density.nodes > density.zero
    return (density.weights * density.nodes.abs() ** n * ours).sum(1)


def _ratio(
    density: SpectralDensity, parts: Callable[[SpectralDensity], tuple[Tensor, Tensor]]
) -> Measurement:
    """Divide two means over the random vectors; the error is that of vectors and of steps."""
    above, below = parts(density)
    if float(below.mean()) == 0:
        why = _ALL_ZERO if float(above.mean()) == 0 else _NO_POSITIVE
        return Measurement(None, applies=False, why=why)
    value = float(above.mean() / below.mean())
    sampling = _standard_error((above - value * below) / below.mean())
    if density.exact:
        return Measurement(value, sampling)
    changes = []
    for other in (_shorter(density, 2, 4), _shorter(density, 3, 4), _with_nearest_negated(density)):
        other_above, other_below = parts(other)
        changes.append(abs(float(other_above.mean() / other_below.mean()) - value))
    error = math.hypot(sampling or 0.0, max(changes))
    return Measurement(value, error if math.isfinite(error) else None)


def _shorter(density: SpectralDensity, numerator: int, denominator: int) -> SpectralDensity:
    """Leave a part of the Lanczos steps out."""
    return density.coarser(max(1, density.nodes.shape[1] * numerator // denominator))


def _with_nearest_negated(density: SpectralDensity) -> SpectralDensity:
    """Change the sign of the node nearest to zero of each vector."""
    distance = density.nodes.abs().masked_fill(density.weights <= 0, math.inf)
    nearest = distance.argmin(1, keepdim=True)
    nodes = density.nodes.scatter(1, nearest, -density.nodes.gather(1, nearest))
    return replace(density, nodes=nodes)


def _standard_error(samples: Tensor) -> float | None:
    return float(samples.std() / math.sqrt(len(samples))) if len(samples) > 1 else None


def _check_power(n: float) -> None:
    if not (n > 0 and math.isfinite(n)):
        raise InputError(f"n must be a positive number, got {n}.")
