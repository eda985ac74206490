"""Curves and surfaces: a landscape evaluated over grids."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mining import InputError, ranks
from mining.directions.base import Direction, cosine
from mining.directions.update_rule import UpdateRule
from mining.evaluation.curves import CEILING, SINGLE, Curve, Surface, fields_of
from mining.evaluation.grid import MOST_POINTS, grid_with_origin, lines_through_origin
from mining.evaluation.points import Points, Values
from mining.evaluation.refinement import Refinement
from mining.functional.fingerprints import update_digest
from mining.landscape import Landscape
from mining.storage.fingerprint import Fingerprint
from mining.storage.journal import Journal, journal_of_rank


class Evaluator:
    """Evaluates loss and accuracy of a landscape along directions.

    Args:
        landscape: The point θ, the loss and its examples.
        test: A second set of examples, evaluated in the same pass with the same batch-norm
            statistics.
        progress: Whether to draw a progress bar on stderr.
        journal: A file to which every finished point of one curve, set of curves or surface is
            written at once. After an interruption the same call with the same file continues from
            it; a file of other directions, grid, model or data is rejected.
        tolerance: Relative standard error to which each loss is estimated, on a growing random
            subset of the examples shared by all points; ten times as large above the chance level.
            See ``estimate_points``. ``None`` evaluates all examples.
        refine: For surfaces: the largest error of a smooth interpolation at which points are
            interpolated instead of evaluated, as a fraction of the range of the loss up to twice
            the chance level; see ``Refinement``. ``None`` evaluates all points. With a tolerance
            the points are chosen by the losses of its first examples, and the error of an
            interpolated loss contains how far the interpolation was off nearby.
        chunk: Points evaluated together, and written to the journal together; ``None`` chooses a
            number.

    Raises:
        InputError: If ``chunk`` is not positive, ``tolerance`` or ``refine`` not between 0 and 1,
            or if there is a tolerance and the loss is not a plain mean over independent examples.
    """

    def __init__(
        self,
        landscape: Landscape,
        *,
        test: Iterable[Any] | None = None,
        progress: bool = True,
        journal: str | Path | None = None,
        tolerance: float | None = None,
        refine: float | None = None,
        chunk: int | None = None,
    ) -> None:
        if tolerance is not None and not 0 < tolerance < 1:
            raise InputError(f"tolerance must lie between 0 and 1, got {tolerance}.")
        if refine is not None and not 0 < refine < 1:
            raise InputError(f"refine must lie between 0 and 1, got {refine}.")
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk must be at least 1 point, got {chunk}.")
        if tolerance is not None:
            landscape.losses_of_examples([], [[]], landscape.batches[:1])  # or says why not
        self.landscape = landscape
        self._chunk = landscape.points_together() if chunk is None else chunk
        self._test = None if test is None else landscape.hold(test)
        self._tolerance, self._refine = tolerance, refine
        self._progress = progress
        self._journal = None if journal is None else Path(journal)

    def curve(self, direction: Direction, alphas: Tensor) -> Curve:
        """Evaluate along one direction.

        Args:
            direction: Of shape ``(D,)``.
            alphas: Points, shape ``(T,)``, strictly increasing. The point 0 is added where it is
                missing.

        Returns:
            Loss and accuracy at θ + αε; at α = 0 exactly those of θ under the landscape's
            batch-norm policy.
        """
        return self.curves([direction], alphas)[0]

    def curves(self, directions: Sequence[Direction], alphas: Tensor) -> list[Curve]:
        """Evaluate along several directions; see ``curve``. θ itself is evaluated once."""
        _check_directions(directions)
        alphas = grid_with_origin(torch.as_tensor(alphas))
        origin = int((alphas == 0).nonzero())
        points = [[0.0] * len(directions)]  # θ first: every direction shares it
        for k in range(len(directions)):
            for t, alpha in enumerate(alphas.tolist()):
                if t != origin:
                    points.append([alpha if j == k else 0.0 for j in range(len(directions))])
        values = self._evaluate(directions, points, "curves")
        numbers = torch.arange(1, len(points)).view(len(directions), -1)
        theta = torch.zeros(len(directions), 1, dtype=torch.long)
        numbers = torch.cat([numbers[:, :origin], theta, numbers[:, origin:]], 1)
        return [
            Curve(
                alphas=alphas,
                name=name,
                chance_loss=self.landscape.chance_loss,
                rounding=self._rounding,
                metadata=fields_of(direction.record())["metadata"],
                scale=direction.scale,
                other_alpha=direction.other_alpha,
                loss_at_theta=direction.loss_at_theta,
                **self._fields(values.rows[chosen]),
                **{
                    f"{key}_covariance": covariance[chosen[:, None], chosen]
                    for key, covariance in values.covariances.items()
                },
                **{key: errors[chosen] for key, errors in values.accuracy_errors.items()},
            )
            for direction, name, chosen in zip(directions, _names(directions), numbers, strict=True)
        ]

    def surface(
        self,
        x: Direction,
        y: Direction,
        alphas: Tensor,
        betas: Tensor,
        rule: UpdateRule | None = None,
    ) -> Surface:
        """Evaluate over the plane of two directions, taken as they are.

        Args:
            x: First direction, shape ``(D,)``.
            y: Second direction, shape ``(D,)``; ``y.orthogonal_to(x)`` is orthogonal.
            alphas: Points along ``x``, shape ``(A,)``; 0 is added where it is missing.
            betas: Points along ``y``, shape ``(B,)``; 0 is added where it is missing.
            rule: How α and β move θ, if not to θ + αx + βy; see ``AdamRule``.

        Returns:
            Loss and accuracy at θ + αx + βy, or where the rule moves θ, shape ``(A, B)``.

        Raises:
            InputError: If the two are parallel, or the rule refuses them or the points.
        """
        _check_directions([x, y])
        overlap = cosine(x.vector, y.vector)
        if abs(overlap) > 1 - 1e-12:  # the angle is 1e-6, as in ``orthogonalize``
            raise InputError(
                f"{x.name} and {y.name} are parallel (cosine {overlap:.0f}): they span no plane."
            )
        alphas, betas = (grid_with_origin(torch.as_tensor(axis)) for axis in (alphas, betas))
        if len(alphas) * len(betas) > MOST_POINTS:
            raise InputError(
                f"A surface must have at most {MOST_POINTS} points, got {len(alphas)} × "
                f"{len(betas)}: lower grid.num and grid.y_num."
            )
        if rule is not None:
            rule.check(x, y, alphas, betas)
        points = [[a, b] for a in alphas.tolist() for b in betas.tolist()]
        names, shape = _names([x, y]), (len(alphas), len(betas))
        refinement = None
        if self._refine is not None:
            chance = self.landscape.chance_loss
            origin = (int((alphas == 0).nonzero()), int((betas == 0).nonzero()))
            cap = math.inf if chance is None else CEILING * chance
            refinement = Refinement(shape, origin, self._refine, cap)
        values = self._evaluate([x, y], points, "surface", refinement, rule)
        return Surface(
            alphas=alphas,
            betas=betas,
            names=(names[0], names[1]),
            chance_loss=self.landscape.chance_loss,
            rounding=self._rounding,
            evaluated=None if values.evaluated is None else values.evaluated.view(shape),
            **self._fields(values.rows.view(*shape, -1)),
            **_surface_errors(values, alphas, betas),
        )

    def _evaluate(
        self,
        directions: Sequence[Direction],
        coefficients: Sequence[Sequence[float]],
        name: str,
        refinement: Refinement | None = None,
        rule: UpdateRule | None = None,
    ) -> Values:
        """Evaluate at θ + Σ c_k ε_k, or by the rule, for each row c of ``coefficients``."""
        for direction in directions:
            self.landscape.space.check(direction.vector)
        self.landscape.warn_of_policy()
        journal, done = self._open_journal(directions, coefficients, rule)
        with tqdm(
            total=len(coefficients),
            desc=name,
            unit="point",
            disable=not (self._progress and ranks.current().first),
            dynamic_ncols=True,
        ) as bar:
            points = Points(
                self.landscape,
                [self.landscape.batches] + ([] if self._test is None else [self._test]),
                [direction.vector for direction in directions],
                coefficients,
                chunk=self._chunk,
                journal=journal,
                done=done,
                bar=bar,
                rule=rule,
            )
            if self._tolerance is not None:
                values = points.estimate(self._tolerance, refinement)
            elif refinement is None:
                values = Values(points.evaluate(range(len(coefficients))))
            else:
                rows, evaluated = refinement(points.evaluate)
                values = Values(rows, evaluated=evaluated)
        group = ranks.current()
        group.wait_for_first()  # which has written down all points by then
        if journal is not None and not group.first:
            journal.remove()
        return values

    def _open_journal(
        self,
        directions: Sequence[Direction],
        coefficients: Sequence[Sequence[float]],
        rule: UpdateRule | None,
    ) -> tuple[Journal | None, dict[int, list[float]]]:
        """Open the journal of this rank, and return it with the finished points of all ranks."""
        if self._journal is None:
            return None, {}
        group, path = ranks.current(), self._journal
        fingerprint = self._fingerprint(directions, coefficients, rule)
        if not group.first:
            done = group.from_first(dict[int, list[float]])
            return Journal(journal_of_rank(path, group.index), fingerprint), done
        journal = Journal(path, fingerprint)
        journal.take_over()
        return journal, group.from_first(journal.read)

    @property
    def _rounding(self) -> float:
        """The relative rounding of a loss: of half precision it is that of the outputs."""
        return max(SINGLE, float(torch.finfo(self.landscape.theta.dtype).eps))

    def _fields(self, values: Tensor) -> dict[str, Any]:
        """Name the last axis of ``values``, leaving out what was not measured."""
        measured = {"loss": values[..., 0]}
        classes = self.landscape.scores_classes
        if classes:
            measured["accuracy"] = values[..., 1]
        if self._test is not None:
            measured["loss_test"] = values[..., 2]
            if classes:
                measured["accuracy_test"] = values[..., 3]
        return measured

    def _fingerprint(
        self,
        directions: Sequence[Direction],
        points: Sequence[Sequence[float]],
        rule: UpdateRule | None,
    ) -> Fingerprint:
        digest = hashlib.sha256(self.landscape.fingerprint(self._test or ()).encode())
        for direction in directions:
            update_digest(digest, direction.vector)
        digest.update(repr(points).encode())
        if self._tolerance is not None:
            digest.update(repr(self._tolerance).encode())
            # What is asked for depends on the points that are refined.
            digest.update(b"" if self._refine is None else repr(self._refine).encode())
        if rule is not None:
            x, y = (direction.vector.to(self.landscape.theta) for direction in directions)
            last = rule.displacement(self.landscape.theta, x, y, *points[-1])
            update_digest(digest, last)
        return self.landscape.identify(digest.hexdigest())


def _surface_errors(values: Values, alphas: Tensor, betas: Tensor) -> dict[str, Any]:
    """Find the fields of a ``Surface`` that hold errors, none if its losses are exact."""
    shape = (len(alphas), len(betas))
    errors = {key: found.view(shape) for key, found in values.accuracy_errors.items()}
    for key, covariance in values.covariances.items():
        errors[f"{key}_error"] = covariance.diagonal().clamp(min=0).sqrt().view(shape)
    if "loss" in values.covariances:
        covariance = values.covariances["loss"]
        numbers = torch.arange(covariance.shape[0]).view(shape)
        for axis, key in enumerate(("x_step_error", "y_step_error")):
            steps = numbers.unfold(axis, 2, 1)  # (..., 2): from which point to which
            errors[key] = _difference_errors(covariance, steps)
        lines = lines_through_origin(alphas, betas).values()
        on_lines = torch.cat([numbers[i, j] for i, j in lines])
        errors["lines_covariance"] = covariance[on_lines[:, None], on_lines]
    return errors


def _difference_errors(covariance: Tensor, steps: Tensor) -> Tensor:
    """Find the standard errors of differences between points, given by ``(..., 2)`` numbers."""
    first, second = steps[..., 0], steps[..., 1]
    variances = (
        covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    )
    return variances.clamp(min=0).sqrt()


def _check_directions(directions: Sequence[object]) -> None:
    """Raise ``InputError`` unless all are ``Direction``."""
    for direction in directions:
        if not isinstance(direction, Direction):
            raise InputError(
                f"A direction must be a Direction, got {type(direction).__name__}: "
                'Direction(vector, "name") makes one of a vector of shape (D,).'
            )


def _names(directions: Sequence[Direction]) -> list[str]:
    """Name directions by their sources, numbered where a source occurs more than once."""
    sources = [direction.source for direction in directions]
    return [d.name if sources.count(d.source) > 1 else d.source for d in directions]
