"""Whether a classifier is as often right as it is sure."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mining import InputError
from mining.explain.resampling import interval_of, resampled_sums


@dataclass(frozen=True, eq=False)
class Calibration:
    """The expected calibration error of a classifier, with what chance adds to it."""

    error: float  # mean of |share correct - mean confidence| over bins, weighted by examples
    replicates: Tensor  # (R,) the same of resampled examples
    interval: tuple[float, float]  # 95 % confidence, corrected for the bias of resampling
    by_chance: float  # 95 % quantile of the error of a perfectly calibrated classifier


def calibration_error(
    confidence: Tensor,
    correct: Tensor,
    num_bins: int = 15,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Calibration:
    """Compute the expected calibration error.

    The examples are divided by confidence into bins of equal width, (0, 1/M], (1/M, 2/M], …; the
    error is Σ_b |Σ_{i in b} (correct_i - confidence_i)| / n. Guo et al. (2017), On Calibration of
    Modern Neural Networks, Eq. 3. As a mean of absolute values it is positive also for a perfectly
    calibrated classifier: ``by_chance`` says how large it then is with these confidences.

    Args:
        confidence: Probability of the predicted class, in [0, 1], shape ``(n,)``.
        correct: 1 if the prediction is right, otherwise 0, shape ``(n,)``.
        num_bins: Number M of bins.
        seed: Of the resampling.
        resamples: How many samples are drawn, at least 100.

    Raises:
        InputError: If the shapes differ, there are no examples, or a value is out of its range.
    """
    if confidence.shape != correct.shape or confidence.dim() != 1 or not len(confidence):
        raise InputError(
            f"confidence and correct must have one shape (n,), got {tuple(confidence.shape)} and "
            f"{tuple(correct.shape)}."
        )
    if num_bins < 1:
        raise InputError(f"num_bins must be at least 1, got {num_bins}.")
    confidence, correct = confidence.double().cpu(), correct.double().cpu()
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise InputError("confidence must lie between 0 and 1.")
    bins = (confidence * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)
    member = torch.nn.functional.one_hot(bins, num_bins).double()
    member = member[:, member.any(0)]
    gaps = member * (correct - confidence)[:, None]
    error = float(gaps.sum(0).abs().sum()) / len(gaps)
    generator = torch.Generator().manual_seed(seed)
    replicates = resampled_sums(gaps, generator, resamples).abs().sum(1) / len(gaps)
    by_chance = []
    for _ in range(resamples):
        drawn = (torch.rand(len(gaps), generator=generator).double() < confidence).double()
        by_chance.append(float((member.T @ (drawn - confidence)).abs().sum()) / len(gaps))
    quantile = torch.tensor(by_chance).double().quantile(0.95)
    low, high = interval_of(error, replicates)
    return Calibration(error, replicates, (max(low, 0.0), min(high, 1.0)), float(quantile))
