"""A table of the curvature while a model is trained, by any loop."""

import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from mining import InputError
from mining.functional.batchnorm import BatchNormPolicy, Mode
from mining.functional.loss import LossFunction
from mining.functional.model_call import Objective
from mining.landscape import Landscape
from mining.monitoring.alarm import alarm_of
from mining.monitoring.algorithms import deterministic_algorithms
from mining.monitoring.measuring import Measured, Measurer
from mining.monitoring.share import take_share
from mining.storage.files import write_atomically
from mining.training.isolation import isolated

log = logging.getLogger(__name__)

#: Examples that are measured if neither their number nor the interval is given.
_EXAMPLES = 512


class Monitor:
    """Measures the curvature of the training loss while a model is trained.

    ``monitor.step(epoch, optimizer)`` after every epoch, or after any number of steps, is all that
    a loop needs. What it does leaves the training as it was, bit for bit: weights, buffers, modes,
    gradients, the state of the optimizer and all random numbers.

    Measured is the loss on a fixed random share of the examples. The largest eigenvalue of a share
    exceeds that of all examples on average, and the Rayleigh quotient of its eigenvector on other
    examples falls short of it: the two bracket it.

    Args:
        model: The model that is trained.
        loss_fn: The loss, as for ``Landscape``.
        batches: Examples of the training, as for ``Landscape``; a ``DataLoader`` or another
            iterable that can be gone through again.
        objective: Instead of ``loss_fn``: maps model and batch to the loss of the batch.
        every: Measure at every such call of ``step``, the first one included; ``None`` chooses the
            interval at the second call such that ``budget`` is kept.
        num_examples: Size of the share; ``None``: 512. As many other examples serve the bracket.
        budget: Largest share of the time of the training, as a fraction, that measuring takes if
            ``every`` is not given.
        batchnorm: The policy under which the loss is measured. ``batch`` is the loss that the
            training sees.
        method: ``lanczos``, begun with the last eigenvector, or ``power``: ten power iterations
            from a random vector, as in Alabdulkareem et al. (2022).
        probes: Random vectors of the trace.
        path: CSV file that gets every row as soon as it is measured. A monitor of a training that
            goes on finds its rows there.
        writer: ``torch.utils.tensorboard.SummaryWriter`` that gets them too.
        seed: Of the share and of the random vectors.

    Where products overflow, as in a training that diverges, a row has no numbers, and ``why`` says
    so.

    Raises:
        InputError: If an option is out of its range, or ``path`` holds something else.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None = None,
        batches: Iterable[Any] = (),
        *,
        objective: Objective | None = None,
        every: int | None = None,
        num_examples: int | None = None,
        budget: float = 0.03,
        batchnorm: BatchNormPolicy | Mode = "batch",
        method: str = "lanczos",
        probes: int = 10,
        path: str | Path | None = None,
        writer: Any = None,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("every", every, 1), ("num_examples", num_examples, 4), ("probes", probes, 2)
        ):  # fmt: skip
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}.")
        if not 0 < budget < 1:
            raise InputError(f"budget must be between 0 and 1, got {budget}.")
        self.model, self.every = model, every
        self._loss_fn, self._batches, self._objective = loss_fn, batches, objective
        self._num_examples = num_examples or _EXAMPLES
        self._budget, self._policy = budget, batchnorm
        self._measurer = Measurer(method, probes, seed)
        self._seed, self._writer = seed, writer
        self._path = None if path is None else Path(path)
        self._rows = _read(self._path)
        self._layers: list[dict[str, Any]] = []
        self._share: list[Any] | None = None
        self._calls = 0
        self._spent = 0.0  # by measuring, seconds
        self._before: float | None = None  # when the last call ended
        self._trained = 0.0  # between calls, seconds

    @property
    def table(self) -> pd.DataFrame:
        """What was measured, a row for each time; ``docs/monitor.md`` explains the columns."""
        return pd.DataFrame(self._rows)

    @property
    def layers(self) -> pd.DataFrame:
        """Traces of the diagonal blocks: ``epoch``, ``parameter``, ``trace``, ``standard_error``.

        Those of this process; the file holds the table only.
        """
        return pd.DataFrame(self._layers)

    @property
    def alarm(self) -> str | None:
        """Why the training may diverge, by the last measurements; ``None``: no sign of it.

        ``stability`` exceeded 1 at the last two measurements, or the loss overflowed.
        """
        return alarm_of(self._rows)

    def step(self, epoch: float, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Measure, if it is time to.

        Args:
            epoch: Names the row: the epochs that are finished, or a number of steps.
            optimizer: Of the training, for its learning rate and last step.

        Returns:
            The row, ``None`` if nothing was measured.
        """
        started = time.perf_counter()
        if self._before is not None:
            self._trained += started - self._before
        self._calls += 1
        row = None
        try:
            if self._calls == 2 and self.every is None:
                self.every = self._interval()
            if self._calls == 1 or (self._calls - 1) % (self.every or 1) == 0:
                row = self._measure(epoch, optimizer, started)
        finally:
            self._before = time.perf_counter()
        return row

    def _interval(self) -> int:
        """Choose how many calls lie between two rows, by what the first one took."""
        interval = max(1, math.ceil(self._spent / (self._budget * max(self._trained, 1e-9))))
        log.info(
            "Measuring took %.2g s and the training between two calls %.2g s: the curvature is "
            "measured at every %d. call, which takes %.1f %% of the time of the training.",
            self._spent,
            self._trained,
            interval,
            100 * self._spent / (interval * max(self._trained, 1e-9)),
        )
        return interval

    def _measure(
        self, epoch: float, optimizer: torch.optim.Optimizer, started: float
    ) -> dict[str, Any]:
        isolation = isolated((self.model,), (), optimizer, ())
        with isolation, deterministic_algorithms(), torch.enable_grad():
            try:
                measured = self._measurer.measure(self._landscape(), self.model, optimizer)
            except ArithmeticError as error:  # as in a training that diverges, which is to go on
                log.warning("Nothing was measured at %g: %s", epoch, error)
                measured = Measured({"lambda_max": None, "why": str(error)}, [])
        seconds = time.perf_counter() - started
        self._spent += seconds
        row = {
            "epoch": epoch,
            **measured.row,
            "seconds": seconds,
            "time_share": self._spent / self._trained if self._trained > 0 else math.nan,
        }
        self._keep(row, measured)
        return row

    def _landscape(self) -> Landscape:
        """Give the landscape of the share at the present weights."""
        if self._share is None:
            generator = torch.Generator().manual_seed(self._seed)
            self._share = take_share(self._batches, 2 * self._num_examples, generator)
        if self._objective is not None:
            return Landscape(
                self.model,
                objective=self._objective,
                batches=self._share,
                batchnorm=self._policy,
            )
        return Landscape(self.model, self._loss_fn, self._share, batchnorm=self._policy)

    def _keep(self, row: dict[str, Any], measured: Measured) -> None:
        # A training that goes on from an earlier epoch measures the later ones anew.
        self._rows = [r for r in self._rows if r["epoch"] < row["epoch"]]
        before, alarm = alarm_of(self._rows), alarm_of([*self._rows, row])
        if alarm and not before:
            log.warning("%s", alarm)
        row["alarm"] = alarm is not None
        self._rows.append(row)
        self._layers = [r for r in self._layers if r["epoch"] < row["epoch"]]
        self._layers += [{"epoch": row["epoch"], **layer} for layer in measured.layers]
        if self._path is not None:
            write_atomically(self._path, self.table.to_csv(index=False))
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and math.isfinite(value) and name != "epoch":
                    self._writer.add_scalar(f"curvature/{name}", value, row["epoch"])


def _read(path: Path | None) -> list[dict[str, Any]]:
    """Read the rows that an earlier process measured."""
    if path is None or not path.exists():
        return []
    table = pd.read_csv(path)
    if "epoch" not in table or "lambda_max" not in table:
        raise InputError(f"{path} is not the table of a monitor: give another path.")
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
