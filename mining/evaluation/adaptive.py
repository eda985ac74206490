"""Losses at many points to a tolerance, on as few examples as necessary."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mining.evaluation.refinement import Interpolation, Refinement
from mining.evaluation.sampling import StratifiedSample, choose_controls

#: Examples on which every point is tried first.
_PILOT = 300
#: An error that rests on fewer examples than these is not trusted, however small: the rare ones
#: that have most of the loss may not have been drawn.
_FEWEST_EFFECTIVE = 30.0
#: The weight of losses that are not finite from which an interpolated one is not known.
_LOST = 0.05
#: Above the chance level the tolerance is this many times as large.
_ABOVE_CHANCE = 10.0

#: Evaluates p points on n examples, given by ascending indices: losses and whether each example is
#: classified correctly, shape (p, n, 2).
Measure = Callable[[Sequence[int], Tensor], Tensor]


@dataclass(frozen=True)
class SampledValues:
    """What was found at P points."""

    numbers: list[int]  # which points those are
    loss: Tensor  # (P,) float64
    accuracy: Tensor  # (P,) float64, nan where outputs score no classes
    accuracy_error: Tensor  # (P,) float64, standard errors, 0 where all examples were seen
    covariance: Tensor  # (P, P) float64, of the errors of the losses; nan where one is not finite
    evaluations: int  # forward passes of single examples


@dataclass(frozen=True)
class _Goal:
    """The standard error that a point is to reach."""

    tolerance: float
    chance_loss: float | None

    def __call__(self, mean: float, error: float) -> float:
        above = self.chance_loss is not None and mean - 3 * error > self.chance_loss
        return self.tolerance * abs(mean) * (_ABOVE_CHANCE if above else 1.0)


def estimate_points(
    measure: Measure,
    points: Sequence[int] | Refinement,
    num_examples: int,
    origin: int,
    *,
    tolerance: float,
    chance_loss: float | None,
    generator: torch.Generator,
) -> tuple[SampledValues, Interpolation | None]:
    """Estimate mean losses at P points to a relative standard error.

    All points see one common, growing random subset of the examples, and each stops growing when
    its error is small enough. θ is evaluated on all examples, and so are points that would need
    most of them anyway; see ``StratifiedSample`` for what this saves the others. A point whose
    loss is three standard errors above the chance level has ten times the tolerance.

    Args:
        measure: Evaluates points on examples.
        points: Numbers of the points, θ among them; or what chooses them on a grid, by the
            losses of the first examples. They are the same for every point, so that what is
            between the points is as smooth as the loss itself.
        num_examples: The number N of examples.
        origin: Which point is θ.
        tolerance: Standard error asked for, relative to the loss.
        chance_loss: The chance-level loss, ``None`` if there is none.
        generator: Source of randomness, on the CPU.

    Returns:
        What was found, and how the grid is interpolated from that if the points were chosen.
    """
    everything, goal = torch.arange(num_examples), _Goal(tolerance, chance_loss)
    exact = {origin: measure([origin], everything)[0]}
    few = num_examples <= 2 * _PILOT
    pilot = everything
    if not few:
        pilot = torch.randperm(num_examples, generator=generator)[:_PILOT].sort().values
    seen: dict[int, Tensor] = {}

    def look(numbers: Sequence[int]) -> Tensor:
        new = [p for p in numbers if p != origin]
        seen.update(zip(new, measure(new, pilot) if new else (), strict=True))
        rows = [exact[p][pilot] if p == origin else seen[p] for p in numbers]
        return torch.stack([row.mean(0) for row in rows])

    between = None
    if isinstance(points, Refinement):
        between, _ = points.explore(look)
        points = between.numbers
    else:
        look(points)
    if few:
        return _collect(points, {**exact, **seen}, {}, None), between
    rest = torch.ones(num_examples, dtype=torch.bool)
    rest[pilot] = False
    for p in _find_controls(seen, exact[origin][pilot], goal, num_examples):
        exact[p] = torch.empty_like(exact[origin])
        exact[p][pilot] = seen.pop(p)
        exact[p][rest] = measure([p], everything[rest])[0]
    losses = [rows[:, 0] for rows in exact.values() if rows[:, 0].isfinite().all()]
    controls = torch.stack(losses, 1) if losses else torch.empty(num_examples, 0)
    sample = StratifiedSample(controls, pilot, generator)
    active = list(seen)
    while True:
        needs = {p: _need(sample, seen[p][:, 0], goal) for p in active}
        active = [p for p, spread in needs.items() if spread is not None]
        spreads = [spread for spread in needs.values() if spread is not None]
        if not spreads:
            return _collect(points, exact, seen, sample), between
        new = sample.grow(torch.stack(spreads).amax(0))
        for p, rows in zip(active, measure(active, new), strict=True):
            seen[p] = torch.cat([seen[p], rows])


def _find_controls(
    seen: dict[int, Tensor], at_theta: Tensor, goal: _Goal, num_examples: int
) -> list[int]:
    """Choose the points to evaluate on all examples, by what the pilot shows."""
    finite = [p for p, rows in seen.items() if rows[:, 0].isfinite().all()]
    if not finite or not at_theta[:, 0].isfinite().all():
        return []
    losses = torch.stack([seen[p][:, 0] for p in finite])
    means, errors = losses.mean(1), losses.std(1) / losses.shape[1] ** 0.5
    goals = [goal(m, e) for m, e in zip(means.tolist(), errors.tolist(), strict=True)]
    wanted = torch.tensor(goals, dtype=torch.float64)
    chosen = choose_controls(at_theta[:, 0], losses, wanted, num_examples)
    return [finite[index] for index in chosen]


def _need(sample: StratifiedSample, losses: Tensor, goal: _Goal) -> Tensor | None:
    """How much each stratum keeps a point from its goal; ``None`` if it is there."""
    if sample.exhausted or not losses.isfinite().all():
        return None
    found = sample.judge(losses)
    wanted = goal(found.mean, found.error)
    if found.error <= wanted and found.num_effective >= _FEWEST_EFFECTIVE:
        return None
    return found.spread / max(wanted, 1e-300)


def interpolate(found: SampledValues, between: Interpolation) -> SampledValues:
    """Fill a grid from what was found at its evaluated points.

    The variance of an interpolated loss is that of the losses which it is interpolated from, plus
    the square of how far the interpolation was off nearby. It is ``nan`` next to losses that are
    not finite.
    """
    values = between.fill(torch.stack([found.loss, found.accuracy], 1))
    weights = between.weights(found.loss)
    known = found.covariance.nan_to_num(0.0)
    covariance = weights @ known @ weights.T
    off = between.differences
    covariance.diagonal().add_((off[:, 0] * between.slope(values[:, 0])).square())
    lost = (~found.loss.isfinite()).double()
    undefined = between.shares.abs() @ lost > _LOST
    covariance[undefined] = torch.nan
    covariance[:, undefined] = torch.nan
    # Which errors of accuracies go together is not known: at worst, all do.
    accuracy_error = (weights.abs() @ found.accuracy_error).hypot(off[:, 1])
    return SampledValues(
        list(range(len(values))),
        values[:, 0],
        values[:, 1],
        accuracy_error,
        covariance,
        found.evaluations,
    )


def _collect(
    numbers: Sequence[int],
    exact: dict[int, Tensor],
    seen: dict[int, Tensor],
    sample: StratifiedSample | None,
) -> SampledValues:
    place = {p: row for row, p in enumerate(numbers)}
    loss, accuracy = torch.empty(2, len(place), dtype=torch.float64)
    accuracy_error = torch.zeros(len(place), dtype=torch.float64)
    covariance = torch.zeros(len(place), len(place), dtype=torch.float64)
    for p, rows in exact.items():
        loss[place[p]], accuracy[place[p]] = rows.mean(0)
    finite = [p for p, rows in seen.items() if rows[:, 0].isfinite().all()]
    if sample is not None and finite:
        found, at = sample.estimate([seen[p][:, 0] for p in finite]), [place[p] for p in finite]
        loss[at] = found.mean
        covariance[torch.tensor(at)[:, None], torch.tensor(at)] = found.covariance
    for p in seen.keys() - set(finite):
        loss[place[p]] = seen[p][:, 0].mean()
    for p, rows in seen.items():
        accuracy[place[p]] = accuracy_error[place[p]] = math.nan
        if sample is not None and rows[:, 1].isfinite().all():
            accuracy[place[p]], accuracy_error[place[p]] = sample.share(rows[:, 1])
    undefined = ~loss.isfinite()
    covariance[undefined] = torch.nan
    covariance[:, undefined] = torch.nan
    evaluations = sum(len(rows) for rows in (*exact.values(), *seen.values()))
    return SampledValues(list(numbers), loss, accuracy, accuracy_error, covariance, evaluations)
