"""Data sets from arrays of integer pixels: validation, subset, normalization."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mining import InputError
from mining.data.dataset import Dataset, Split, balanced_subset

Channels = float | Sequence[float]  # one value for all channels, or one per channel


@dataclass(frozen=True)
class _Pixels:
    images: npt.NDArray[np.uint8]  # (N, H, W, C)
    labels: npt.NDArray[np.int64]  # (N,)


def from_arrays(
    name: str,
    train_images: npt.NDArray[Any] | None,
    train_labels: npt.NDArray[Any] | None,
    test_images: npt.NDArray[Any] | None,
    test_labels: npt.NDArray[Any] | None,
    *,
    num_examples: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    subset_seed: int = 0,
    class_names: Sequence[str] = (),
    scale: float = 255.0,
) -> Dataset:
    """Scale images to [0, 1] and normalize each channel by ``(x - mean) / std``.

    Images have shape ``(N, H, W)``, or ``(N, H, W, C)`` with ``C`` of 1 or 3, and dtype uint8;
    labels have shape ``(N,)`` and an integer dtype. The images and labels of one split may both be
    None. The result takes ``4 N C H W`` bytes of memory.

    Args:
        name: The data set's name.
        train_images: Images of the training split.
        train_labels: Their classes, counted from 0.
        test_images: Images of the test split.
        test_labels: Their classes, counted from 0.
        num_examples: Examples kept per split, a class-balanced random subset; None = all.
        mean: Subtracted, on [0, 1], one value per channel or one for all; None = the mean of all
            training images, whatever ``num_examples``.
        std: Divided by, on [0, 1], as ``mean``; None = the standard deviation of all training
            images.
        subset_seed: Seed of the random subset.
        class_names: One name per class; () = not known, and the largest label counts the classes.
        scale: The pixel value that becomes 1.

    Returns:
        The data set, inputs float32.

    Raises:
        InputError: If an array has the wrong dtype, shape or labels, or an argument is out of
            range, or ``mean`` or ``std`` is None without training images.
    """
    train = _pixels(name, "train", train_images, train_labels)
    test = _pixels(name, "test", test_images, test_labels)
    present = [pixels for pixels in (train, test) if pixels is not None]
    if not present:
        raise InputError(f"{name} must have a train or a test split, got neither.")
    if len({pixels.images.shape[1:] for pixels in present}) > 1:
        shapes = [pixels.images.shape[1:] for pixels in present]
        raise InputError(
            f"{name}: train_images and test_images must agree in (H, W, C), "
            f"got {shapes[0]} and {shapes[1]}."
        )
    num_classes = len(class_names) or max(int(pixels.labels.max()) for pixels in present) + 1
    for pixels in present:
        _check_labels(name, pixels.labels, num_classes)

    require_statistics(name, mean, std, has_train=train is not None)
    num_channels = present[0].images.shape[-1]
    if train is not None and (mean is None or std is None):
        train_mean, train_std = channel_statistics(train.images, scale)
        mean = train_mean if mean is None else mean
        std = train_std if std is None else std
    shift = _per_channel("mean", mean, num_channels)
    spread = _per_channel("std", std, num_channels)
    if min(spread) <= 0:
        raise InputError(f"std must be positive in every channel, got {spread}.")

    def split(pixels: _Pixels | None) -> Split | None:
        if pixels is None:
            return None
        labels = torch.from_numpy(pixels.labels)
        images = torch.from_numpy(pixels.images)
        if num_examples is not None:
            generator = torch.Generator().manual_seed(subset_seed)
            chosen = balanced_subset(labels, num_examples, generator)
            labels, images = labels[chosen], images[chosen]
        return Split(_normalize(images, scale, shift, spread), labels)

    return Dataset(
        name,
        split(train),
        split(test),
        num_classes,
        tuple(map(str, class_names)),
        tuple(shift),
        tuple(spread),
    )


def require_statistics(
    name: str, mean: Channels | None, std: Channels | None, *, has_train: bool
) -> None:
    """Reject a data set with neither given statistics nor training images to compute them from.

    Raises:
        InputError: If ``mean`` or ``std`` is None and ``has_train`` is false.
    """
    if not has_train and (mean is None or std is None):
        raise InputError(
            f"{name} has no training images to compute mean and std from. Give those that the "
            "model was trained with, per channel, pixels in [0, 1]: data.mean=[...] data.std=[...]"
        )


def channel_statistics(
    images: npt.NDArray[np.uint8], scale: float
) -> tuple[list[float], list[float]]:
    """Compute mean and standard deviation of each channel over all pixels of all images.

    Args:
        images: Shape ``(N, H, W, C)``.
        scale: The pixel value that counts as 1.

    Returns:
        ``C`` means and ``C`` population standard deviations; that of a constant channel is 1.
    """
    counts = np.zeros((images.shape[-1], 256))
    # bincount works on a copy eight times the size: a thousand images at a time.
    for part in np.array_split(images, math.ceil(len(images) / 1000)):
        for channel, count in enumerate(counts):
            count += np.bincount(part[..., channel].ravel(), minlength=256)
    share = counts / counts.sum(1, keepdims=True)
    levels = np.arange(256) / scale
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1))
    # A constant channel becomes 0 by subtracting its mean; 1 keeps the division from making NaN.
    std[(share > 0).sum(1) == 1] = 1
    return mean.tolist(), std.tolist()


def _pixels(
    name: str, split: str, images: npt.NDArray[Any] | None, labels: npt.NDArray[Any] | None
) -> _Pixels | None:
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        absent = f"{split}_{'images' if images is None else 'labels'}"
        raise InputError(
            f"{name}: {split}_images and {split}_labels must be given together; {absent} is "
            "missing."
        )
    if images.dtype != np.uint8:
        raise InputError(f"{name}: {split}_images must have dtype uint8, got {images.dtype}.")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise InputError(
            f"{name}: {split}_images must have shape (N, H, W), (N, H, W, 1) or (N, H, W, 3) "
            f"with N > 0, got {images.shape}."
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"{name}: {split}_labels must have shape ({len(images)},), one per image, "
            f"got {labels.shape}."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{name}: {split}_labels must be integers, got dtype {labels.dtype}.")
    return _Pixels(images, labels.astype(np.int64))


def _check_labels(name: str, labels: npt.NDArray[np.int64], num_classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{name}: labels must lie in 0..{num_classes - 1} for {num_classes} classes, "
            f"got {low}..{high}."
        )


def _per_channel(argument: str, given: Any, num_channels: int) -> list[float]:
    expected = f"{argument} must be 1 or {num_channels} finite numbers on [0, 1]"
    try:
        values = [float(value) for value in (given if isinstance(given, Iterable) else [given])]
    except (TypeError, ValueError) as error:
        raise InputError(f"{expected}, got {given!r}.") from error
    if len(values) not in (1, num_channels) or not all(map(math.isfinite, values)):
        raise InputError(f"{expected}, got {values}.")
    return values


def _normalize(images: Tensor, scale: float, mean: list[float], std: list[float]) -> Tensor:
    channels_first = images.permute(0, 3, 1, 2)
    # In place: a data set this large should not be held twice.
    inputs = channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(scale)
    shape = (1, -1, 1, 1)
    return inputs.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))
