"""Mean losses from a growing random subset of the examples, with standard errors.

In a trained network a few examples have nearly all of the loss, so that a plain random subset
says little. What is known of every example, its losses at a few points, helps twice. A regression
on them leaves only residuals to be estimated; and the examples are divided into strata by them,
of which each gives examples at random, as many as its spread asks for (Neyman allocation). The
subset is the same for every point, so that differences between points are known far better than
the points. Cochran (1977), Sampling Techniques, Ch. 5 and 7.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Strata, and the fewest examples of each once it is divided.
_STRATA, _FEWEST = 6, 30
#: A subset is this many times as large as the one before.
_GROWTH = 1.15
#: As many events may have been missed where none was seen: three are, once in twenty times (the
#: rule of three, e^-3 = 0.05). Half of it is one standard error.
_UNSEEN = 3.0
#: The share of the examples from which a point may as well see all, and how many points do.
_ALL, _MOST_CONTROLS = 0.75, 8


@dataclass(frozen=True, eq=False)
class JointEstimate:
    """Mean losses that were estimated from a sample of the examples."""

    mean: Tensor  # (P,) float64
    covariance: Tensor  # (P, P) float64, of the errors


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a sample says about the mean loss of one point."""

    mean: float
    error: float  # standard error
    spread: Tensor  # (H,) what each stratum adds: its size times the deviation of the residuals
    num_effective: float  # examples that the error rests on: (Σ r²)² / Σ r⁴ of the residuals


