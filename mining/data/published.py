"""Published data sets, downloaded and read by torchvision."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mining import InputError
from mining.data.dataset import Dataset
from mining.data.images import Channels, from_arrays
from mining.data.npz import arrays

_CLASSES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}

_logger = logging.getLogger(__name__)


def torchvision_dataset(
    name: str,
    root: str | Path = "data",
    download: bool = False,
    *,
    num_examples: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    subset_seed: int = 0,
) -> Dataset:
    """Load a published data set with its published split.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100`` or ``svhn``.
        root: Directory of the files in torchvision's layout. A file ``NAME.npz`` there, in the
            format of ``arrays``, takes precedence.
        download: Whether to download missing files.
        num_examples: Examples kept per split, a class-balanced random subset; None = all.
        mean: Subtracted, per channel, pixels in [0, 1]; None = the mean of the training images.
        std: Divisor, per channel, pixels in [0, 1]; None = that of the training images.
        subset_seed: Seed of the random subset.

    Returns:
        The data set; inputs are ``(N, 1, 28, 28)`` or ``(N, 3, 32, 32)``.

    Raises:
        FileNotFoundError: If files are missing or damaged and ``download`` is false.
        ConnectionError: If the download fails.
        InputError: If ``name`` is unknown or an argument is out of range.
    """
    if name not in _CLASSES:
        raise InputError(f"name must be one of {', '.join(_CLASSES)}, got {name!r}.")
    packed = Path(root) / f"{name}.npz"
    if packed.is_file():
        return arrays(
            packed, num_examples=num_examples, mean=mean, std=std, subset_seed=subset_seed
        )
    train_images, train_labels, class_names = _read(name, Path(root), "train", download)
    test_images, test_labels, _ = _read(name, Path(root), "test", download)
    return from_arrays(
        name,
        train_images,
        train_labels,
        test_images,
        test_labels,
        num_examples=num_examples,
        mean=mean,
        std=std,
        subset_seed=subset_seed,
        class_names=class_names,
    )


def _read(
    name: str, root: Path, split: str, download: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[str, ...]]:
    """Images ``(N, H, W[, 3])``, labels ``(N,)`` and class names of one split."""
    from torchvision import datasets

    source = getattr(datasets, _CLASSES[name])
    which = {"split": split} if name == "svhn" else {"train": split == "train"}
    try:
        data = source(root, **which)
    except RuntimeError as error:  # torchvision's word for absent and for damaged files
        if not download:
            raise FileNotFoundError(
                f"No {name} in {root.resolve()}, or its files are damaged. "
                "Download it: data.download=true"
            ) from error
        data = _download(name, root, source, which)
    images, labels = (
        np.asarray(data.data),
        np.asarray(data.labels if name == "svhn" else data.targets),
    )
    if name == "svhn":
        return images.transpose(0, 2, 3, 1), labels, tuple("0123456789")
    return images, labels, tuple(data.classes)


def _download(name: str, root: Path, source: Any, which: dict[str, Any]) -> Any:
    _logger.info("Downloading %s to %s", name, root.resolve())
    try:
        return source(root, download=True, **which)
    except (RuntimeError, OSError) as error:  # after its mirrors, torchvision raises either
        raise ConnectionError(
            f"cannot download {name} to {root.resolve()}: {' '.join(str(error).split())}"
        ) from error
