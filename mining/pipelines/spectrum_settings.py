"""What ``pipeline=spectrum`` is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mining import InputError
from mining.curvature.eigen import Method as EigenMethod
from mining.curvature.trace import Method as TraceMethod

Kind = Literal["hessian", "gauss_newton", "residual"]


@dataclass(frozen=True)
class SpectrumSettings:
    """What ``pipeline=spectrum`` computes, and how exactly; see ``conf/config.yaml``.

    Raises:
        InputError: If a value is out of its range.
    """

    operator: Kind = "hessian"
    parameters: str | Sequence[str] | None = None
    num_eigenvalues: int = 10
    method: EigenMethod = "lanczos"
    tol: float = 1e-3
    max_products: int | None = None
    trace_method: TraceMethod = "xtrace"
    trace_error: float | None = 0.05
    trace_products: int = 400
    density_steps: int = 60
    density_probes: int = 8
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if self.operator not in get_args(Kind):
            raise InputError(
                f"spectrum.operator must be one of {get_args(Kind)}, got {self.operator!r}."
            )
        for name in ("num_eigenvalues", "trace_products", "density_probes"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"spectrum.{name} must be 0, which leaves it out, or more, got "
                    f"{getattr(self, name)}."
                )
        if not (self.num_eigenvalues or self.trace_products or self.density_probes):
            raise InputError(
                "spectrum.num_eigenvalues, trace_products and density_probes are all 0: nothing "
                "is left to compute."
            )
        if self.density_probes == 1:
            raise InputError("spectrum.density_probes must be 0 or at least 2, got 1.")
        if self.density_steps < 1:
            raise InputError(
                f"spectrum.density_steps must be at least 1, got {self.density_steps}."
            )
        if 0 < self.trace_products < 6:
            raise InputError(
                f"spectrum.trace_products must be 0 or at least 6, got {self.trace_products}."
            )
        if not 0 < self.tol < 1:
            raise InputError(f"spectrum.tol must be between 0 and 1, got {self.tol}.")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"spectrum.micro_batch must be at least 1, got {self.micro_batch}.")