class StratifiedSample:
    """A common, growing random subset of N examples.

    Its order is that in which examples are drawn; a point has seen the first so many of them, a
    number that is that of a stage for all points.

    Args:
        controls: Losses of every example at C points, shape ``(N, C)``.
        pilot: Examples that were drawn before, at random from all, shape ``(n,)``.
        generator: Source of randomness, on the CPU.
    """

    def __init__(self, controls: Tensor, pilot: Tensor, generator: torch.Generator) -> None:
        controls = controls.double().cpu()
        self.num_examples = len(controls)
        ones = torch.ones(self.num_examples, 1, dtype=torch.float64)
        scaled = controls / controls.abs().mean(0).clamp(min=1e-30)
        self._controls = torch.cat([scaled, ones], 1)
        shuffled = torch.randperm(self.num_examples, generator=generator)  # among equals, too
        by_value = shuffled[scaled.sum(1)[shuffled].argsort(stable=True)]
        parts = by_value.tensor_split(max(1, min(_STRATA, self.num_examples // (3 * _FEWEST))))
        stratum_of = torch.empty(self.num_examples, dtype=torch.long)
        for number, part in enumerate(parts):
            stratum_of[part] = number
        self._stratum_of = stratum_of
        self._sizes = torch.tensor([len(part) for part in parts], dtype=torch.float64)  # (H,)
        drawn = torch.zeros(self.num_examples, dtype=torch.bool)
        drawn[pilot] = True
        # Within a stratum the pilot is a random subset, and so is what follows it.
        waiting = [part[~drawn[part]] for part in parts]
        self._waiting = [part[torch.randperm(len(part), generator=generator)] for part in waiting]
        self.order = pilot.clone()

    @property
    def exhausted(self) -> bool:
        """Whether all examples were drawn."""
        return len(self.order) == self.num_examples

    def grow(self, spreads: Tensor) -> Tensor:
        """Draw more examples.

        Args:
            spreads: How much each of the H strata adds to the error, shape ``(H,)``.

        Returns:
            The new examples, ascending, shape ``(n,)``; also appended to ``order``.
        """
        drawn = self._counts(len(self.order))
        total = min(self.num_examples, math.ceil(_GROWTH * len(self.order)))
        wanted = self._allocate(spreads, drawn.clamp(min=_FEWEST).minimum(self._sizes), total)
        more = (wanted - drawn).long().tolist()
        new = torch.cat([part[:n] for part, n in zip(self._waiting, more, strict=True)])
        self._waiting = [part[n:] for part, n in zip(self._waiting, more, strict=True)]
        new = new.sort().values
        self.order = torch.cat([self.order, new])
        return new

    def judge(self, losses: Tensor) -> Judgement:
        """Estimate the mean of a point over all examples, and see how far that can be trusted.

        Args:
            losses: Of the first examples in ``order``, as many as the point has seen.
        """
        mean, residuals = self._regress(losses)
        strata, counts = self._strata(len(losses)), self._counts(len(losses))
        centred = residuals - self._means(residuals)[strata]
        variances = self._sums(centred**2) / (counts - 1).clamp(min=1)
        squares = (centred * (self._sizes / counts.clamp(min=1))[strata]).square()
        # Rounding is no evidence: that of a sum over all examples.
        scale = float(losses.double().abs().max()) * 1e-9
        squares = squares.where(residuals.abs() > scale, 0.0)
        fourth = float(squares.square().sum())
        return Judgement(
            mean,
            math.sqrt(max(float(self._covariances([residuals])[0, 0]), 0.0)),
            self._sizes * variances.sqrt(),
            float(squares.sum()) ** 2 / fourth if fourth > 0 else 0.0,
        )

    def share(self, correct: Tensor) -> tuple[float, float]:
        """Estimate the share of the examples that are classified correctly, and its error.

        The error contains what a subset cannot show: where all or none of its examples are
        correct, some of the others are not. Two standard errors reach as far as the rule of
        three, in the stratum in which an example stands for the most others.

        Args:
            correct: 1 or 0 for the first examples in ``order``, as many as the point has seen.

        Returns:
            The share, in [0, 1], and its standard error, 0 where all examples were seen.
        """
        found, counts = self.judge(correct), self._counts(len(correct))
        open_share = 1 - counts / self._sizes
        stands_for = self._sizes / counts.clamp(min=1) / self.num_examples
        unseen = float((stands_for * open_share.sqrt()).max()) * _UNSEEN / 2
        return min(max(found.mean, 0.0), 1.0), math.hypot(found.error, unseen)

    def estimate(self, losses: Sequence[Tensor]) -> JointEstimate:
        """Estimate the means of P points and the covariance of their errors.

        Args:
            losses: Of each point the losses of the first examples in ``order``, as many as it has
                seen.
        """
        means, residuals = zip(*map(self._regress, losses), strict=True)
        return JointEstimate(torch.tensor(means, dtype=torch.float64), self._covariances(residuals))

    def _regress(self, losses: Tensor) -> tuple[float, Tensor]:
        """Fit losses by controls; return the mean over all examples and the residuals.

        Residuals are those of a fit without the example itself: those of the fit are too small.
        """
        values, controls = losses.double().cpu(), self._controls[self.order[: len(losses)]]
        strata, counts = self._strata(len(losses)), self._counts(len(losses))
        weights = (self._sizes / counts.clamp(min=1))[strata].sqrt()[:, None]
        basis = weights * controls
        inverse = torch.linalg.pinv(basis.T @ basis, hermitian=True)
        coefficients = inverse @ (basis.T @ (weights[:, 0] * values))
        residuals = values - controls @ coefficients
        rest = (self._sizes * self._means(residuals)).sum() / self.num_examples
        leverage = ((basis @ inverse) * basis).sum(1).clamp(max=0.9)
        mean = float((self._controls @ coefficients).mean() + rest)
        return mean, residuals / (1 - leverage)

    def _covariances(self, residuals: Sequence[Tensor]) -> Tensor:
        """Of means over nested subsets: what two have in common is what the larger leaves open."""
        covariance = torch.zeros(len(residuals), len(residuals), dtype=torch.float64)
        stages = sorted({len(values) for values in residuals})
        members = [
            [p for p, values in enumerate(residuals) if len(values) == stage] for stage in stages
        ]
        for smaller, few in zip(stages, members, strict=True):
            strata, counts = self._strata(smaller), self._counts(smaller)

            def centred(points: Sequence[int], num: int = smaller) -> Tensor:
                rows = [residuals[p][:num] for p in points]
                return torch.stack([row - self._means(row)[self._strata(num)] for row in rows])

            first = centred(few)
            for larger, many in zip(stages, members, strict=True):
                if larger < smaller:
                    continue
                open_share = 1 / self._counts(larger).clamp(min=1) - 1 / self._sizes
                factors = self._sizes**2 * open_share / (counts - 1).clamp(min=1)
                block = (first * factors[strata]) @ centred(many).T / self.num_examples**2
                rows, columns = torch.tensor(few)[:, None], torch.tensor(many)
                covariance[rows, columns] = block
                covariance[columns[:, None], rows[:, 0]] = block.T
        return covariance

    def _strata(self, num: int) -> Tensor:
        return self._stratum_of[self.order[:num]]

    def _counts(self, num: int) -> Tensor:
        return torch.bincount(self._strata(num), minlength=len(self._sizes)).double()

    def _sums(self, values: Tensor) -> Tensor:
        sums = torch.zeros(len(self._sizes), dtype=torch.float64)
        return sums.index_add_(0, self._strata(len(values)), values)

    def _means(self, values: Tensor) -> Tensor:
        return self._sums(values) / self._counts(len(values)).clamp(min=1)

    def _allocate(self, spreads: Tensor, least: Tensor, total: int) -> Tensor:
        """Find counts in proportion to the spreads, none below ``least`` or beyond its stratum."""
        # A stratum that seems to have no spread may hide a rare example: half the mean at least.
        weights = spreads.clamp(min=0.5 * float(spreads.mean()) or 1.0)
        low, high = 0.0, float((self._sizes / weights).max())
        for _ in range(60):
            factor = (low + high) / 2
            counts = (weights * factor).ceil().maximum(least).minimum(self._sizes)
            low, high = (low, factor) if float(counts.sum()) > total else (factor, high)
        return (weights * high).ceil().maximum(least).minimum(self._sizes)


def choose_controls(
    at_theta: Tensor, losses: Tensor, errors: Tensor, num_examples: int
) -> list[int]:
    """Choose the points to evaluate on all N examples, as controls for the others.

    A point that would need three quarters of the examples, drawn plainly, may as well see all; the
    others are then regressed on it too, and need fewer.

    Args:
        at_theta: Losses at θ of n examples drawn at random, shape ``(n,)``.
        losses: Of the same at P points, shape ``(P, n)``.
        errors: Standard error that each point is to reach, shape ``(P,)``.
        num_examples: N.

    Returns:
        Indices of points, the neediest first.
    """
    chosen: list[int] = []
    rows = losses.double().T
    while True:
        columns = [at_theta.double(), *rows.T[chosen], torch.ones_like(at_theta.double())]
        controls = torch.stack(columns, 1)
        found = torch.linalg.lstsq(controls, rows, driver="gelsd").solution
        variances = (rows - controls @ found).square().sum(0) / (len(rows) - len(columns))
        needed = variances / (errors.square() + variances / num_examples)
        needed = needed.nan_to_num(0.0)  # a point without any loss
        neediest = int(needed.argmax())
        if not needed[neediest] > _ALL * num_examples or len(chosen) == _MOST_CONTROLS:
            return chosen
        chosen.append(neediest)
