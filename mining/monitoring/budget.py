"""On how many examples, and how often, to measure within a share of the time of a training."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Examples of the first measurement, and what may follow: the errors go as one over the root.
SIZES = (64, 128, 256, 512)
#: More examples are not worth a longer interval than this, in calls.
_LONGEST = 10


@dataclass(frozen=True)
class Schedule:
    """How a training is measured from its second call on."""

    num_examples: int
    every: int  # calls
    seconds: float  # expected time of a measurement
    trained: float  # time of the training between two calls, seconds

    @property
    def time_share(self) -> float:
        """Expected time of the measurements relative to that of the training."""
        return self.seconds / (self.every * self.trained)

    def __str__(self) -> str:
        """Say it in a sentence."""
        text = f"The curvature is measured on about {self.num_examples} examples at every "
        text += f"{self.every}. call, which takes about {self.time_share:.1%} of the time of the "
        text += "training."
        if self.num_examples < SIZES[-1]:
            ratio = math.sqrt(SIZES[-1] / self.num_examples)
            text += f" Sampling errors are about {ratio:.2g} times those of {SIZES[-1]} examples."
        return text


def interval(seconds: float, trained: float, budget: float, num_examples: int) -> Schedule:
    """Choose how often to measure.

    Args:
        seconds: Time of a measurement.
        trained: Time of the training between two calls, seconds.
        budget: Largest ratio of the two, as a fraction.
        num_examples: Examples of the measurement.
    """
    every = max(1, math.ceil(seconds / (budget * trained)))
    return Schedule(num_examples, every, seconds, trained)


def examples_and_interval(
    seconds: float, trained: float, budget: float, product: Callable[[int], float | None]
) -> Schedule:
    """Choose on how many examples to measure, and how often.

    These are the most examples, up to 512, that can be measured at every tenth call at least; 64,
    as seldom as the budget demands, if there is no such number.

    Args:
        seconds: Time of a measurement on 64 examples.
        trained: Time of the training between two calls, seconds.
        budget: Largest ratio of the time of the measurements to that of the training.
        product: Gives the time of a matrix-vector product on a number of examples, seconds;
            ``None`` if there are not as many.
    """
    chosen = interval(seconds, trained, budget, SIZES[0])
    if chosen.every > _LONGEST:  # more examples would take even longer
        return chosen
    first = product(SIZES[0])
    for size in SIZES[1:]:
        taken = product(size)
        if first is None or taken is None:
            break
        tried = interval(seconds * taken / first, trained, budget, size)
        if tried.every > _LONGEST:
            break
        chosen = tried
    return chosen


@dataclass
class Account:
    """What measuring and training have taken so far."""

    spent: float = 0.0  # by measuring, and by choosing how often to, seconds
    trained: float = 0.0  # between calls, seconds
    next: float | None = None  # what a measurement is expected to take, seconds; None: not known

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Account":
        """Go on with the account of an earlier process, whose table has these rows."""
        if not rows:
            return cls()
        spent = sum(float(row["seconds"]) for row in rows)
        share = float(rows[-1]["time_share"])  # NaN before the training had begun
        return cls(spent, spent / share if share > 0 else 0.0, float(rows[-1]["seconds"]))

    @property
    def share(self) -> float:
        """Time of measuring relative to that of the training; NaN before it began."""
        return self.spent / self.trained if self.trained > 0 else math.nan

    def allows(self, budget: float) -> bool:
        """Whether one more measurement keeps the budget, a fraction; the first one has none."""
        return self.next is None or self.spent + self.next <= budget * self.trained
