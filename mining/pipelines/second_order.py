"""Compare a curve with its second-order models, and random perturbation with its prediction."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mining import InputError
from mining.evaluation.evaluator import Evaluator
from mining.evaluation.storage import load_curves, save_curves
from mining.explain.second_order import Expansions, expand
from mining.pipelines.finding import find_directions, take_directions
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_expansions, explain
from mining.storage.records import load_record, save_record


@dataclass(frozen=True)
class ExpansionSettings:
    """Where ``pipeline=second_order`` expands the loss; see ``conf/config.yaml``.

    Raises:
        InputError: If a value is out of its range.
    """

    num_points: int = 11
    reach: float = 0.05
    num_offsets: int = 5

    def __post_init__(self) -> None:
        if self.num_points < 2:
            raise InputError(f"expansion.num_points must be at least 2, got {self.num_points}.")
        if not self.reach > 0:
            raise InputError(f"expansion.reach must be positive, got {self.reach}.")
        if self.num_offsets < 3 or self.num_offsets % 2 == 0:
            raise InputError(
                f"expansion.num_offsets must be odd and at least 3, got {self.num_offsets}."
            )

    def points(self, low: float, high: float) -> Tensor:
        """The points of expansion, shape ``(P,)``, float64."""
        return torch.linspace(low, high, self.num_points, dtype=torch.float64)

    @property
    def offsets(self) -> Tensor:
        """Where each parabola is compared with the loss, shape ``(O,)``, float64."""
        return torch.linspace(-self.reach, self.reach, self.num_offsets, dtype=torch.float64)


def run(problem: Problem) -> None:
    """Evaluate one curve and expand it at points between its ends."""
    settings = problem.settings.expansion.make(ExpansionSettings)
    grid, landscape, directory = problem.grid, problem.landscape, problem.run.directory
    progress = problem.settings.progress
    (direction,) = take_directions(
        problem, lambda: find_directions(problem, problem.settings.direction, 1)
    )
    evaluator = Evaluator(landscape, progress=progress, journal=directory / "points.csv")
    curve = evaluator.curve(direction, grid.alphas)
    points = settings.points(grid.low, grid.high)
    found = expand(landscape, direction, points, settings.offsets, progress=progress)
    save_curves(directory / "curves.npz", [curve])
    save_record(directory / "expansions.npz", found, predicted=found.predicted)
    draw(problem)
    problem.run.finish(
        {
            "direction": direction.name,
            "loss_at_theta": curve.loss[curve.origin].item(),
            "alphas": found.alphas.tolist(),
            "slopes": found.slope.tolist(),
            "curvatures": found.curvature.tolist(),
            "errors": found.error.tolist(),
            "relative_errors": found.relative_error.tolist(),
            "metadata": direction.record(),
            **problem.record(),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw the curve with a parabola at every point."""
    directory = problem.run.directory
    (curve,) = load_curves(directory / "curves.npz")
    found = load_record(directory / "expansions.npz", Expansions)
    picture = Figure(figsize=(5.6, 4), layout="constrained")
    axes = picture.add_subplot()
    draw_expansions(axes, curve, found)
    title = f"{directory.parent.name}, {describe_point(problem.settings)}\n{axes.get_title()}"
    axes.set_title(title, fontsize=9)
    explain(picture, [axes], EPOCH)
    save_picture(problem, picture, "expansions")
