"""Points of curves and surfaces, evaluated a chunk at a time and kept in a journal."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from mining import ranks
from mining.directions.update_rule import UpdateRule
from mining.evaluation.adaptive import estimate_points, interpolate
from mining.evaluation.refinement import Refinement
from mining.functional.loss import Batch
from mining.landscape import Landscape
from mining.storage.journal import Journal


@dataclass(frozen=True)
class Values:
    """What was found at P points."""

    rows: Tensor  # (P, 2) or (P, 4): loss and accuracy of each set of examples
    # (P, P) of loss and loss_test, where they were estimated
    covariances: Mapping[str, Tensor] = field(default_factory=dict)
    # (P,) of accuracy and accuracy_test, likewise
    accuracy_errors: Mapping[str, Tensor] = field(default_factory=dict)
    evaluated: Tensor | None = None  # (P,) bool; the others were interpolated


class Points:
    """A landscape at P points θ + Σ c_k ε_k, or where a rule moves θ for the same numbers.

    Args:
        landscape: The point θ, the loss and its examples.
        sets: One or two sets of examples, those of the landscape first.
        vectors: K directions ε, each of shape ``(D,)``.
        coefficients: A row c of length K for each point.
        chunk: Points evaluated together.
        journal: Where this rank writes the points that it has finished.
        done: Values of points that are finished already, by their numbers in the journal.
        bar: Shows how many points are finished.
        rule: Moves θ by two directions and two coefficients, if that is no addition.
    """

    def __init__(
        self,
        landscape: Landscape,
        sets: Sequence[Sequence[Batch]],
        vectors: Sequence[Tensor],
        coefficients: Sequence[Sequence[float]],
        *,
        chunk: int,
        journal: Journal | None,
        done: Mapping[int, Sequence[float]],
        bar: "tqdm[NoReturn]",
        rule: UpdateRule | None = None,
    ) -> None:
        self._landscape, self._sets = landscape, sets
        self._vectors, self._coefficients = vectors, coefficients
        self._chunk, self._journal, self._bar = chunk, journal, bar
        self._rule = rule
        self._done = done
        self._statistics: dict[int, dict[str, Tensor]] = {}
        self._step = 0  # the same requests come in the same order after an interruption

    def evaluate(self, numbers: Sequence[int]) -> Tensor:
        """Evaluate the points of these numbers on every example, shape ``(n, 4)``."""

        def measure(chunk: Sequence[int]) -> Tensor:
            found = self._landscape.evaluate_points(*self._displacements(chunk), self._sets)
            rows = torch.full((len(chunk), 4), math.nan, dtype=torch.float64)
            rows[:, : 2 * len(self._sets)] = found.flatten(1)
            return rows

        return self._measure(numbers, 0, 4, measure, progress=True)

    def estimate(self, tolerance: float, refinement: Refinement | None = None) -> Values:
        """Evaluate points on as few examples as the tolerance takes, and interpolate the rest.

        Args:
            tolerance: Relative standard error of a loss; see ``estimate_points``.
            refinement: What chooses the points that are evaluated, by the losses of the first
                set; all of them where there is none.
        """
        found = {}
        points: Sequence[int] | Refinement = refinement or range(len(self._coefficients))
        between = None
        for key, examples in zip(("loss", "loss_test"), self._sets, strict=False):
            sampled, chosen = estimate_points(
                partial(self._losses_of_examples, examples),
                points,
                sum(batch.num_examples for batch in examples),
                next(p for p, row in enumerate(self._coefficients) if not any(row)),
                tolerance=tolerance,
                chance_loss=self._landscape.chance_loss,
                generator=torch.Generator().manual_seed(0),
            )
            between, points = between or chosen, sampled.numbers
            found[key] = sampled if between is None else interpolate(sampled, between)
        self._bar.update(len(self._coefficients))
        columns = [column for f in found.values() for column in (f.loss, f.accuracy)]
        accuracy_errors = {
            f"{key.replace('loss', 'accuracy')}_error": f.accuracy_error
            for key, f in found.items()
            if self._landscape.scores_classes
        }
        covariances = {key: f.covariance for key, f in found.items()}
        evaluated = None if between is None else between.evaluated
        return Values(torch.stack(columns, 1), covariances, accuracy_errors, evaluated)

    def _losses_of_examples(
        self, examples: Sequence[Batch], numbers: Sequence[int], chosen: Tensor
    ) -> Tensor:
        """Evaluate p points on n of the examples, shape ``(p, n, 2)``; see ``Measure``."""
        first = self._step * len(self._coefficients)
        self._step += 1
        finished = all(first + number in self._done for number in numbers)
        batches = [] if finished else self._pick(examples, chosen)

        def measure(chunk: Sequence[int]) -> Tensor:
            landscape, (vectors, points) = self._landscape, self._displacements(chunk)
            if landscape.statistics_are_fixed:
                return landscape.losses_of_examples(vectors, points, batches)
            for p, point in zip(chunk, points, strict=True):
                if p not in self._statistics:
                    self._statistics[p] = landscape.statistics(landscape.at(vectors, point))
            known = [self._statistics[p] for p in chunk]
            return landscape.losses_of_examples(vectors, points, batches, known)

        # Statistics of a point stay with the rank that estimated them.
        keeps = not self._landscape.statistics_are_fixed
        found = self._measure(numbers, first, 2 * len(chosen), measure, keeps=keeps)
        return found.view(len(numbers), -1, 2)

    def _displacements(
        self, chunk: Sequence[int]
    ) -> tuple[Sequence[Tensor], Sequence[Sequence[float]]]:
        """Return directions of shape ``(D,)`` and, for each point, their coefficients."""
        points = [self._coefficients[p] for p in chunk]
        if self._rule is None:
            return self._vectors, points
        theta = self._landscape.theta
        x, y = (vector.to(theta) for vector in self._vectors)
        vectors = [self._rule.displacement(theta, x, y, *point) for point in points]
        # A direction for each point, and none at θ itself, which is as it is under addition.
        moved = [
            [float(n == k and any(points[n])) for k in range(len(chunk))] for n in range(len(chunk))
        ]
        return vectors, moved

    def _pick(self, examples: Sequence[Batch], chosen: Tensor) -> Sequence[Batch]:
        """Take n examples in batches no larger than those of the landscape."""
        if len(chosen) == sum(batch.num_examples for batch in examples):
            return examples
        size = max(batch.num_examples for batch in examples)
        return self._landscape.pick(examples, chosen, size)

    def _measure(
        self,
        numbers: Sequence[int],
        first: int,
        width: int,
        measure: Callable[[Sequence[int]], Tensor],
        *,
        keeps: bool = False,
        progress: bool = False,
    ) -> Tensor:
        """Evaluate points that are not finished, this rank its share, and write them down at once.

        Args:
            numbers: Of n points.
            first: What is added to the number of a point in the journal.
            width: The number v of values of a point.
            measure: Evaluates the points of a chunk, shape ``(p, ...)``.
            keeps: Whether a point stays with one rank.
            progress: Whether the bar counts these points.

        Returns:
            Values of each point, flattened, shape ``(n, v)``, float64.
        """
        rows = torch.zeros(len(numbers), width, dtype=torch.float64)
        to_do = []
        for row, number in enumerate(numbers):
            if first + number in self._done:
                rows[row] = torch.tensor(self._done[first + number], dtype=torch.float64)
            else:
                to_do.append(row)
        group, size = ranks.current(), self._chunk
        chunks = [to_do[start : start + size] for start in range(0, len(to_do), size)]
        owners = [numbers[chunk[0]] for chunk in chunks] if keeps else None
        known = sorted(set(range(len(numbers))) - set(to_do))
        mine = list(known) if group.first else []
        shown = self._show(progress, 0, len(known))
        for piece in group.deal(len(chunks), fixed=owners):
            chunk = chunks[piece]
            with ranks.alone():
                found = measure([numbers[row] for row in chunk]).flatten(1).cpu()
            for row, values in zip(chunk, found, strict=True):
                rows[row] = values
                self._write_down(first + numbers[row], values)
            mine += chunk
            finished = min((piece + 1) * size, len(to_do))  # or dealt to other ranks
            shown = self._show(progress, shown, len(known) + finished)
        rows = group.join(rows, mine)
        self._show(progress, shown, len(numbers))
        if group.first:
            for row in sorted(set(range(len(numbers))) - set(mine)):
                self._write_down(first + numbers[row], rows[row])
        return rows

    def _write_down(self, number: int, values: Tensor) -> None:
        if self._journal is not None:
            self._journal.append(number, values.tolist())

    def _show(self, progress: bool, before: int, now: int) -> int:
        """Move the bar from one number of points to another, which is returned."""
        if progress:
            self._bar.update(now - before)
        return now
