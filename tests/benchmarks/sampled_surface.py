"""What a surface costs that is sampled and refined, and whether its errors are true.

.venv/bin/python tests/benchmarks/sampled_surface.py --images 10000 --table outputs/table.pt

A 21 × 21 surface of the published ResNet-20 on CIFAR-10 test images, two filter-normalized
Gaussian directions, frozen statistics, to a standard error of 1 % (``tolerance``) and with
``refine``. Twenty draws of the examples. The points that any of them asks for are evaluated on
every image, and so are forty of the others, taken at random. That takes two hours of a core for
10,000 images; the table keeps it.

Of each kind of point, at losses below the chance level and up to twice that, it prints how many
of the deviations are within two stated standard errors: 95 % if the errors are true. The cost is
the number of forward passes of single images, beside all images at all points.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

from published import images, resnet20

from mining import Gaussian, Landscape
from mining.evaluation.adaptive import estimate_points, interpolate
from mining.evaluation.curves import CEILING
from mining.evaluation.refinement import Refinement

NUM, DRAWS, CHECKED = 21, 20, 40
ORIGIN = NUM // 2 * NUM + NUM // 2


class Table:
    """Loss and correctness of every image at points of the grid, computed when asked for."""

    def __init__(self, num_images: int, path: Path) -> None:
        inputs, targets = images(num_images, "test")
        loss, batches = nn.CrossEntropyLoss(), [(inputs, targets)]
        self.landscape = Landscape(resnet20(), loss, batches, batchnorm="frozen")
        self.num_images, self._path = num_images, path
        self.rows: dict[int, Tensor] = torch.load(path) if path.exists() else {}
        source = Gaussian(normalization="filter")
        generator = torch.Generator().manual_seed(0)
        self._vectors = [
            d.vector for d in source.directions(self.landscape, 2, generator=generator)
        ]
        self._axis = torch.linspace(-1, 1, NUM, dtype=torch.float64).tolist()

    def at(self, number: int) -> Tensor:
        if number not in self.rows:
            point = [self._axis[number // NUM], self._axis[number % NUM]]
            found = self.landscape.losses_of_examples(
                self._vectors, [point], self.landscape.batches
            )
            self.rows[number] = found[0]
            torch.save(self.rows, self._path)
        return self.rows[number]


def draw(table: Table, seed: int, tolerance: float, refine: float) -> tuple[pd.DataFrame, int]:
    """Estimate the surface on one draw of the examples.

    Returns:
        A row for each point, and the number of forward passes.
    """
    passes = 0

    def measure(points: Sequence[int], chosen: Tensor) -> Tensor:
        nonlocal passes
        passes += len(points) * len(chosen)
        return torch.stack([table.at(p)[chosen] for p in points])

    chance = float(table.landscape.chance_loss or 0.0)
    found, between = estimate_points(
        measure,
        Refinement((NUM, NUM), (NUM // 2, NUM // 2), refine, CEILING * chance),
        table.num_images,
        ORIGIN,
        tolerance=tolerance,
        chance_loss=chance,
        generator=torch.Generator().manual_seed(seed),
    )
    evaluated = torch.ones(NUM**2, dtype=torch.bool)
    if between is not None:
        evaluated, found = between.evaluated, interpolate(found, between)
    columns = {
        "point": range(NUM**2),
        "draw": seed,
        "evaluated": evaluated.tolist(),
        "loss": found.loss.tolist(),
        "error": found.covariance.diagonal().sqrt().tolist(),
        "accuracy": found.accuracy.tolist(),
        "accuracy_error": found.accuracy_error.tolist(),
    }
    return pd.DataFrame(columns), passes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--table", type=Path, default=Path("outputs/table.pt"))
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--refine", type=float, default=0.02)
    options = parser.parse_args()
    table = Table(options.images, options.table)
    draws, shares = [], []
    for seed in tqdm(range(DRAWS), desc="draws"):
        rows, passes = draw(table, seed, options.tolerance, options.refine)
        draws.append(rows)
        shares.append(passes / (NUM**2 * table.num_images))
    rest = sorted(set(range(NUM**2)) - set(table.rows))
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(0)).tolist()
    for index in tqdm(order[:CHECKED], desc="points between"):
        table.at(rest[index])
    exact = {p: rows.mean(0).tolist() for p, rows in table.rows.items()}
    rows = pd.concat(draws)
    rows = rows[rows["point"].isin(exact) & (rows["point"] != ORIGIN)]
    truth = pd.DataFrame.from_dict(exact, orient="index", columns=["exact", "exact_accuracy"])
    rows = rows.join(truth, on="point")
    chance = float(table.landscape.chance_loss or 0.0)
    rows = rows[rows["exact"] < CEILING * chance]
    rows["below_chance"] = rows["exact"] < chance
    rows["loss_covered"] = (rows["loss"] - rows["exact"]).abs() <= 2 * rows["error"] + 1e-6
    off = (rows["accuracy"] - rows["exact_accuracy"]).abs()
    rows["accuracy_covered"] = off <= 2 * rows["accuracy_error"] + 1e-6
    rows["relative_error"] = rows["error"] / rows["exact"]
    rows["relative_deviation"] = (rows["loss"] - rows["exact"]).abs() / rows["exact"]
    kinds = rows.groupby(["below_chance", "evaluated"])
    print(kinds[["loss_covered", "accuracy_covered"]].mean().join(kinds.size().rename("n")))
    print(kinds[["relative_error", "relative_deviation"]].quantile([0.5, 0.95]))
    known = pd.concat(draws).groupby("draw")["evaluated"].mean()
    print(f"points evaluated: {known.mean():.3f} of all")
    print(f"passes: 1 / {1 / (sum(shares) / DRAWS):.1f}, largest 1 / {1 / max(shares):.1f}")


if __name__ == "__main__":
    main()
