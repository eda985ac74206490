"""Class means of the Gauss-Newton matrix of every layer: Figs. 2 and 11."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.archive import Record
from analysis.sankar2021.spectra import first_run, rows_of
from analysis.scripts import Drawing
from mining.pipelines.class_means import CLUSTERS
from mining.pipelines.layers import WHOLE
from mining.plotting import draw_clusters, explain, table
from mining.storage.files import read_arrays

_COLUMNS = ["layer", "size", "silhouette", "class_share", "pair_share"]


def mean_silhouette(records: Sequence[Record]) -> float | None:
    """Average the silhouette over the layers of one training."""
    rows = rows_of(records)
    found = rows[rows["layer"] != WHOLE]["silhouette"].dropna()
    return float(found.mean()) if len(found) else None


def share_of_classes(records: Sequence[Record]) -> float | None:
    """Give the share of the C largest eigenvalues of the network that class means explain."""
    rows = rows_of(records)
    found = rows[rows["layer"] == WHOLE]["class_share"].dropna()
    return float(found.mean()) if len(found) else None


def draw_means(experiment: str, overrides: Sequence[str], *, kind: str) -> Drawing:
    """Draw the class means of all layers of the first training of a network.

    Args:
        experiment: Its name.
        overrides: What it was run with besides.
        kind: Part of the name of the model; the first training of all if there is none such.
    """
    run = first_run(experiment, overrides, kind)
    directory, rows = Path(run.directory), pd.DataFrame(run.metrics["layers"])
    points = read_arrays(directory / "class_means.npz")["points"]
    picture, drawn = draw_clusters(points, list(rows["layer"]), list(rows["silhouette"]))
    picture.suptitle(f"{directory.parent.name}, seed {run.config['seed']}", fontsize=9)
    explain(picture, drawn, CLUSTERS)
    return Drawing(picture, table(rows[_COLUMNS].to_dict("records")), rows)
