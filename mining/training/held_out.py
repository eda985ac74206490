"""Accuracy on held-out images after every epoch, with and without noise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mining import InputError
from mining.data import Dataset, Split, with_noise
from mining.data.dataset import balanced_subset
from mining.storage.files import write_atomically
from mining.training.classification import evaluate
from mining.training.loop import Loop


@dataclass(frozen=True)
class HeldOutSettings:
    """On which held-out images a training is evaluated after every epoch.

    Alabdulkareem (2022), Sec. 4.2 and 7.5, where the noise is 0.25.

    Args:
        validation: Share of the test images that are the validation set, balanced over classes;
            the others are the test set.
        noise: Standard deviation of the Gaussian noise that is added to the normalized images of
            the test set. It is drawn once, and so equal for all epochs.

    Raises:
        InputError: If a value is out of its range.
    """

    validation: float = 0.5
    noise: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise InputError(
                f"held_out.validation must be between 0 and 1, a share of the test images, got "
                f"{self.validation}."
            )
        if not self.noise > 0:
            raise InputError(f"held_out.noise must be positive, got {self.noise}.")

    def splits(self, dataset: Dataset) -> dict[str, Split]:
        """Divide the test images of a data set.

        Returns:
            The splits ``validation``, ``test`` and ``noisy``.

        Raises:
            InputError: If there are no test images, or too few.
        """
        held_out = dataset.split("test")
        num = round(self.validation * len(held_out))
        if not 0 < num < len(held_out):
            raise InputError(
                f"held_out.validation={self.validation} of {len(held_out)} test images leaves the "
                "validation or the test set empty: take more images."
            )
        labels = held_out.labels.cpu()
        chosen = balanced_subset(labels, num, torch.Generator().manual_seed(0))
        is_validation = torch.zeros(len(labels), dtype=torch.bool)
        is_validation[chosen] = True
        test = _where(held_out, ~is_validation)
        return {
            "validation": _where(held_out, is_validation),
            "test": test,
            "noisy": with_noise(test, self.noise),
        }

    def callback(self, dataset: Dataset, batch_size: int, path: Path) -> "HeldOut":
        """Make the callback of a training.

        Args:
            dataset: That of the training.
            batch_size: Images per forward pass.
            path: File of the table.
        """
        splits = self.splits(dataset)
        return HeldOut({name: split.batches(batch_size) for name, split in splits.items()}, path)


@dataclass(frozen=True)
class HeldOut:
    """Evaluates a training on several sets of images after every epoch.

    Writes a table with ``epoch``, and ``NAME_loss`` and ``NAME_accuracy`` for each set. A training
    that was killed and goes on keeps the rows of the epochs before.
    """

    batches: Mapping[str, list[tuple[Tensor, Tensor]]]
    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.rows.extend(pd.read_csv(self.path).to_dict("records"))  # type: ignore[arg-type]

    def __call__(self, loop: Loop[Any]) -> None:
        """Evaluate the model of a loop."""
        (model,) = loop.objective.modules
        row: dict[str, Any] = {"epoch": loop.epoch}
        for name, batches in self.batches.items():
            found = evaluate(model, batches)
            row |= {f"{name}_{what}": value for what, value in found.items()}
        self.rows[:] = [r for r in self.rows if r["epoch"] < loop.epoch] + [row]
        write_atomically(self.path, pd.DataFrame(self.rows).to_csv(index=False))


def _where(split: Split, chosen: Tensor) -> Split:
    chosen = chosen.to(split.labels.device)
    return Split(split.inputs[chosen], split.labels[chosen])
