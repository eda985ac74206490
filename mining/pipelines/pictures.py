"""The picture of a run: a file in the format that is asked for."""

from matplotlib.figure import Figure

from mining.pipelines.problem import Problem
from mining.plotting import save_figure
from mining.plotting.styles import WIDTHS


def save_picture(problem: Problem, figure: Figure, name: str) -> None:
    """Write the picture of a run in place of the one that it may have in another format.

    Args:
        problem: What was asked for, ``picture`` among it.
        figure: What is drawn.
        name: Of the file, without its suffix.
    """
    wanted = problem.settings.picture
    path = problem.run.directory / f"{name}.{wanted.format}"
    width = WIDTHS[wanted.width] if isinstance(wanted.width, str) else wanted.width
    save_figure(figure, path, dpi=wanted.dpi, width=width)
    problem.run.keep_picture(path)
