"""What the script of every figure does: find its runs, draw them, and write their numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from analysis.records import figure_options, run_script, save_csv
from mining.plotting import save_figure


@dataclass(frozen=True)
class Drawing:
    """What a figure shows."""

    picture: Figure
    tables: str  # printed
    numbers: pd.DataFrame  # everything that is plotted, written as CSV


#: Draws the runs of an experiment, given its name and what it was run with besides.
Draw = Callable[[str, Sequence[str]], Drawing]


def draw_figure(experiment: str, description: str, draw: Draw) -> None:
    """Draw the finished runs of an experiment, with the options of the command line.

    Prints the tables and the paths of the picture and of the CSV, both of which it writes.

    Args:
        experiment: Its name, ``xu2024/fig08`` for instance.
        description: What the figure shows, for ``--help``.
        draw: How it is drawn.

    Raises:
        FileNotFoundError: If no run of it is finished; names the command that makes them.
    """
    options = figure_options(experiment, description)
    drawing = draw(experiment, options.overrides)
    print(drawing.tables)
    save_csv(drawing.numbers, options.csv)
    save_figure(drawing.picture, options.picture, dpi=options.dpi, width=options.width)
    print(options.picture)
    print(options.csv)


def run_figure(paper: str, folder: str, figures: Mapping[str, tuple[str, Draw]], name: str) -> None:
    """Be the script of a figure or table of a paper.

    Args:
        paper: Its authors and year.
        folder: Of its experiments in ``conf/experiment``.
        figures: What each shows and how it is drawn, by name.
        name: Of the one to draw.
    """
    description, draw = figures[name]
    about = f"{paper}, {description}."
    run_script(partial(draw_figure, f"{folder}/{name}", about, draw))
