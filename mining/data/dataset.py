"""Labelled images held in memory: a split, and the two splits of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mining import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split.

    Raises:
        InputError: If inputs and labels differ in length.
    """

    inputs: Tensor  # (N, C, H, W) float32, normalized
    labels: Tensor  # (N,) int64, class indices

    def __post_init__(self) -> None:
        if self.labels.shape != self.inputs.shape[:1]:
            raise InputError(
                f"labels must have shape ({len(self.inputs)},), one per input, "
                f"got {tuple(self.labels.shape)}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int) -> list[tuple[Tensor, Tensor]]:
        """Cut the split into ``ceil(N / batch_size)`` parts whose sizes differ by at most one.

        A ragged last batch of one example would break batch norm in train mode.

        Args:
            batch_size: Maximum number of examples in a batch.

        Returns:
            Pairs of inputs ``(B, C, H, W)`` and labels ``(B,)``, views of the split, in order.

        Raises:
            InputError: If ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be positive, got {batch_size}.")
        num_batches = -(-len(self) // batch_size)
        inputs = self.inputs.tensor_split(num_batches)
        labels = self.labels.tensor_split(num_batches)
        return list(zip(inputs, labels, strict=True))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Split:
        """Move to ``device`` with inputs of ``dtype``; labels stay int64."""
        return Split(self.inputs.to(device, dtype), self.labels.to(device))

    def subset(self, num_examples: int, generator: torch.Generator) -> Split:
        """Choose ``num_examples`` at random, equally many of each class, in their order here.

        Args:
            num_examples: Number of examples; all if the split has no more.
            generator: Source of randomness, on the CPU.

        Returns:
            The chosen examples, copied.

        Raises:
            InputError: If ``num_examples`` is not positive.
        """
        chosen = balanced_subset(self.labels.cpu(), num_examples, generator)
        chosen = chosen.to(self.labels.device)
        return Split(self.inputs[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits of a data set, with the same normalization.

    Raises:
        InputError: If both splits are absent, or their inputs differ in shape.
    """

    name: str
    train: Split | None  # None when the files hold no training split
    test: Split | None  # None when the files hold no test split
    num_classes: int
    class_names: tuple[str, ...] = ()  # (num_classes,), or () when the files name none
    mean: tuple[float, ...] = ()  # (C,), subtracted from pixels in [0, 1]; (): not known
    std: tuple[float, ...] = ()  # (C,), by which they were divided then

    def __post_init__(self) -> None:
        shapes = {tuple(split.inputs.shape[1:]) for split in (self.train, self.test) if split}
        if len(shapes) != 1:
            raise InputError(
                f"{self.name} must have a train or a test split, and inputs of one shape, "
                f"got shapes {sorted(shapes)}."
            )

    def split(self, name: Literal["train", "test"]) -> Split:
        """Return the split of that name.

        Raises:
            InputError: If there is no such split.
        """
        if name not in ("train", "test"):
            raise InputError(f"split must be train or test, got {name!r}.")
        split, other = (self.train, "test") if name == "train" else (self.test, "train")
        if split is None:
            raise InputError(f"{self.name} has no {name} split. Use the other one: split={other}")
        return split

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of one input."""
        split = self.split("test") if self.train is None else self.train
        channels, height, width = split.inputs.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Dataset:
        """Move to ``device`` with inputs of ``dtype``; labels stay int64."""
        return Dataset(
            name=self.name,
            train=None if self.train is None else self.train.to(device, dtype),
            test=None if self.test is None else self.test.to(device, dtype),
            num_classes=self.num_classes,
            class_names=self.class_names,
            mean=self.mean,
            std=self.std,
        )


def balanced_subset(labels: Tensor, num_examples: int, generator: torch.Generator) -> Tensor:
    """Choose examples at random so that class counts differ by at most one.

    A class with too few examples contributes all of them, and the others share the rest. If
    ``num_examples`` is not a multiple of the number of classes, the classes that contribute one
    more are chosen at random.

    Args:
        labels: Class indices, shape ``(N,)``, on the CPU.
        num_examples: Number of examples; all if ``N`` is no larger.
        generator: Source of randomness, on the CPU.

    Returns:
        Increasing indices of the chosen examples, shape ``(min(num_examples, N),)``, int64.

    Raises:
        InputError: If ``num_examples`` is not positive.
    """
    if num_examples < 1:
        raise InputError(f"num_examples must be positive or null (all), got {num_examples}.")
    shuffle = torch.randperm(len(labels), generator=generator)
    by_class = labels[shuffle].argsort(stable=True)
    counts = labels.bincount()
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.empty_like(shuffle)  # of each shuffled example within its class
    rank[by_class] = torch.arange(len(labels)) - first
    # Every class's first example, then every class's second one, and so on.
    return shuffle[rank.argsort(stable=True)[:num_examples]].sort().values
