"""Eigenvectors of the Hessian at both ends of its spectrum."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch

from mining import InputError
from mining.curvature import Eigenpairs, eigenpairs
from mining.curvature.eigen import Method
from mining.directions.base import (
    Convergence,
    Direction,
    DirectionSource,
    SharedSearch,
    as_normalization,
    check_num,
)
from mining.directions.normalization import Name, Normalization
from mining.landscape import Landscape

Ends = Literal["both", "largest", "smallest"]
#: Names of eigenvectors of positive and of negative eigenvalues, less their number.
POSITIVE, NEGATIVE = "P.E.", "N.E."


@dataclass(frozen=True)
class Eigenvectors(DirectionSource):
    """Unit eigenvectors of the Hessian: P.E.1, P.E.2, … and N.E.1, N.E.2, … of the paper.

    P.E.1 belongs to the largest eigenvalue and N.E.1 to the most negative one: Xu et al. (2024),
    Sec. 2.4. The sign of a vector is arbitrary; it is chosen such that the slope of the loss at
    α = 0 is negative. Eigenvectors are not normalized to the norm of θ, because at that distance
    from θ fourth-order terms hide the peak along N.E. (``with_scales`` finds a window that shows
    it).

    Args:
        which: ``largest`` for P.E., ``smallest`` for N.E., ``both`` for half of each, P.E. first
            (one more P.E. if the number is odd).
        start: Number of the first eigenvector; 2 omits P.E.1 and N.E.1.
        parameters: Block of the Hessian, in the format of ``ParameterSpace.select``; the
            direction is zero for all other parameters. ``None`` selects all.
        method: Algorithm: ``lanczos``, ``eigsh`` or ``power``.
        tol: Largest residual, relative to the eigenvalue.
        max_products: Maximum number of matrix-vector products; ``None``: the default of
            ``eigenpairs``.
        normalization: A normalization or its name. One that rescales parts of a vector by different
            factors leaves a direction that is no eigenvector; ``metadata`` is of the eigenvector.

    Raises:
        InputError: If an option is invalid.
    """

    kept_by: ClassVar[Literal["eigenvectors"]] = "eigenvectors"
    which: Ends = "both"
    start: int = 1
    parameters: str | Sequence[str] | None = None
    method: Method = "lanczos"
    tol: float = 1e-3
    max_products: int | None = None
    normalization: Normalization | Name = "none"

    def __post_init__(self) -> None:
        as_normalization(self.normalization)
        if self.which not in get_args(Ends):
            raise InputError(f"direction.which must be one of {get_args(Ends)}, got {self.which}.")
        if self.start < 1:
            raise InputError(f"direction.start must be at least 1, got {self.start}.")

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Compute ``num`` eigenvectors; see ``DirectionSource.directions``.

        ``convergence`` contains the residual ‖Hv - λv‖, and ``metadata`` the ``eigenvalue`` and
        the ``slope`` of the loss along the vector.

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
        normalize = as_normalization(self.normalization)
        directions = []
        for sign, count in ((1, up), (-1, num - up)):
            for index in range(self.start - 1, self.start - 1 + count):
                source = eigenvector_name(sign, index + 1)
                column = _column(found, index, sign, source)
                vector = landscape.space.embed(found.vectors[:, column], operator.space)
                slope = float(vector @ gradient)
                metadata = {
                    "eigenvalue": float(found.values[column]),
                    "slope": -abs(slope),
                }
                convergence = Convergence(
                    bool(found.converged[column]), float(found.residuals[column])
                )
                vector = normalize(
                    -vector if slope > 0 else vector, landscape.theta, landscape.space
                )
                directions.append(
                    Direction(vector, source, metadata=metadata, convergence=convergence)
                )
        return directions

    def shared_search(self, other: DirectionSource) -> SharedSearch | None:
        """Find two eigenvectors of one end at once: N.E.2 is found with N.E.1.

        Raises:
            InputError: If both are one eigenvector.
        """
        if not isinstance(other, Eigenvectors):
            return None
        # One of both ends is of the upper one.
        x, y = (replace(s, which="largest") if s.which == "both" else s for s in (self, other))
        if (x.which, x.start, x.parameters) == (y.which, y.start, y.parameters):
            # The difference of two computations of one vector is error, and no direction.
            name = eigenvector_name(1 if x.which == "largest" else -1, x.start)
            raise InputError(
                f"x_direction and y_direction are both {name}: set which=largest or smallest for "
                "each, or y_direction.start=2."
            )
        if replace(x, start=y.start) != y:
            return None
        first = min(x.start, y.start)
        return SharedSearch(
            abs(y.start - x.start) + 1,
            (x.start - first, y.start - first),
            {"which": y.which, "start": first},
        )


def rounding_of(found: Eigenpairs) -> float:
    """Bound the rounding error in which a zero eigenvalue is computed."""
    return 10 * torch.finfo(found.vectors.dtype).eps * found.largest_magnitude


def eigenvector_name(sign: int, number: int) -> str:
    """Name the ``number``-th eigenvector of positive or negative eigenvalue, from its end."""
    return f"{POSITIVE if sign > 0 else NEGATIVE}{number}"


def signed_number(name: str) -> int:
    """Return the number in the name of an eigenvector, negative of an N.E.; 0 of other names."""
    for sign, prefix in ((1, POSITIVE), (-1, NEGATIVE)):
        if name.startswith(prefix):
            return sign * int(name.removeprefix(prefix))
    return 0


def eigenvector_names(values: Sequence[float], num_largest: int, rounding: float) -> list[str]:
    """Name eigenvectors of both ends of a spectrum.

    Only a positive eigenvalue makes a P.E. and only a negative one an N.E.; others are the
    largest or smallest of their number.

    Args:
        values: Eigenvalues, those of the upper end in descending order first, then those of the
            lower end in ascending order.
        num_largest: How many are of the upper end.
        rounding: Magnitude up to which an eigenvalue passes for zero.
    """
    names = []
    for column, value in enumerate(values):
        sign, number = (1, column + 1) if column < num_largest else (-1, column + 1 - num_largest)
        other = f"{'largest' if sign > 0 else 'smallest'} {number}"
        names.append(eigenvector_name(sign, number) if sign * value > rounding else other)
    return names


def _column(found: Eigenpairs, index: int, sign: int, source: str) -> int:
    """Find the column of the ``index``-th largest eigenvalue of one sign, by magnitude."""
    order = (-sign * found.values).argsort()
    rounding = rounding_of(found)
    of_sign = order[found.values[order] * sign > rounding]
    if index >= len(of_sign):
        computed = f"of the {len(found)} eigenvalues computed at the ends of the spectrum"
        raise InputError(
            f"There is no {source}: {computed} {len(of_sign)} "
            f"{'exceed' if sign > 0 else 'lie below'} zero. Request fewer eigenvectors, or raise "
            "direction.max_products if some were not found."
        )
    return int(of_sign[index])
