"""Does the alarm of a ``Monitor`` come before a training diverges?

.venv/bin/python tests/benchmarks/divergence.py

Forty trainings on the digits, of an MLP and a CNN without batch norm, with SGD, momentum and Adam.
The learning rate rises linearly from zero to its peak during the first 150 of 200 steps. The peaks
are so chosen, from trainings with other seeds and no monitor, that about half of them diverge.

The criterion, written before the run:

- A training has diverged if the loss of a batch is not finite or exceeds ten times that of the
  first batch, at that step; it ends there. It has also diverged if its running loss, the mean over
  ten batches, ends above half of the loss of the first batch: at the step from which on the running
  loss stayed above that.
- Everything is measured after every eighth step, on 128 examples. A predictor warns at the first
  measurement that confirms it: it must hold at two measurements in a row. Predictors are
  ``stability`` > 1, which is the alarm of the monitor; critical sharpness times η/2 > 1, which is
  that the last update, once more, would not lower the loss; and two of the loss of the same
  examples: it exceeds that of the first measurement; it exceeds twice the smallest so far.
- A warning is right if the training diverges at a later step. Precision is the share of right ones
  among the trainings that were warned, recall the share of trainings that diverged that were warned
  before. The lead is the number of steps between warning and divergence.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

from mining import Monitor
from mining.data import digits

STEPS, WARM_UP, EVERY = 200, 150, 8
BATCH, EXAMPLES = 64, 128
#: A training has diverged where its loss exceeds that at the beginning by this factor.
LEFT_SCALE = 10.0
#: It has learned something while its running loss is below this share of that at the beginning.
FELL, RUNNING = 0.5, 10

#: Learning rates between those that trained and those that did not, with another seed.
MIDDLE = {
    ("mlp", "sgd"): 1.4, ("mlp", "momentum"): 0.35, ("mlp", "adam"): 0.09,
    ("cnn", "sgd"): 1.4, ("cnn", "momentum"): 0.18, ("cnn", "adam"): 0.09,
}  # fmt: skip
#: Peaks relative to that: seven, and six for Adam.
FACTORS = (0.25, 0.5, 0.71, 1.0, 1.41, 2.0, 4.0)
FACTORS_OF_ADAM = (0.18, 0.35, 0.71, 1.41, 2.8, 5.7)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    ),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    ),
}  # fmt: skip

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
    "adam": torch.optim.Adam,
}


#: Where the table of all trainings is kept.
TABLE = Path(__file__).with_suffix(".csv")
#: Columns of the steps at which they warned.
PREDICTORS = ("alarm", "critical", "loss_above_first", "loss_doubled")
#: The columns that are steps; empty where there is none.
STEPS_OF = dict.fromkeys(("diverged_at", *PREDICTORS), "Int64")


@dataclass(frozen=True)
class Training:
    """How a training went."""

    table: pd.DataFrame  # of the monitor
    diverged_at: int | None  # step
    final_loss: float  # of its last batch


def train(network: str, optimizer: str, peak: float, seed: int, *, measured: bool) -> Training:
    """Train until the end or until it diverges."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model, examples = NETWORKS[network](), digits().train
    data = TensorDataset(examples.inputs, examples.labels)
    loader = DataLoader(data, BATCH, shuffle=True, generator=generator)
    stepper = OPTIMIZERS[optimizer](model.parameters(), lr=peak)
    monitor = Monitor(
        model, F.cross_entropy, loader, every=1, num_examples=EXAMPLES, probes=2, seed=seed
    )
    losses: list[float] = []
    for step, (inputs, targets) in enumerate(_endless(loader), start=1):
        for group in stepper.param_groups:
            group["lr"] = peak * min(1, step / WARM_UP)
        stepper.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        stepper.step()
        losses.append(float(loss.detach()))
        if step == STEPS or not losses[-1] <= LEFT_SCALE * losses[0]:
            break
        if measured and step % EVERY == 0:
            monitor.step(step, stepper)
    return Training(monitor.table, diverged_at(losses), losses[-1])


def diverged_at(losses: list[float]) -> int | None:
    """Give the step at which a training diverged, by the losses of its batches."""
    if not losses[-1] <= LEFT_SCALE * losses[0]:
        return len(losses)
    running = pd.Series(losses).rolling(RUNNING, min_periods=1).mean()
    low = running <= FELL * losses[0]
    if low.iloc[-1]:
        return None
    return int(low[low].index[-1]) + 2 if low.any() else 1  # the index begins at zero


def _endless(loader: "DataLoader[tuple[torch.Tensor, ...]]") -> Iterator[tuple[torch.Tensor, ...]]:
    while True:
        yield from loader


def warnings(table: pd.DataFrame) -> dict[str, int | None]:
    """Give the step at which each predictor warned, by the table of a monitor."""
    smallest = table.loss.cummin()
    signs = {
        "alarm": table.stability > 1,
        "critical": table.critical_sharpness * table.lr / 2 > 1,
        "loss_above_first": table.loss > table.loss.iloc[0],
        "loss_doubled": table.loss > 2 * smallest,
    }
    found: dict[str, int | None] = {}
    for name, sign in signs.items():
        twice = sign & sign.shift(fill_value=False)
        found[name] = int(table.epoch[twice].iloc[0]) if twice.any() else None
    return found


def run(numbered: list[tuple[int, str, str, float]]) -> pd.DataFrame:
    """Train each; a row for each with what was warned of, and when."""
    rows = []
    for seed, network, optimizer, peak in numbered:
        training = train(network, optimizer, peak, seed, measured=True)
        rows.append(
            {
                "network": network,
                "optimizer": optimizer,
                "peak": peak,
                "seed": seed,
                "diverged_at": training.diverged_at,
                "final_loss": round(training.final_loss, 3),
                **warnings(training.table),
            }
        )
        print(*rows[-1].values(), flush=True)
    return pd.DataFrame(rows).astype(STEPS_OF)


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """Compute precision, recall and lead of each predictor."""
    rows = []
    diverged = table.diverged_at.notna()
    for name in PREDICTORS:
        warned = table[name].notna()
        lead = (table.diverged_at - table[name])[diverged & warned]
        right = int((lead > 0).sum())
        rows.append(
            {
                "predictor": name,
                "warned": int(warned.sum()),
                "right": right,
                "precision": right / max(int(warned.sum()), 1),
                "recall": right / int(diverged.sum()),
                "median_lead": lead[lead > 0].median(),
                "shortest_lead": lead[lead > 0].min(),
                "longest_lead": lead[lead > 0].max(),
            }
        )
    return pd.DataFrame(rows).round(2)


def main() -> None:
    """Run all trainings, and write a table of them beside this file."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    numbered = []
    for (network, optimizer), middle in MIDDLE.items():
        for factor in FACTORS_OF_ADAM if optimizer == "adam" else FACTORS:
            numbered.append((len(numbered), network, optimizer, middle * factor))
    table = run(numbered)
    table.to_csv(TABLE, index=False, float_format="%.4g")
    print(f"{int(table.diverged_at.notna().sum())} of {len(table)} diverged")
    print(judge(table).to_string(index=False))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
