"""Compare a curve with its second-order models, and random perturbation with its prediction."""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mining import InputError
from mining.directions import Direction
from mining.evaluation.evaluator import Evaluator
from mining.evaluation.grid import Grid
from mining.evaluation.storage import load_curves, save_curves
from mining.explain.second_order import Expansions, expand
from mining.pipelines.building import Config
from mining.pipelines.finding import find_directions
from mining.pipelines.schema import make
from mining.pipelines.setting import build_setting, describe_point, take_directions
from mining.plotting import draw_expansions, save_figure
from mining.storage.records import load_record, save_record
from mining.storage.runs import Run


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


def run(config: Config, run: Run) -> None:
    """Evaluate one curve and expand it at points between its ends into ``run``."""
    settings: ExpansionSettings = make("expansion", config["expansion"], ExpansionSettings)
    grid = make("grid", config["grid"], Grid)
    setting = build_setting(config)
    landscape = setting.landscape

    def make_direction() -> list[Direction]:
        return find_directions(config, "direction", 1, setting, grid)

    (direction,) = take_directions(run.directory, landscape, grid.scale, make_direction)
    evaluator = Evaluator(
        landscape, progress=config["progress"], journal=run.directory / "points.csv"
    )
    curve = evaluator.curve(direction, grid.alphas)
    points = settings.points(grid.low, grid.high)
    found = expand(landscape, direction, points, settings.offsets, progress=config["progress"])
    save_curves(run.directory / "curves.npz", [curve])
    save_record(run.directory / "expansions.npz", found, predicted=found.predicted)
    draw(run.directory, config)
    run.finish(
        {
            "direction": direction.name,
            "loss_at_theta": curve.loss[curve.origin].item(),
            "alphas": found.alphas.tolist(),
            "slopes": found.slope.tolist(),
            "curvatures": found.curvature.tolist(),
            "errors": found.error.tolist(),
            "relative_errors": found.relative_error.tolist(),
            "metadata": direction.record(),
            **setting.record(),
        },
        device=str(landscape.device),
    )


def draw(directory: Path, config: Config) -> None:
    """Draw the curve with a parabola at every point."""
    (curve,) = load_curves(directory / "curves.npz")
    found = load_record(directory / "expansions.npz", Expansions)
    picture = Figure(figsize=(5.6, 4), layout="constrained")
    axes = picture.add_subplot()
    draw_expansions(axes, curve, found)
    title = f"{directory.parent.name}, {describe_point(config)}\n{axes.get_title()}"
    axes.set_title(title, fontsize=9)
    save_figure(picture, directory / "expansions.png")
