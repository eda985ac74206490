"""The basins of a surface or of a cloud of points, and the saddles between them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from mining import InputError
from mining.evaluation.curves import Surface
from mining.evaluation.grid import index_of_zero
from mining.explain.valleys import visible_loss

Array = NDArray[np.float64]
#: A basin counts if it is deeper than this many standard errors of its depth.
_ERRORS = 3.0


@dataclass(frozen=True)
class Basin:
    """A region around a local minimum, up to the saddle over which it joins a deeper one.

    The depth is the height of that saddle above the minimum, which topology calls its
    *persistence*. The deepest basin joins none; its depth is the range of the loss.
    """

    at: tuple[float, ...]  # coordinates of the minimum
    loss: float  # there
    depth: float  # in units of the loss
    saddle: tuple[float, ...] | None  # coordinates of the highest point on the way to ``joins``
    saddle_loss: float | None
    joins: int | None  # position of the deeper basin in the list
    on_edge: bool | None = None  # whether the minimum is at the edge of a grid

    def record(self) -> dict[str, Any]:
        """Return the fields as they go into ``run.json``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def find_basins(surface: Surface, least_depth: float = 0.01) -> list[Basin]:
    """Find the basins of a surface, with the saddles between them.

    They are those of the sampled plane: in the other directions the loss may fall. Neighbours of a
    point are the four on the grid. The loss is clipped at the chance level, as for labels of
    curves, and where it is not finite.

    Args:
        surface: The surface.
        least_depth: Depth of a basin relative to the range of the clipped loss; the deepest one is
            always there. Of a surface with sampling errors, a basin is also deeper than three
            standard errors of its depth, taken as independent.

    Returns:
        The basins, the deepest first; coordinates are (α, β).

    Raises:
        InputError: If ``least_depth`` is not between 0 and 1, or no point is finite.
    """
    rows, columns = surface.loss.shape
    numbers = np.arange(rows * columns).reshape(rows, columns)
    edges = np.concatenate(
        [
            np.stack([numbers[:-1].ravel(), numbers[1:].ravel()], 1),
            np.stack([numbers[:, :-1].ravel(), numbers[:, 1:].ravel()], 1),
        ]
    )
    mesh = torch.meshgrid(surface.alphas, surface.betas, indexing="ij")
    points = torch.stack([axis.flatten() for axis in mesh], 1).numpy()
    row, column = index_of_zero(surface.alphas), index_of_zero(surface.betas)
    values = surface.loss.flatten().numpy()
    _check(values, least_depth)
    theta = np.nanmin(values) if row is None or column is None else float(surface.loss[row, column])
    visible = visible_loss(values, theta, surface.chance_loss)
    errors = None if surface.loss_error is None else surface.loss_error.flatten().numpy()
    inner = numbers[1:-1, 1:-1]
    on_edge = ~np.isin(numbers.ravel(), inner)
    return _list(points, visible, edges, least_depth, errors, on_edge)


def find_basins_of_points(
    points: Tensor, losses: Tensor, *, neighbors: int = 8, least_depth: float = 0.01
) -> list[Basin]:
    """Find the basins of a loss that was evaluated at scattered points.

    Each point is joined to its nearest neighbours. A basin is found if points lie in it and along
    a way out of it: few points in many dimensions find basins that are none, so compare with more
    points and other numbers of neighbours.

    Args:
        points: Coordinates in the space that is sampled, shape ``(n, k)``.
        losses: Shape ``(n,)``.
        neighbors: Nearest neighbours of a point, at least 1.
        least_depth: As for ``find_basins``.

    Returns:
        The basins, the deepest first.

    Raises:
        InputError: If the shapes do not fit, an option is out of its range, a loss is not finite,
            or the neighbours leave the points in several parts.
    """
    place, values = points.detach().cpu().double().numpy(), losses.detach().cpu().double().numpy()
    if place.ndim != 2 or values.shape != place.shape[:1]:
        raise InputError(
            f"points must have shape (n, k) and losses (n,), got {place.shape} and {values.shape}."
        )
    if not 1 <= neighbors < len(values):
        raise InputError(f"neighbors must be between 1 and {len(values) - 1}, got {neighbors}.")
    _check(values, least_depth)
    if not np.isfinite(values).all():
        raise InputError("The losses must be finite: leave out points at which they are not.")
    _, nearest = cKDTree(place).query(place, neighbors + 1)
    edges = np.stack([np.repeat(np.arange(len(values)), neighbors + 1), nearest.ravel()], 1)
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(values), len(values)))
    parts, _ = connected_components(graph, directed=False)
    if parts > 1:
        raise InputError(f"{neighbors} neighbors leave the points in {parts} parts: give more.")
    return _list(place, values, edges, least_depth, None, None)


