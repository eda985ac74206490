"""Curves and surfaces of loss and accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mining import InputError
from mining.evaluation.grid import check_increasing, index_of_zero, lines_through_origin

#: Losses above this multiple of the chance level are not told apart, neither in pictures that reach
#: far beyond it nor by refinement.
CEILING = 2
#: Losses above this multiple of the chance level count as exploded; pictures are then cut off.
EXPLODED = 10
#: The rounding of single precision, in which losses are computed unless something else is said.
SINGLE = float(torch.finfo(torch.float32).eps)
_CURVE_FIELDS = ("loss", "accuracy", "loss_test", "accuracy_test")
_COVARIANCES = ("loss_covariance", "loss_test_covariance")
_ACCURACY_ERRORS = ("accuracy_error", "accuracy_test_error")
#: The fields of a curve with values at its points.
CURVE_TENSORS = (*_CURVE_FIELDS, *_COVARIANCES, *_ACCURACY_ERRORS)
_ERRORS = ("loss_error", "loss_test_error", *_ACCURACY_ERRORS)
_OF_DIRECTION = ("scale", "other_alpha", "loss_at_theta")


@dataclass(frozen=True, eq=False)
class Curve:
    """Loss along one direction: L(θ + αε) at the points α.

    Values that overflowed are kept as ``inf`` or ``nan``.

    Raises:
        InputError: If ``alphas`` has fewer than two points or does not increase, or the shape of
            a field differs.
    """

    alphas: Tensor  # (T,) float64, strictly increasing, in units of the direction
    loss: Tensor  # (T,) float64, nats for cross-entropy, mean over examples
    accuracy: Tensor | None = None  # (T,) in [0, 1]
    loss_test: Tensor | None = None  # (T,) on the second set of examples
    accuracy_test: Tensor | None = None  # (T,)
    name: str = ""  # of the direction
    chance_loss: float | None = None  # log C, nats
    metadata: Mapping[str, float] = field(default_factory=dict)  # of the direction, for records
    scale: float | None = None  # by which the direction was multiplied
    other_alpha: float | None = None  # α of the other end, such as another checkpoint
    loss_at_theta: float | None = None  # nats, when the direction was mined to follow a curve
    loss_covariance: Tensor | None = None  # (T, T) of the errors of loss, where it was estimated
    loss_test_covariance: Tensor | None = None  # (T, T)
    accuracy_error: Tensor | None = None  # (T,) standard errors, where it was estimated
    accuracy_test_error: Tensor | None = None  # (T,)
    rounding: float = SINGLE  # relative error to which the losses were computed

    def __post_init__(self) -> None:
        _hold_as_numbers(self)
        check_increasing("alphas", self.alphas)
        for names, shape in (
            ((*_CURVE_FIELDS, *_ACCURACY_ERRORS), self.alphas.shape),
            (_COVARIANCES, (len(self.alphas), len(self.alphas))),
        ):
            for name in names:
                values = getattr(self, name)
                if values is not None and values.shape != shape:
                    raise InputError(
                        f"{name} must have shape {tuple(shape)}, got {tuple(values.shape)}."
                    )

    def record(self) -> dict[str, float]:
        """Return all numbers known of the direction by name, as records show them."""
        typed = {name: getattr(self, name) for name in _OF_DIRECTION}
        return {**self.metadata, **{n: value for n, value in typed.items() if value is not None}}

    @property
    def loss_error(self) -> Tensor | None:
        """Standard errors of ``loss``, shape ``(T,)``; ``None`` if it is exact."""
        return None if self.loss_covariance is None else _errors(self.loss_covariance)

    def difference_error(self, first: int, second: int) -> float:
        """Return the standard error of ``loss[second] - loss[first]``, 0 if losses are exact.

        Both were estimated on the same examples, so it can be far below the errors of the two.
        """
        if self.loss_covariance is None:
            return 0.0
        change = torch.zeros_like(self.loss_covariance[0])
        change[second] += 1
        change[first] -= 1
        variance = change @ self.loss_covariance.nan_to_num() @ change
        return float(variance.clamp(min=0).sqrt())

    @property
    def origin(self) -> int:
        """The index of θ itself, α = 0 to a millionth of the range.

        Raises:
            InputError: If 0 is not among the points.
        """
        nearest = index_of_zero(self.alphas)
        if nearest is None:
            raise InputError(
                f"alphas must contain 0, the point θ itself, got {self.alphas.tolist()}."
            )
        return nearest

    @property
    def relative_error(self) -> float | None:
        """The largest ``loss_error`` relative to the loss, among points below the chance level."""
        return _relative_error(self.loss, self.loss_error, self.chance_loss)

    @property
    def nonfinite(self) -> int:
        """The number of points whose loss is not finite."""
        return int((~torch.isfinite(self.loss)).sum())


@dataclass(frozen=True, eq=False)
class Surface:
    """Loss over the plane of two directions: L(θ + αx + βy) at the grid α × β.

    Raises:
        InputError: If an axis has fewer than two points or does not increase, or the shape of a
            field differs.
    """

    alphas: Tensor  # (A,) float64, strictly increasing, in units of x
    betas: Tensor  # (B,) float64, strictly increasing, in units of y
    loss: Tensor  # (A, B) float64, nats for cross-entropy, mean over examples
    accuracy: Tensor | None = None  # (A, B) in [0, 1]
    loss_test: Tensor | None = None  # (A, B) on the second set of examples
    accuracy_test: Tensor | None = None  # (A, B)
    names: tuple[str, str] = ("", "")  # of the directions x and y
    chance_loss: float | None = None  # log C, nats
    loss_error: Tensor | None = None  # (A, B) standard errors, where loss was estimated
    loss_test_error: Tensor | None = None  # (A, B)
    evaluated: Tensor | None = None  # (A, B) bool; the other points were interpolated
    x_step_error: Tensor | None = None  # (A - 1, B) of loss[a + 1, b] - loss[a, b]
    y_step_error: Tensor | None = None  # (A, B - 1) of loss[a, b + 1] - loss[a, b]
    accuracy_error: Tensor | None = None  # (A, B) standard errors, where it was estimated
    accuracy_test_error: Tensor | None = None  # (A, B)
    rounding: float = SINGLE  # relative error to which the losses were computed
    lines_covariance: Tensor | None = None  # (M, M) of loss at the points of ``lines``, in order
    path: Tensor | None = None  # (n, 2) α and β of a path, projected; see ``with_path``
    path_names: tuple[str, ...] | None = None  # (n,) of its points
    path_deviation: Tensor | None = None  # (n,) of its points from the plane, see ``with_path``

    def __post_init__(self) -> None:
        _hold_as_numbers(self)
        check_increasing("alphas", self.alphas)
        check_increasing("betas", self.betas)
        rows, columns = len(self.alphas), len(self.betas)
        shapes = dict.fromkeys((*_CURVE_FIELDS, *_ERRORS, "evaluated"), (rows, columns))
        shapes |= {"x_step_error": (rows - 1, columns), "y_step_error": (rows, columns - 1)}
        if self.lines_covariance is not None:
            num = sum(len(i) for i, _ in self.lines.values())
            shapes["lines_covariance"] = (num, num)
        checked: dict[str, tuple[int, ...]] = dict(shapes)
        if self.path_names is not None:
            num = len(self.path_names)
            checked |= {"path": (num, 2), "path_deviation": (num,)}
        for name, shape in checked.items():
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise InputError(f"{name} must have shape {shape}, got {tuple(values.shape)}.")

    @property
    def lines(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Rows and columns of the lines through θ; see ``lines_through_origin``."""
        return lines_through_origin(self.alphas, self.betas)

    @property
    def relative_error(self) -> float | None:
        """The largest ``loss_error`` relative to the loss, among points below the chance level."""
        return _relative_error(self.loss, self.loss_error, self.chance_loss)

    @property
    def nonfinite(self) -> int:
        """The number of points whose loss is not finite."""
        return int((~torch.isfinite(self.loss)).sum())


