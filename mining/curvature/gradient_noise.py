"""The norm of a gradient against the noise that comes from its examples."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mining import InputError

#: Random signs that are drawn for the p-value, which is then known to ±0.002 near 0.05.
_FLIPS = 9999


@dataclass(frozen=True)
class GradientNoise:
    """The norm of a mean gradient, and what of it is sampling noise.

    The examples count as a sample of a larger population, whose mean gradient is G. The gradient g
    of the sample varies about G, so ‖g‖² exceeds ‖G‖² by the variance of g on average.
    """

    norm: float  # ‖g‖
    norm_error: float  # its standard error over the sample (jackknife over groups)
    noise: float  # root of the variance of g: the size of ‖g‖ if G were zero
    squared_norm: float  # unbiased estimate of ‖G‖², negative by chance if G is small
    squared_norm_error: float  # its standard error (jackknife)
    p_value: float  # probability of a norm as large as ‖g‖ if G were zero
    num_groups: int  # K


def gradient_noise(
    gradients: Tensor, shares: Tensor, generator: torch.Generator | None = None
) -> GradientNoise:
    """Compare the norm of a mean gradient with its sampling noise.

    With equal shares the unbiased estimate is the mean of g_jᵀg_k over pairs of different groups.
    The p-value is that of a randomization test: if G is zero and the groups are symmetric about
    it, each g_k may as well have the opposite sign. It holds for any number of parameters.

    Args:
        gradients: Of the mean loss of K disjoint random groups of examples, shape ``(K, D)``.
        shares: Share of each group in the mean of all, shape ``(K,)``; they sum to one.
        generator: Source of the signs, on the CPU; ``None``: one with seed 0.

    Raises:
        InputError: If there are fewer than two groups, or the shares are none.
    """
    num = len(gradients)
    if num < 2 or shares.shape != (num,):
        raise InputError(
            f"gradients must have shape (K, D) with at least two groups, and shares (K,), got "
            f"{tuple(gradients.shape)} and {tuple(shares.shape)}."
        )
    shares = shares.double().cpu()
    if not (shares > 0).all() or abs(float(shares.sum()) - 1) > 1e-9:
        raise InputError(f"shares must be positive and sum to 1, got {shares.tolist()}.")
    gram = _gram(gradients)
    squared, noise = _moments(gram, shares)
    left_out = []
    for group in range(num):
        kept = torch.arange(num) != group
        rest = shares[kept] / shares[kept].sum()
        left_out.append(_moments(gram[kept][:, kept], rest) if num > 2 else (math.nan, math.nan))
    norms = torch.tensor([math.sqrt(max(s, 0.0)) for s, _ in left_out], dtype=torch.float64)
    unbiased = torch.tensor([s - n for s, n in left_out], dtype=torch.float64)
    return GradientNoise(
        norm=math.sqrt(squared),
        norm_error=_jackknife(norms),
        noise=math.sqrt(noise),
        squared_norm=squared - noise,
        squared_norm_error=_jackknife(unbiased),
        p_value=_p_value(shares[:, None] * gram * shares, generator),
        num_groups=num,
    )


def _gram(gradients: Tensor) -> Tensor:
    """Multiply all pairs of rows, in float64 without a copy of all rows in it."""
    parts = torch.split(gradients, 2**16, dim=1)
    products = [part.double() @ part.double().T for part in parts]
    return torch.stack(products).sum(0).cpu()


def _moments(gram: Tensor, shares: Tensor) -> tuple[float, float]:
    """Compute ‖g‖² and the variance of g, if the variance of a group goes as one over its share."""
    squared = max(float(shares @ gram @ shares), 0.0)
    spread = float(shares @ gram.diagonal()) - squared
    return squared, max(spread, 0.0) / max(len(shares) - 1, 1)


def _jackknife(values: Tensor) -> float:
    num = len(values)
    return math.sqrt((num - 1) / num * float((values - values.mean()).square().sum()))


def _p_value(weighted: Tensor, generator: torch.Generator | None) -> float:
    """Count how often random signs give a sum as long as that without them."""
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (_FLIPS, len(weighted)), generator=generator).double() * 2 - 1
    lengths = ((signs @ weighted) * signs).sum(1)
    found = float(weighted.sum())
    as_long = lengths >= found - 1e-9 * abs(found)
    return (1 + int(as_long.sum())) / (1 + _FLIPS)
