"""An alarm before a training diverges."""

from collections.abc import Mapping, Sequence
from typing import Any

#: Measurements in a row at which the curvature exceeds the limit of the optimizer.
_IN_A_ROW = 2


def alarm_of(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say whether a training is about to diverge, by the rows of a monitor.

    It is, if ``stability`` exceeds 1 at the last two measurements: on a quadratic loss every step
    then moves further away from the minimum. A single one may be the sampling error, or a step
    that lands where the curvature is smaller again. It has diverged where nothing can be measured
    because of an overflow.

    Args:
        rows: What was measured, the last one at the end.

    Returns:
        The reason of the alarm, ``None`` if there is none.
    """
    last = rows[-_IN_A_ROW:]
    if last and isinstance(why := last[-1].get("why"), str):
        return f"At {last[-1]['epoch']:g} nothing could be measured: {why}"
    values = [row.get("stability") for row in last]
    if len(last) < _IN_A_ROW or any(value is None or not value > 1 for value in values):
        return None
    shown = " and ".join(f"{value:.3g}" for value in values)
    where = " and ".join(f"{row['epoch']:g}" for row in last)
    return (
        f"At {where} the curvature was {shown} times as large as the optimizer can bear: lower its "
        "learning rate, or the training may diverge."
    )
