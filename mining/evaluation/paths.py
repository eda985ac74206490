"""Paths through parameter space, projected onto the plane of a surface."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mining import InputError
from mining.directions.base import Direction
from mining.evaluation.curves import Surface


def with_path(
    surface: Surface, theta: Tensor, x: Direction, y: Direction, points: Mapping[str, Tensor]
) -> Surface:
    """Add the projection of a path to a surface, for its picture.

    Each point goes to the nearest one of the plane: α and β minimize the distance between the point
    and θ + αx + βy, whatever the lengths of the two directions and their angle.

    Args:
        surface: Of x and y, by addition.
        theta: θ, shape ``(D,)``.
        x: First direction of the surface, as it was evaluated.
        y: Second direction of the surface.
        points: The points of the path by name, in order, shape ``(D,)`` each.

    Returns:
        The surface with ``path``, ``path_names`` and ``path_deviation``: the distance of each point
        from the plane as a fraction of the largest distance of a point from θ.

    Raises:
        InputError: If there are no points, or one does not have the shape of θ.
    """
    if not points:
        raise InputError("points must be at least one point of a path, got none.")
    axes = torch.stack([x.vector, y.vector]).double()
    products = axes @ axes.T
    coefficients, distances, lengths = [], [], []
    for name, point in points.items():
        if point.shape != theta.shape:
            raise InputError(
                f"{name} must have shape {tuple(theta.shape)}, got {tuple(point.shape)}."
            )
        offset = point.to(theta.device).double() - theta.double()
        found = torch.linalg.solve(products, axes @ offset)
        coefficients.append(found)
        distances.append(torch.linalg.vector_norm(offset - found @ axes))
        lengths.append(torch.linalg.vector_norm(offset))
    extent = torch.stack(lengths).max()
    return replace(
        surface,
        path=torch.stack(coefficients),
        path_names=tuple(points),
        path_deviation=torch.stack(distances) / torch.where(extent > 0, extent, 1.0),
    )
