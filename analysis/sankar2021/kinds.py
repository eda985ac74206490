"""Do layers look like the whole in a transformer? Spectra by kind of layer."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis.archive import kept_or_finished
from analysis.sankar2021.spectra import rows_of
from analysis.scripts import Drawing
from mining.pipelines.layers import WHOLE
from mining.plotting import explain, table

_KINDS = ("embedding", "norm", "query and key", "value and out", "MLP", "head")
_SHOWN = {
    "normalized_wasserstein": "normalized Wasserstein distance",
    "jensen_shannon": "Jensen-Shannon divergence (nats)",
}


def kind_of(layer: str) -> str:
    """Name the kind of a layer of ``ViT`` by its name."""
    last = layer.rpartition(".")[2]
    if layer in ("embedding", "position"):
        return "embedding"
    if last.endswith("norm"):
        return "norm"
    if ".attention." in layer:
        return "query and key" if last in ("query", "key") else "value and out"
    return "MLP" if ".mlp." in layer else "head"


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the distance of the spectrum of each layer from that of the network, by its kind."""
    rows = rows_of(kept_or_finished(experiment, overrides))
    rows = rows[(rows["operator"] == "hessian") & (rows["layer"] != WHOLE)]
    rows = rows.assign(kind=rows["layer"].map(kind_of))
    picture = Figure(figsize=(9, 3.6), layout="constrained")
    panels = list(picture.subplots(1, 2))
    for axes, (column, name) in zip(panels, _SHOWN.items(), strict=True):
        places = [_KINDS.index(kind) for kind in rows["kind"]]
        axes.plot(places, rows[column].to_numpy(), ".", color="0.6", label="a layer of a training")
        means = rows.groupby("kind")[column].mean().reindex(_KINDS)
        axes.plot(range(len(_KINDS)), means.to_numpy(), "s", label="mean")
        axes.set_xticks(range(len(_KINDS)), [kind.replace(" and", "\nand") for kind in _KINDS])
        axes.set_ylabel(name, fontsize=8)
        axes.tick_params(labelsize=7)
    explain(picture, panels)
    return Drawing(picture, table(summary(rows).to_dict("records")), rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Average over the layers of a kind of each training, then over the trainings.

    Returns:
        A row for each kind: mean and standard deviation over trainings of both distances, and
        ``n``, the number of trainings.
    """
    own = rows.groupby(["seed", "kind"])[list(_SHOWN)].mean().reset_index()
    found = []
    for kind in _KINDS:
        chosen = own[own["kind"] == kind]
        numbers = {
            f"{column}, {word}": value
            for column in _SHOWN
            for word, value in (("mean", chosen[column].mean()), ("sd", chosen[column].std()))
        }
        found.append({"kind": kind, **numbers, "n": len(chosen)})
    return pd.DataFrame(found)
