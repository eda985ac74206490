"""A table of the curvature while a model is trained, by any loop."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from mining import InputError
from mining.functional.algorithms import deterministic_algorithms
from mining.functional.batchnorm import BatchNormPolicy, Mode
from mining.functional.loss import LossFunction
from mining.functional.model_call import Objective
from mining.landscape import Landscape
from mining.monitoring.alarm import alarm_of
from mining.monitoring.budget import SIZES, Account, examples_and_interval, interval
from mining.monitoring.measuring import Measured, Measurer
from mining.monitoring.share import take_share
from mining.ranks import alone
from mining.storage.files import write_atomically
from mining.training.isolation import isolated

log = logging.getLogger(__name__)


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
        every: Measure at every such call of ``step``, the first one included. A training that
            goes on is measured where it would have been without the interruption. ``None``:
            measure at the first call, choose the interval at the second such that ``budget`` is
            kept, and wait longer while it is not.
        num_examples: Size of the share; ``None``: 512 if ``every`` is given, and otherwise 64 at
            the first call, and then as many, up to 512, as ``budget`` allows at every tenth call.
            As many other examples serve the bracket.
        budget: Largest share of the time of the training, as a fraction, that measuring takes
            after its first row if ``every`` is not given; what that row took counts.
        batchnorm: The policy under which the loss is measured. ``batch`` is the loss that the
            training sees.
        method: ``lanczos``, begun with the last eigenvector, or ``power``: ten power iterations
            from a random vector, as in Alabdulkareem (2022).
        probes: Random vectors of the trace.
        layers: Find the largest eigenvalue of the diagonal block of every layer, too: as many
            searches more as there are layers, with products of a third of the cost on average.
        path: CSV file that gets every row as soon as it is measured. A monitor of a training that
            goes on finds its rows there. With ``layers``, those of layers are beside it, in
            ``NAME_layers.csv``.
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
        layers: bool = False,
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
        self._regular = every is not None
        self._loss_fn, self._batches, self._objective = loss_fn, batches, objective
        self._budget, self._policy = budget, batchnorm
        self._measurer = Measurer(method, probes, seed, layers)
        self._seed, self._writer = seed, writer
        self._path = None if path is None else Path(path)
        self._layers_path = beside(self._path) if layers and self._path is not None else None
        self._rows = _read(self._path)
        # Chosen at the second call, unless the interval is given and so no budget is kept.
        default = SIZES[-1] if every else _chosen_before(self._rows)
        self._num_examples = num_examples or default
        self._layers = _read(self._layers_path)
        self._share: tuple[int, list[Any]] | None = None  # number of examples, and batches
        self._calls = 0
        self._measured: int | None = None  # call of the last measurement
        self._account = Account.of(self._rows)
        # What a measurement on the first number of examples took, seconds.
        self._first = self._account.next if self._rows and _succeeded(self._rows[-1]) else None
        self._before: float | None = None  # when the last call ended

    @property
    def table(self) -> pd.DataFrame:
        """What was measured, a row for each time; ``docs/monitor.md`` explains the columns."""
        return pd.DataFrame(self._rows)

    @property
    def layers(self) -> pd.DataFrame:
        """What was measured of the diagonal block of every layer, a row for each time and layer.

        ``epoch``, ``layer``, ``place`` ((l - ½) / L of layer l of L), ``trace`` and
        ``trace_standard_error``; with ``layers`` also ``lambda_max``, ``lambda_max_residual`` and
        ``products``, and without it only the rows of this process.
        """
        return pd.DataFrame(self._layers)

    @property
    def alarm(self) -> str | None:
        """Why the training may diverge, by the last measurements; ``None``: no sign of it.

        ``stability`` exceeded 1 at the last two measurements, or the loss overflowed.
        """
        return alarm_of(self._rows)

    @alone()
    def step(self, epoch: float, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Measure, if it is time to.

        Args:
            epoch: Names the row: the epochs that are finished, or a number of steps.
            optimizer: Of the training, for its learning rate and last step.

        Returns:
            The row, ``None`` if nothing was measured.
        """
        started = time.perf_counter()
        trained = 0.0 if self._before is None else started - self._before
        self._account.trained += trained
        self._calls += 1
        if self._calls == 1 and self.every is not None:  # with the rhythm of an earlier process
            self._calls += _calls_since(self._rows, epoch, self.every)
        try:
            if self.every is None and self._first is not None and trained > 0:
                self._choose(self._first, trained, optimizer)
                self._account.spent += time.perf_counter() - started
            return self._measure(epoch, optimizer) if self._due() else None
        finally:
            self._before = time.perf_counter()

    def _due(self) -> bool:
        if self._regular:
            return (self._calls - 1) % (self.every or 1) == 0
        apart = self._measured is None or self._calls - self._measured >= (self.every or 1)
        return apart and self._account.allows(self._budget)

    def _choose(self, seconds: float, trained: float, optimizer: torch.optim.Optimizer) -> None:
        """Choose interval and number of examples by the times of a measurement and of training."""

        def product(num_examples: int) -> float | None:
            with self._isolated(optimizer):
                landscape = self._landscape(num_examples)
                enough = landscape.num_examples >= 2 * num_examples
                return self._measurer.time_product(landscape) if enough else None

        if self._num_examples is None:
            chosen = examples_and_interval(seconds, trained, self._budget, product)
        else:
            chosen = interval(seconds, trained, self._budget, self._num_examples)
        self.every, self._num_examples = chosen.every, chosen.num_examples
        self._account.next = chosen.seconds
        text = "Measuring took %.2g s, and the training between two calls %.2g s. %s"
        log.info(text, seconds, trained, chosen)

    @contextmanager
    def _isolated(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Undo what is done in the block to all that the training has."""
        isolation = isolated((self.model,), (), optimizer, ())
        with isolation, deterministic_algorithms(), torch.enable_grad():
            yield

    def _measure(self, epoch: float, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        started = time.perf_counter()
        with self._isolated(optimizer):
            try:
                landscape = self._landscape(self._num_examples or SIZES[0])
                measured = self._measurer.measure(landscape, self.model, optimizer)
            except ArithmeticError as error:  # as in a training that diverges, which is to go on
                log.warning("Nothing was measured at %g: %s", epoch, error)
                measured = Measured({"lambda_max": None, "why": str(error)}, [])
        seconds = time.perf_counter() - started
        self._account.spent += seconds
        self._account.next, self._measured = seconds, self._calls
        if self._first is None and _succeeded(measured.row):
            self._first = seconds
        row = {
            "epoch": epoch,
            **measured.row,
            "seconds": seconds,
            "time_share": self._account.share,
        }
        self._keep(row, measured)
        return row

    def _landscape(self, num_examples: int) -> Landscape:
        """Give the landscape of a share at the present weights."""
        if self._share is None or self._share[0] != num_examples:
            generator = torch.Generator().manual_seed(self._seed)
            share = take_share(self._batches, 2 * num_examples, generator)
            self._share = (num_examples, share)
        batches = self._share[1]
        if self._objective is not None:
            return Landscape(
                self.model, objective=self._objective, batches=batches, batchnorm=self._policy
            )
        return Landscape(self.model, self._loss_fn, batches, batchnorm=self._policy)

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
        if self._layers_path is not None and self._layers:
            write_atomically(self._layers_path, self.layers.to_csv(index=False))
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and math.isfinite(value) and name != "epoch":
                    self._writer.add_scalar(f"curvature/{name}", value, row["epoch"])


def beside(path: Path) -> Path:
    """Name the file of the layers, beside that of the table."""
    return path.with_name(f"{path.stem}_layers{path.suffix}")


def _read(path: Path | None) -> list[dict[str, Any]]:
    """Read the rows that an earlier process measured."""
    if path is None or not path.exists():
        return []
    table = pd.read_csv(path)
    if "epoch" not in table or "lambda_max" not in table:
        raise InputError(f"{path} is not the table of a monitor: give another path.")
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _succeeded(row: dict[str, Any]) -> bool:
    """Whether a row has numbers; of a file, it has a reason or NaN beside them."""
    return not isinstance(row.get("why"), str)


def _chosen_before(rows: list[dict[str, Any]]) -> int | None:
    """Return the number of examples that an earlier process chose after its first row."""
    found = [row["num_examples"] for row in rows[1:] if row.get("num_examples", 0) > 0]
    # Whole batches may be a few more or less.
    return min(SIZES, key=lambda size: abs(size - found[-1])) if found else None


def _calls_since(rows: list[dict[str, Any]], epoch: float, every: int) -> int:
    """Count the calls between the last row of an earlier process and ``epoch``.

    It is negative if the training goes on from before that row.
    """
    if not rows:
        return 0
    last = float(rows[-1]["epoch"])
    apart = (last - float(rows[-2]["epoch"])) / every if len(rows) > 1 else 1.0
    return round((epoch - last) / apart)
