"""Normalization of directions relative to the parameters that they perturb."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.functional.parameters import ParameterSpace

Name = Literal["model", "layer", "filter", "weight", "none"]


@dataclass(frozen=True)
class Normalization:
    """Rescale parts of a direction to the norm of the same parts of θ.

    - ``model``: the whole vector, ‖ε‖ = ‖θ‖ (Norm in Xu et al., 2024; Im et al., 2016).
    - ``layer``: each parameter tensor (LayNorm in Xu et al., 2024).
    - ``filter``: each filter, that is each slice of a weight along its output axis (Li et al.,
      2018, Sec. 4, the paper's FilNorm).
    - ``weight``: each entry, ε_i becomes sign(ε_i) |θ_i|.
    - ``none``: nothing.

    A part that is zero in the direction stays zero.

    Args:
        name: One of the five.
        order: Order of the norm, 2 or 1.
        vectors: How ``filter`` treats biases and the parameters of norm layers, which have no
            filters: ``zero`` sets them to zero, ``keep`` treats each tensor as one filter.

    Raises:
        InputError: If an argument is invalid.
    """

    name: Name = "model"
    order: Literal[1, 2] = 2
    vectors: Literal["zero", "keep"] = "zero"

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise InputError(f"normalization must be one of {get_args(Name)}, got {self.name!r}.")
        if self.order not in (1, 2):
            raise InputError(f"normalization.order must be 1 or 2, got {self.order}.")
        if self.vectors not in ("zero", "keep"):
            raise InputError(
                f"normalization.vectors must be 'zero' or 'keep', got {self.vectors!r}."
            )

    def __call__(self, direction: Tensor, theta: Tensor, space: ParameterSpace) -> Tensor:
        """Normalize ``direction``, shape ``(D,)``, against ``theta``, shape ``(D,)``.

        Returns:
            Shape ``(D,)``, a new vector, or the given one for ``none``.

        Raises:
            InputError: If a vector does not have shape ``(D,)``.
        """
        space.check(direction)
        space.check(theta)
        match self.name:
            case "none":
                return direction
            case "model":
                return _match_norm(direction, theta, None, self.order)
            case "weight":
                return direction.sign() * theta.abs()
            case "layer":
                return self._each_tensor(direction, theta, space, per_filter=False)
            case "filter":
                return self._each_tensor(direction, theta, space, per_filter=True)

    def _each_tensor(
        self, direction: Tensor, theta: Tensor, space: ParameterSpace, *, per_filter: bool
    ) -> Tensor:
        pieces = []
        for d, w, axis, shape in zip(
            torch.split(direction, space.sizes),
            torch.split(theta, space.sizes),
            space.filter_axes,
            space.shapes,
            strict=True,
        ):
            if per_filter and axis is None and self.vectors == "zero":
                pieces.append(torch.zeros_like(d))
                continue
            within = None
            if per_filter and axis is not None:
                within = tuple(i for i in range(len(shape)) if i != axis)
            pieces.append(_match_norm(d.view(shape), w.view(shape), within, self.order))
        return torch.cat([piece.reshape(-1) for piece in pieces])


def filter_normalize(
    direction: Tensor, theta: Tensor, space: ParameterSpace, *, order: Literal[1, 2] = 2
) -> Tensor:
    """Rescale each filter of ``direction`` to the norm of that filter in ``theta``.

    Biases and the parameters of norm layers are set to zero.
    Li et al. (2018), Visualizing the Loss Landscape of Neural Nets, Sec. 4.

    Args:
        direction: Flat direction, shape ``(D,)``.
        theta: Flat parameters, shape ``(D,)``.
        space: Names and shapes of the ``D`` parameters.
        order: Order of the norm, 2 or 1.

    Returns:
        The normalized direction, shape ``(D,)``.

    Raises:
        InputError: If a vector does not have shape ``(D,)``.
    """
    return Normalization("filter", order)(direction, theta, space)


def orthogonalize(direction: Tensor, against: Tensor) -> Tensor:
    """Remove from ``direction`` its component along ``against``, and keep its norm.

    Args:
        direction: Shape ``(D,)``.
        against: Shape ``(D,)``.

    Returns:
        Shape ``(D,)``, orthogonal to ``against`` to rounding, with the norm of ``direction``.

    Raises:
        InputError: If the two are parallel, or one is zero.
    """
    y, x = direction.double(), against.double()
    norm = vector_norm(y)
    x = x / vector_norm(x)
    rest = y - (x @ y) * x
    rest = rest - (x @ rest) * x  # the second pass removes what rounding left of the first
    if not vector_norm(rest) > 1e-6 * norm:
        raise InputError("The two directions are parallel (or one is zero), so they span no plane.")
    rescaled: Tensor = rest * (norm / vector_norm(rest))
    return rescaled.to(direction.dtype)


def _match_norm(d: Tensor, w: Tensor, within: tuple[int, ...] | None, order: int) -> Tensor:
    """Scale ``d`` so that its norm over the axes ``within`` (``None``: all) is that of ``w``."""

    def norm(x: Tensor) -> Tensor:
        length: Tensor = vector_norm(x, order, within, within is not None, dtype=torch.float64)
        return length

    before = norm(d)
    factor = torch.where(before > 0, norm(w) / before, 0.0)
    return d * factor.to(d.dtype)
