"""A finished surface, made evaluable again: its landscape, its axes, and lines between points."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from mining import InputError
from mining.directions import Direction, UpdateRule
from mining.directions.scaling import stretch
from mining.directions.storage import load_directions
from mining.evaluation.curves import Curve
from mining.evaluation.grid import index_of_zero
from mining.evaluation.lines import Coordinates, evaluate_line
from mining.evaluation.storage import load_surface
from mining.pipelines.problem import Problem
from mining.pipelines.settings import Settings
from mining.pipelines.surface import find_rule
from mining.storage.runs import Run

#: A loss at θ that differs by more than this share from that of the surface is another loss.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class ExploredSurface:
    """The landscape and the axes of a finished run of ``pipeline=surface``.

    They are rebuilt from the configuration of the run when they are first needed, and nothing is
    written to its directory. A training that is missing is computed again.

    Args:
        directory: Of the run.
        settings: Of the run, as its record has them.
    """

    directory: Path
    settings: Settings

    def __post_init__(self) -> None:
        if self.settings.pipeline != "surface":
            raise InputError(f"{self.directory} is a run of {self.settings.pipeline}, no surface.")

    def line(
        self,
        ends: tuple[Coordinates, Coordinates],
        points: torch.Tensor,
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> Curve:
        """Evaluate the line through two points on all examples; see ``evaluate_line``.

        Raises:
            InputError: If the directions of the run are missing, or the loss at θ is not that of
                the surface.
        """
        problem = self._problem
        return evaluate_line(
            problem.landscape,
            self._axes,
            ends,
            points,
            test=problem.test,
            rule=self._rule,
            chunk=self.settings.chunk,
            watch=watch,
        )

    @cached_property
    def _problem(self) -> Problem:
        settings = self.settings
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        # Trainings lie in the folder of outputs, which was given relative to another directory.
        name = settings.inputs().directory()
        if self.directory.parts[-len(name.parts) :] == name.parts:
            outputs = self.directory.parents[len(name.parts) - 1]
            settings = replace(settings, outputs=str(outputs))
        problem = Problem(settings.as_read(), Run(self.directory, settings.record()))
        self._check(problem)
        return problem

    def _check(self, problem: Problem) -> None:
        """Raise ``InputError`` if the loss at θ is not the one that the surface has there."""
        surface = load_surface(self.directory / "surface.npz")
        row, column = index_of_zero(surface.alphas), index_of_zero(surface.betas)
        if row is None or column is None:
            return
        found, stored = float(problem.landscape.loss()), float(surface.loss[row, column])
        error = 0.0 if surface.loss_error is None else float(surface.loss_error[row, column])
        if abs(found - stored) > _SAME * abs(stored) + 5 * error:
            raise InputError(
                f"The loss at θ is {found:.6g}, but {stored:.6g} in {self.directory}: the data or "
                "the weights have changed since. Compute the surface again."
            )

    @cached_property
    def _axes(self) -> tuple[Direction, Direction]:
        path = self.directory / "directions.pt"
        if not path.is_file():
            raise InputError(
                f"{path} is missing: the axes are not known. Remove the folder and run again."
            )
        x, y = (stretch(d) for d in load_directions(path, self._problem.landscape))
        return x, y

    @cached_property
    def _rule(self) -> UpdateRule | None:
        return find_rule(self._problem)