def _check(values: Array, least_depth: float) -> None:
    if not 0 <= least_depth < 1:
        raise InputError(f"least_depth must be at least 0 and below 1, got {least_depth}.")
    if not np.isfinite(values).any():
        raise InputError("No point has a finite loss, so there is no basin.")


def _list(
    points: Array,
    values: Array,
    edges: NDArray[np.int64],
    least_depth: float,
    errors: Array | None,
    on_edge: NDArray[np.bool_] | None,
) -> list[Basin]:
    """Turn the branches of the merge tree that are deep enough into basins."""
    span = float(values.max() - values.min())
    branches = {branch.bottom: branch for branch in _merge_tree(values, edges)}

    def depth(branch: "_Branch") -> float:
        return span if branch.saddle is None else float(values[branch.saddle] - branch.loss)

    def counts(branch: "_Branch") -> bool:
        if branch.saddle is None:
            return True
        error = 0.0 if errors is None else float(np.hypot(*errors[[branch.bottom, branch.saddle]]))
        return depth(branch) > max(least_depth * span, _ERRORS * error)

    kept = sorted(filter(counts, branches.values()), key=depth, reverse=True)
    positions = {branch.bottom: position for position, branch in enumerate(kept)}

    def joined(branch: "_Branch") -> int | None:
        parent = branch.parent
        while parent is not None and parent not in positions:  # too shallow to count
            parent = branches[parent].parent
        return None if parent is None else positions[parent]

    return [
        Basin(
            at=tuple(points[branch.bottom].tolist()),
            loss=branch.loss,
            depth=depth(branch),
            saddle=None if branch.saddle is None else tuple(points[branch.saddle].tolist()),
            saddle_loss=None if branch.saddle is None else float(values[branch.saddle]),
            joins=joined(branch),
            on_edge=None if on_edge is None else bool(on_edge[branch.bottom]),
        )
        for branch in kept
    ]


@dataclass(frozen=True)
class _Branch:
    """A branch of the merge tree of a function on a connected graph."""

    bottom: int  # the vertex at which it begins
    loss: float  # there
    saddle: int | None  # the vertex at which it joins another
    parent: int | None  # the bottom of that


def _merge_tree(values: Array, edges: Iterable[Iterable[int]]) -> list[_Branch]:
    """Join the components of {values ≤ t} as t rises; the one with the higher bottom ends.

    Branches that end where they begin, at vertices that are no minima, are left out.
    """
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    lower: list[list[int]] = [[] for _ in order]
    for first, second in edges:
        if first != second:
            later, earlier = sorted((int(first), int(second)), key=rank.__getitem__, reverse=True)
            lower[later].append(earlier)
    components = DisjointSet(range(len(order)))
    bottom = {int(vertex): int(vertex) for vertex in order}  # of a component, by its root
    branches = []
    for vertex in map(int, order):
        for neighbor in lower[vertex]:
            ends = sorted(
                (bottom[components[vertex]], bottom[components[neighbor]]), key=rank.__getitem__
            )
            if ends[0] == ends[1]:
                continue
            components.merge(vertex, neighbor)
            bottom[components[vertex]] = ends[0]
            if ends[1] != vertex:
                branches.append(_Branch(ends[1], float(values[ends[1]]), vertex, ends[0]))
    lowest = int(order[0])
    return [_Branch(lowest, float(values[lowest]), None, None), *branches]
