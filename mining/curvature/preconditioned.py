"""An operator as a diagonal preconditioner sees it."""

import torch
from torch import Tensor

from mining import InputError
from mining.curvature.operators import CurvatureOperator


class PreconditionedOperator(CurvatureOperator):
    """S^½ (H + W) S^½ with diagonal S and W, which has the eigenvalues of S (H + W).

    Args:
        operator: H, of shape ``(D, D)``.
        scales: The diagonal of S, shape ``(D,)``, not negative.
        shifts: The diagonal of W, shape ``(D,)``; ``None``: zero.

    Raises:
        InputError: If a shape does not fit, or a scale is negative or not finite.
    """

    def __init__(
        self, operator: CurvatureOperator, scales: Tensor, shifts: Tensor | None = None
    ) -> None:
        super().__init__(operator.shape[0], operator.device, operator.dtype, operator.space)
        for name, given in (("scales", scales), ("shifts", shifts)):
            if given is not None and given.shape != (operator.shape[0],):
                raise InputError(
                    f"{name} must have shape ({operator.shape[0]},), got {tuple(given.shape)}."
                )
        if not bool(torch.isfinite(scales).all()) or bool((scales < 0).any()):
            raise InputError("scales must be finite and not negative.")
        self._operator, self.ranks = operator, operator.ranks
        self._roots = scales.double().sqrt().to(operator.device, operator.dtype)
        self._shifts = None if shifts is None else shifts.to(operator.device, operator.dtype)

    def _multiply(self, rows: Tensor) -> Tensor:
        scaled = rows * self._roots
        products = (self._operator @ scaled.T).T
        if self._shifts is not None:
            products = products + self._shifts * scaled
        return products * self._roots
