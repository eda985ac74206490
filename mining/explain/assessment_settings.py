"""How much an assessment computes."""

from dataclasses import dataclass

from mining import InputError


@dataclass(frozen=True)
class AssessmentSettings:
    """How much ``assess`` computes; see ``assess`` in ``conf/config.yaml``.

    Raises:
        InputError: If a value is out of its range.
    """

    curvature_examples: int | None = 192
    check_examples: int | None = 1000
    num_groups: int = 8
    eigenvalue_products: int = 60
    trace_probes: int = 10
    density_steps: int = 30
    density_probes: int = 2
    rho: float = 0.5
    ascent_steps: int = 3
    fall_steps: int = 8
    num_curves: int = 5
    curve_points: int = 15
    barrier_points: int = 11

    def __post_init__(self) -> None:
        least = {
            "curvature_examples": 2, "check_examples": 2, "num_groups": 2,
            "eigenvalue_products": 10, "trace_probes": 2, "density_steps": 1, "density_probes": 2,
            "ascent_steps": 1, "fall_steps": 1, "num_curves": 1, "curve_points": 11,
            "barrier_points": 3,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise InputError(f"assess.{name} must be at least {smallest}, got {value}.")
        if not 0 < self.rho < float("inf"):
            raise InputError(f"assess.rho must be positive, got {self.rho}.")