def fields_of(record: Mapping[str, float]) -> dict[str, Any]:
    """Return the fields of a ``Curve`` that hold the numbers of a record of its direction."""
    fields: dict[str, Any] = {name: record.get(name) for name in _OF_DIRECTION}
    rest = {name: value for name, value in record.items() if name not in _OF_DIRECTION}
    return fields | {"metadata": rest}


def _hold_as_numbers(found: "Curve | Surface") -> None:
    """Bring the tensors of a result to the CPU and to float64, without a graph."""
    for item in fields(found):
        value = getattr(found, item.name)
        if isinstance(value, Tensor) and value.dtype != torch.bool:
            object.__setattr__(found, item.name, value.detach().to("cpu", torch.float64))


def _relative_error(loss: Tensor, error: Tensor | None, chance: float | None) -> float | None:
    if error is None:
        return None
    below = loss < (torch.inf if chance is None else chance)
    relative = (error / loss.abs())[below & (error > 0)]
    return float(relative.max()) if len(relative) else 0.0


def _errors(covariance: Tensor) -> Tensor:
    return covariance.diagonal().clamp(min=0).sqrt()


def rmse(curve: Curve, template: Sequence[tuple[float, float]]) -> float:
    """Compute the root mean square error (RMSE) of a curve with respect to a template, nats.

    Args:
        curve: The evaluated curve; points beyond the ends of the template are ignored.
        template: Pairs of α (increasing) and loss, joined by straight lines.
    """
    alphas, losses = zip(*template, strict=True)
    inside = (curve.alphas >= alphas[0]) & (curve.alphas <= alphas[-1])
    targets = torch.from_numpy(np.interp(curve.alphas[inside].numpy(), alphas, losses))
    return float((curve.loss[inside] - targets).square().mean().sqrt())
