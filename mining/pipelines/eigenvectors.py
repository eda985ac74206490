"""Compute eigenvectors of the Hessian as directions."""

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from mining import InputError, ranks
from mining.directions import Direction
from mining.directions.storage import read_directions, save_directions
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_eigenvalues, explain


def run(problem: Problem) -> None:
    """Compute ``num_directions`` eigenvectors."""
    settings, landscape = problem.settings, problem.landscape
    source = problem.source(settings.direction)
    if source.kept_by != "eigenvectors":
        raise InputError(
            f"pipeline=eigenvectors: {type(source).__name__} gives none. Take "
            "direction=eigenvectors."
        )
    source = source.bind(problem.checkpoints)
    num = settings.num_directions
    directions = source.directions(landscape, num, generator=problem.generator)
    ranks.on_first(partial(_finish, problem, directions))


def _finish(problem: Problem, directions: Sequence[Direction]) -> None:
    """Write, draw and record the eigenvectors."""
    landscape = problem.landscape
    save_directions(problem.run.directory / "directions.pt", directions, landscape)
    draw(problem)
    problem.run.finish(
        {
            "directions": [direction.source for direction in directions],
            "metadata": [direction.record() for direction in directions],
            **problem.record(),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw the eigenvalues."""
    directory = problem.run.directory
    content = read_directions(directory / "directions.pt")
    picture = Figure(figsize=(5.6, 4), layout="constrained")
    axes = picture.add_subplot()
    draw_eigenvalues(
        axes,
        content["sources"],
        [metadata["eigenvalue"] for metadata in content["metadata"]],
        [metadata["residual"] for metadata in content["metadata"]],
    )
    title = f"{directory.parent.name}, Hessian, {describe_point(problem.settings)}"
    picture.suptitle(title, fontsize=9)
    explain(picture, [axes], EPOCH)
    save_picture(problem, picture, "eigenvalues")
