"""A number with its error, and whether it means what it is meant to."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """What was measured at a point, as ``assess`` reports it.

    A number that does not apply is still given where it exists: the reader may know better.
    """

    value: float | None  # None: there is no such number, because of why
    error: float | None = None  # standard error; None: not estimated
    applies: bool = True  # whether the number supports the conclusion that its name suggests
    why: str = ""  # the reason, in a sentence, if it does not apply or does not exist

    def record(self) -> dict[str, Any]:
        """Return what goes into ``run.json``: a number that is not finite is none."""
        found = asdict(self)
        for name in ("value", "error"):
            if found[name] is not None and not math.isfinite(found[name]):
                found[name] = None
        return found
