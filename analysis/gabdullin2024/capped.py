"""Fig. 4 of Gabdullin (2024): the same surfaces with and without a cap of the loss."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis.panels import draw_surface_runs, explanation, numbers, surface_row
from analysis.records import experiment_runs
from analysis.scripts import Drawing
from mining.plotting import explain, table

#: Nats, as in the paper; and more than any loss.
CAP, NONE = 100.0, 1e300


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw every surface of an experiment twice: as it is, and cut off at 100 nats.

    Args:
        experiment: Its name, ``gabdullin2024/fig04``.
        overrides: What it was run with besides.
    """
    runs = list(experiment_runs(experiment, overrides).itertuples())
    pairs = [
        run._replace(config=run.config | {"picture": run.config["picture"] | {"loss_cap": cap}})
        for run in runs
        for cap in (NONE, CAP)
    ]
    picture = Figure(figsize=(14.4, 3.3 * len(runs) + 0.4), layout="constrained")
    drawn = draw_surface_runs(picture, pairs, len(runs), 4)
    for number, axes in enumerate(drawn):
        note = "no cap" if number % 2 == 0 else f"cap {CAP:g} nats"
        axes.set_title(f"{axes.get_title()}, {note}", fontsize=7)
    explain(picture, drawn, explanation([], runs))
    rows = table([surface_row(run) for run in runs])
    return Drawing(picture, rows, pd.concat([numbers(run) for run in runs]))
