"""Where curves lie on surfaces: directions projected onto the plane of two others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mining.directions import Direction
from mining.directions.scaling import stretch
from mining.directions.storage import read_directions
from mining.evaluation.curves import Surface
from mining.reporting.encoding import encode


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane of a surface in the space of the parameters.

    Args:
        vectors: Of its two directions, as long as they were followed, shape ``(2, D)``, float64.
        point: The name of its θ.
        surface: For its path, whose points are other θ of the same training.
    """

    vectors: Tensor
    point: str
    surface: Surface

    def start(self, point: str) -> tuple[float, float, float] | None:
        """Find where the curves of a θ begin.

        Args:
            point: Its name.

        Returns:
            α, β and the distance from the plane, as a fraction of the extent of the path;
            ``None``: it is not known where this θ is.
        """
        if point == self.point:
            return 0.0, 0.0, 0.0
        surface = self.surface
        if surface.path is None or surface.path_names is None or surface.path_deviation is None:
            return None
        if point not in surface.path_names:
            return None
        number = surface.path_names.index(point)
        alpha, beta = surface.path[number].tolist()
        return alpha, beta, float(surface.path_deviation[number])

    def place(self, direction: Direction, alphas: Tensor, point: str) -> dict[str, Any] | None:
        """Project a curve onto the plane.

        Args:
            direction: As long as it was followed.
            alphas: The points of the curve, shape ``(T,)``.
            point: The name of its θ.

        Returns:
            ``x`` and ``y`` of its points; the ``share`` of the length of the direction that lies
            in the plane, 1 of a curve on the surface; and the ``deviation`` of its θ. ``None`` if
            the place of its θ is not known, or the direction has other parameters.
        """
        start = self.start(point)
        if start is None or direction.vector.shape != self.vectors.shape[1:]:
            return None
        vector = direction.vector.double()
        found = torch.linalg.lstsq(self.vectors.T, vector[:, None], driver="gelsd").solution[:, 0]
        length = float(vector.norm())
        share = float((found @ self.vectors).norm()) / length if length else 0.0
        x, y = (base + float(step) * alphas for base, step in zip(start[:2], found, strict=True))
        return {"x": encode(x), "y": encode(y), "share": min(share, 1.0), "deviation": start[2]}


def followed_directions(path: Path) -> list[Direction]:
    """Read the directions of a run as they were followed."""
    content = read_directions(path)
    columns = (content[name] for name in ("vectors", "sources", "indices", "metadata"))
    return [stretch(Direction.from_record(*values)) for values in zip(*columns, strict=True)]


def read_plane(path: Path, point: str, surface: Surface) -> Plane:
    """Read the plane of a surface from the directions of its run."""
    vectors = torch.stack([direction.vector.double() for direction in followed_directions(path)])
    return Plane(vectors, point, surface)
