"""The directions of strongest curvature, up and down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from mining.curvature import Eigenpairs, eigenpairs
from mining.curvature.eigen import Method
from mining.directions.base import Direction, DirectionSource, check_num
from mining.errors import InputError
from mining.landscape import Landscape

Ends = Literal["both", "largest", "smallest"]


@dataclass(frozen=True)
class Eigenvectors(DirectionSource):
    """Unit eigenvectors of the Hessian: P.E.1, P.E.2, … and N.E.1, N.E.2, … of the paper.

    P.E.1 belongs to the largest eigenvalue and N.E.1 to the most negative one: Xu et al. (2024),
    Sec. 2.4. The sign of a vector, which is free, is chosen so that the loss at first descends
    towards positive α. They are not brought to the length of θ: the terms of fourth order would
    swallow the peak along N.E. (``with_scales`` finds a window that shows it).

    Args:
        which: ``largest`` gives P.E. alone, ``smallest`` N.E. alone, ``both`` as many of each
            (with an odd number one more P.E.): P.E. first.
        start: Number of the first of each; 2 leaves out P.E.1 and N.E.1.
        parameters: Layers or parameters to differentiate by, as ``ParameterSpace.select`` takes
            them; elsewhere the direction is zero. ``None`` takes all.
        method: How they are computed: ``lanczos``, ``eigsh`` or ``power``.
        tol: Largest residual, relative to the eigenvalue.
        max_products: Most products of the Hessian with a vector; ``None`` as for ``eigenpairs``.

    Raises:
        InputError: If an option is none of what is allowed.
    """

    which: Ends = "both"
    start: int = 1
    parameters: str | Sequence[str] | None = None
    method: Method = "lanczos"
    tol: float = 1e-3
    max_products: int | None = None

    def __post_init__(self) -> None:
        if self.which not in get_args(Ends):
            raise InputError(f"direction.which must be one of {get_args(Ends)}, got {self.which}.")
        if self.start < 1:
            raise InputError(f"direction.start must be at least 1, got {self.start}.")

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Compute ``num`` eigenvectors; see ``DirectionSource.directions``.

        ``info`` holds the ``eigenvalue``, its ``residual`` ‖Hv - λv‖, whether it ``converged`` (1
        or 0), and the ``slope`` of the loss along the vector.

        Raises:
            InputError: If the Hessian has fewer positive or negative eigenvalues.
        """
        check_num(num)
        operator = landscape.hessian(parameters=self.parameters)
        up = {"largest": num, "smallest": 0}.get(self.which, (num + 1) // 2)
        found = eigenpairs(
            operator,
            self.start - 1 + max(up, num - up),
            self.which if num > 1 or self.which != "both" else "largest",
            self.method,
            self.tol,
            generator=generator,
            max_products=self.max_products,
        )
        assert operator.space is not None
        gradient = landscape.gradient()
        directions = []
        for end, sign, count in (("P.E.", 1, up), ("N.E.", -1, num - up)):
            for index in range(self.start - 1, self.start - 1 + count):
                source = f"{end}{index + 1}"
                column = _column(found, index, sign, source)
                vector = landscape.space.embed(found.vectors[:, column], operator.space)
                slope = float(vector @ gradient)
                info = {
                    "eigenvalue": float(found.values[column]),
                    "residual": float(found.residuals[column]),
                    "converged": float(found.converged[column]),
                    "slope": -abs(slope),
                }
                vector = -vector if slope > 0 else vector
                directions.append(Direction(vector, source, info=info))
        return directions


def _column(found: Eigenpairs, index: int, sign: int, source: str) -> int:
    """Find the column of the ``index``-th eigenvalue of a sign, by size."""
    order = (-sign * found.values).argsort()
    # Eigenvalues that are zero come out as what rounding leaves.
    rounding = 10 * torch.finfo(found.vectors.dtype).eps * found.largest_magnitude
    of_sign = order[found.values[order] * sign > rounding]
    if index >= len(of_sign):
        computed = f"of {len(found)} eigenvalues computed at the ends of the spectrum"
        raise InputError(
            f"There is no {source}: {computed} {len(of_sign)} "
            f"{'exceed' if sign > 0 else 'lie below'} zero. Ask for fewer, or raise "
            "direction.max_products if some were not found."
        )
    return int(of_sign[index])
