"""Class means of the Gauss-Newton matrix of every layer: their clusters, and what they explain."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from mining.curvature import eigenpairs
from mining.curvature.class_means import ClassMeans, class_means
from mining.curvature.loss_operators import GaussNewtonOperator
from mining.pipelines.layers import WHOLE
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_clusters, explain
from mining.storage.files import finite, read_arrays, save_arrays, write_atomically

#: Largest residual of an eigenpair, relative to its eigenvalue.
_TOLERANCE = 1e-2
_FILE = "class_means.npz"


def run(problem: Problem) -> None:
    """Compute the class means once, and look at them layer by layer."""
    landscape, directory, seed = problem.landscape, problem.run.directory, problem.settings.seed
    means = class_means(landscape.loss_at(), problem.data.num_classes)
    operator = landscape.gauss_newton()
    blocks = [*landscape.space.layers.items(), (WHOLE, landscape.space.names)]
    rows, points = [], []
    progress = tqdm(blocks, "class means", unit="block", disable=not problem.settings.progress)
    for number, (layer, names) in enumerate(progress):
        part, block = means.of(names), operator.block(names)
        generator = torch.Generator().manual_seed(1000 * seed + number)
        place = None if layer == WHOLE else (number + 0.5) / (len(blocks) - 1)
        silhouette, embedded = _clusters(part, seed)
        points.append(embedded)
        rows.append(
            {"layer": layer, "place": place, "size": block.shape[0], "silhouette": silhouette}
            | _explained(part, block, generator)
        )
    rows = finite(rows)
    names_of_layers = np.array([layer for layer, _ in blocks])
    arrays = {"layers": names_of_layers, "points": np.stack(points)}
    save_arrays(directory / _FILE, arrays)
    write_atomically(directory / "class_means.csv", pd.DataFrame(rows).to_csv(index=False))
    draw(problem)
    problem.run.finish(
        {"layers": rows, "num_classes": problem.data.num_classes, **problem.record()},
        device=str(landscape.device),
    )


def _explained(
    part: ClassMeans, block: GaussNewtonOperator, generator: torch.Generator
) -> dict[str, Any]:
    """Compare the means with the C largest eigenvalues of the Gauss-Newton matrix."""
    num = min(part.num_classes, block.shape[0])
    found = eigenpairs(block, num, tol=_TOLERANCE, generator=generator)
    total = float(found.values.sum())
    of_classes, of_pairs = part.explained(found.vectors)
    return {
        "eigenvalues": total,
        "converged": int(found.converged.sum()),
        "class_share": of_classes / total if total > 0 else None,
        "pair_share": of_pairs / total if total > 0 else None,
    }


def _clusters(part: ClassMeans, seed: int) -> tuple[float | None, np.ndarray]:
    """Give the mean silhouette of the directions of δ_{c,c'} by class c, and embed them.

    Returns:
        The silhouette, between -1 and 1, and t-SNE points, shape ``(C (C - 1), 2)``; ``None`` and
        nan if a mean is zero or there are but two classes, whose clusters have one point each.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    num = part.num_classes
    cosines = part.cosines()
    if cosines is None or num < 3:
        return None, np.full((num * (num - 1), 2), np.nan)
    distances = (1 - cosines).clamp(min=0).fill_diagonal_(0).numpy()
    labels = classes_of(num).numpy()
    embedding = TSNE(
        perplexity=num - 1, metric="precomputed", init="random", random_state=seed % 2**32
    )
    points = embedding.fit_transform(distances)
    return float(silhouette_score(distances, labels, metric="precomputed")), points


def classes_of(num_classes: int) -> Tensor:
    """Give the class c of each row of ``ClassMeans.pairs``."""
    return torch.arange(num_classes).repeat_interleave(num_classes - 1)


def draw(problem: Problem) -> None:
    """Draw the embedded means of every layer, a panel each."""
    directory = problem.run.directory
    arrays, rows = read_arrays(directory / _FILE), pd.read_csv(directory / "class_means.csv")
    picture, drawn = draw_clusters(
        arrays["points"], list(map(str, arrays["layers"])), list(rows["silhouette"])
    )
    picture.suptitle(f"{directory.parent.name}, {describe_point(problem.settings)}", fontsize=9)
    explain(picture, drawn, f"{CLUSTERS} {EPOCH}")
    save_picture(problem, picture, "class_means")


#: What the picture shows.
CLUSTERS = (
    "t-SNE of the means δ_{c,c'} by their angles, coloured by the class c of their examples; "
    "large: the middle of a class."
)
