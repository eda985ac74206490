"""The epochs of monitored trainings as one table, and their changes from epoch to epoch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.archive import Record

#: The experiment whose trainings the figures and the table draw.
SWEEP = "alabdulkareem2022/sweep"
#: Columns of a training's files, with the factor to the unit of the table.
_COLUMNS = {
    "train_loss": ("history.train_loss", 1.0),  # nats
    "validation": ("held_out.validation_accuracy", 100.0),  # per cent
    "test": ("held_out.test_accuracy", 100.0),
    "noisy": ("held_out.noisy_accuracy", 100.0),
    "lambda_max": ("curvature.lambda_max", 1.0),
    "trace": ("curvature.trace", 1.0),
    "trace_standard_error": ("curvature.trace_standard_error", 1.0),
}
#: What differs between the trainings of the sweep, besides the seed.
RECIPE = ("optimizer", "lr", "batch_size", "weight_decay")


def epochs_of(records: Sequence[Record]) -> pd.DataFrame:
    """List every measured epoch of every training.

    Args:
        records: Of trainings with a monitor and with held-out images.

    Returns:
        A row per training and epoch: ``run`` (a number), ``seed``, the recipe,
        ``epoch``, ``probes`` (random vectors of the trace), and the columns above; accuracies in
        per cent. Epochs without a measured curvature are left out.
    """
    tables = []
    for number, record in enumerate(records):
        arrays = record.arrays
        measured = pd.DataFrame({"epoch": np.asarray(arrays["curvature.epoch"], dtype=int)})
        for name, (key, factor) in _COLUMNS.items():
            epochs = np.asarray(arrays[f"{key.partition('.')[0]}.epoch"], dtype=int)
            values = pd.Series(np.asarray(arrays[key], dtype=float) * factor, index=epochs)
            measured[name] = values.reindex(measured["epoch"]).to_numpy()
        recipe = {key: record.config["train"][key] for key in RECIPE}
        about = {"run": number, "seed": record.seed, **recipe}
        about["probes"] = record.config["monitor"]["probes"]
        tables.append(measured.assign(**about))
    found = pd.concat(tables, ignore_index=True)
    return found.dropna(subset=list(_COLUMNS)).reset_index(drop=True)


def changes(epochs: pd.DataFrame) -> pd.DataFrame:
    """Subtract from every epoch the one before it in the same training.

    Args:
        epochs: As ``epochs_of`` returns them. After a gap there is no change.

    Returns:
        A row per change with ``run``, ``seed``, the recipe, ``epoch`` (of the later one) and the
        changes of λmax and of the accuracies (percentage points).
    """
    ordered = epochs.sort_values(["run", "epoch"])
    changed = ["lambda_max", "validation", "test", "noisy"]
    differences = ordered.groupby("run")[["epoch", *changed]].diff()
    found = ordered[["run", "seed", *RECIPE, "epoch"]].join(differences[changed])
    return found[differences["epoch"] == 1].reset_index(drop=True)
