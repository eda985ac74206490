"""Where the trace of a training drops, and where its validation accuracy levels off."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

#: Changes of the mean that are looked for: a rise and a drop.
_BREAKS = 2
#: Fewest epochs between two changes.
_SHORTEST = 2
#: A drop is sharp if at most this part of the mean is left.
_LEFT = 0.5
#: Epochs of the running mean of the validation accuracy; that of the paper's figures.
_WINDOW = 5
#: Percentage points below its maximum at which the accuracy counts as levelled off.
_BELOW = 1.0
#: Two epochs coincide if they are no further apart than this part of the training.
_TOLERANCE = 0.1

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drop:
    """The largest fall of the mean between two changes."""

    place: int  # index of the first epoch after it
    before: float  # mean of the trace
    after: float

    @property
    def sharp(self) -> bool:
        """Whether less than half is left."""
        return self.before > 0 and self.after < _LEFT * self.before


def find_drop(trace: Values) -> Drop | None:
    """Find the change-point of the trace with the largest fall.

    Two change-points of the mean by least squares, exactly (``ruptures``, dynamic programming).

    Args:
        trace: Shape ``(E,)``, one per epoch.

    Returns:
        The larger fall of the two; ``None`` if the mean rises at both, or there are too few epochs.

    Raises:
        ModuleNotFoundError: If ruptures is not installed.
    """
    # Needed for this paper only, and not by the judgement of other claims.
    from ruptures import KernelCPD

    if len(trace) < (_BREAKS + 1) * _SHORTEST:
        return None
    search = KernelCPD(kernel="linear", min_size=_SHORTEST).fit(np.asarray(trace)[:, None])
    ends = [0, *search.predict(n_bkps=_BREAKS)]
    means = [float(trace[low:high].mean()) for low, high in pairwise(ends)]
    falls = [
        Drop(place, before, after)
        for place, before, after in zip(ends[1:-1], means[:-1], means[1:], strict=True)
        if after < before
    ]
    return max(falls, key=lambda fall: fall.before - fall.after, default=None)


def find_plateau(accuracy: Values) -> int | None:
    """Find the epoch from which on the validation accuracy rises no more.

    Args:
        accuracy: Shape ``(E,)``, per cent.

    Returns:
        Index of the first epoch whose running mean is within a percentage point of the largest;
        ``None`` if that is in the last tenth of the training, where it may still rise.
    """
    half = _WINDOW // 2
    windows = [accuracy[max(0, place - half) : place + half + 1] for place in range(len(accuracy))]
    smooth = np.array([window.mean() for window in windows])
    place = int(np.argmax(smooth >= smooth.max() - _BELOW))
    return None if place >= len(accuracy) - _distance(len(accuracy)) else place


def coincide(first: int, second: int, num_epochs: int) -> bool:
    """Whether two epochs are no further apart than a tenth of the training, at least one epoch."""
    return abs(first - second) <= _distance(num_epochs)


def _distance(num_epochs: int) -> int:
    """Return a tenth of the training, at least one epoch."""
    return max(1, round(_TOLERANCE * num_epochs))


def shuffled_share(
    trace: Values, plateau: int, *, num: int = 200, generator: np.random.Generator
) -> float:
    """Give how often the change-point of a trace in random order coincides with a plateau.

    Args:
        trace: Shape ``(E,)``.
        plateau: Index of its epoch.
        num: Random orders.
        generator: Of the orders.
    """
    hits = 0
    for _ in range(num):
        drop = find_drop(generator.permutation(trace))
        hits += drop is not None and coincide(drop.place, plateau, len(trace))
    return hits / num
