"""Xu et al. (2024), Fig. 9, second row: cosine similarity of directions with eigenvectors.

python -m mining experiment=paper/fig13 && python -m mining experiment=paper/fig09
python -m analysis.fig09
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis.records import find_runs, parser, point_name, run_script
from mining.directions import cosine
from mining.plotting import save_figure, table

#: What must be the same for two runs to look at the same θ.
_THETA = ("model", "data", "train", "seed", "checkpoint", "split", "batchnorm")
_COLUMNS = 3


def theta_of(config: dict[str, Any]) -> str:
    """Describe θ so that runs at the same one agree."""
    return str([point_name(config), *(config[key] for key in _THETA)])


def is_hessian(config: dict[str, Any]) -> bool:
    """Whether a spectrum is that of the whole Hessian."""
    spectrum = config["spectrum"]
    return bool(spectrum["operator"] == "hessian" and spectrum["parameters"] is None)


def read(path: Path) -> dict[str, Tensor]:
    """Read directions by name."""
    content = torch.load(path, weights_only=True)
    sources, indices = content["sources"], content["indices"]
    names = [
        source if sources.count(source) == 1 else f"{source} {index + 1}"
        for source, index in zip(sources, indices, strict=True)
    ]
    return dict(zip(names, content["vectors"], strict=True))


def order(names: list[str]) -> list[str]:
    """Sort as the paper does: N.E.1 to N.E.10, then P.E.10 to P.E.1."""
    number = {name: int(name[4:]) for name in names if name[:4] in ("N.E.", "P.E.")}
    negative = sorted((n for n in number if n.startswith("N.E.")), key=number.__getitem__)
    positive = sorted((n for n in number if n.startswith("P.E.")), key=number.__getitem__)
    return negative + positive[::-1]


def overlaps(runs: pd.DataFrame) -> list[tuple[str, str, int, dict[str, float]]]:
    """Compare every direction with the eigenvectors at its θ.

    Returns:
        The name of θ, that of the direction, D, and |cosine| by the name of the eigenvector.
    """
    spectra = {
        theta_of(run.config): Path(run.directory) / "eigenvectors.pt"
        # Of several at one θ the one of the most examples.
        for run in sorted(
            runs[runs.pipeline == "spectrum"].itertuples(), key=lambda r: r.metrics["num_examples"]
        )
        if is_hessian(run.config) and (Path(run.directory) / "eigenvectors.pt").exists()
    }
    found = []
    for run in runs[runs.pipeline == "curve"].sort_values("directory").itertuples():
        theta = theta_of(run.config)
        if theta in spectra:
            eigenvectors = read(spectra[theta])
            point = f"{run.model}-{run.data}, {point_name(run.config)}, seed {run.seed}, "
            point += f"{run.metrics['num_examples']} examples"
            for name, vector in read(Path(run.directory) / "directions.pt").items():
                cosines = {e: abs(cosine(vector, eigenvectors[e])) for e in order([*eigenvectors])}
                # The same direction may have been followed over several grids.
                if (point, name, len(vector), cosines) not in found:
                    found.append((point, name, len(vector), cosines))
    return sorted(found, key=lambda item: item[:2])


def main() -> None:
    """Print the cosines and draw a panel of bars for every direction."""
    options = parser(__doc__.split("\n")[0], "outputs/fig09.png").parse_args()
    command = "python -m mining experiment=paper/fig13 && python -m mining experiment=paper/fig09"
    found = overlaps(find_runs(options.outputs, command))
    if not found:
        raise FileNotFoundError(
            f"No curve in {options.outputs} starts where a spectrum was computed. Make them: "
            f"{command}"
        )
    lines = -(-len(found) // _COLUMNS)
    picture = Figure(figsize=(5 * _COLUMNS, 2.8 * lines), layout="constrained")
    rows = []
    for position, (point, name, size, cosines) in enumerate(found):
        axes = picture.add_subplot(lines, _COLUMNS, position + 1)
        colors = ["tab:red" if e.startswith("N.E.") else "tab:blue" for e in cosines]
        axes.bar(list(cosines), list(cosines.values()), color=colors)
        # What a direction that has nothing to do with them shows: half normal, mean sqrt(2/(pi D)).
        axes.axhline(math.sqrt(2 / math.pi / size), color="black", linestyle=":", linewidth=1)
        axes.tick_params(axis="x", rotation=90, labelsize=6)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_ylabel("|cosine|", fontsize=8)
        axes.set_title(f"{point}: {name}", fontsize=8)
        ends = {
            end: math.sqrt(sum(c**2 for e, c in cosines.items() if e.startswith(end)))
            for end in ("N.E.", "P.E.")
        }
        rows.append(
            {
                "point": point,
                "direction": name,
                "in the span of N.E.": ends["N.E."],
                "in the span of P.E.": ends["P.E."],
                "largest": max(cosines, key=cosines.__getitem__),
                "|cosine|": max(cosines.values()),
            }
        )
    picture.suptitle("dotted: mean of a random direction", fontsize=9)
    print(table(rows))
    save_figure(picture, options.picture, dpi=options.dpi)
    print(options.picture)


if __name__ == "__main__":
    run_script(main)
