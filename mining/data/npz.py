"""Images in one NumPy file."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from mining import InputError
from mining.data.dataset import Dataset
from mining.data.images import Channels, from_arrays
from mining.storage.files import UNREADABLE

_PAIRS = (("train_images", "train_labels"), ("test_images", "test_labels"))


def arrays(
    path: str | Path,
    *,
    num_examples: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    subset_seed: int = 0,
) -> Dataset:
    """Load images and labels from an ``.npz`` file; the data set is named after the file.

    The file holds ``train_images`` and ``train_labels``, ``test_images`` and ``test_labels``, or
    one of these pairs. Images are uint8 of shape ``(N, H, W)`` or ``(N, H, W, C)`` with ``C`` of 1
    or 3, labels are integers from 0 of shape ``(N,)``. ``class_names`` (strings) is optional.
    Other arrays are ignored.

    Args:
        path: The file.
        num_examples: Examples kept per split, a class-balanced random subset; None = all.
        mean: Subtracted, per channel, pixels in [0, 1]; None = the mean of the training images.
        std: Divisor, per channel, pixels in [0, 1]; None = that of the training images.
        subset_seed: Seed of the random subset.

    Returns:
        The data set; a split that the file does not contain is None.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is not an ``.npz`` file, an array of a pair is missing, an array has the
            wrong dtype, shape or labels, or an argument is out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file {path.resolve()}. Name an .npz file: data.path=FILE.npz")
    content = _read(path)
    if not any(image in content and label in content for image, label in _PAIRS):
        raise InputError(
            f"{path} must hold train_images and train_labels, or test_images and test_labels, "
            f"got {', '.join(sorted(content)) or 'nothing'}."
        )
    class_names = content.get("class_names", np.array([], dtype=str))
    if class_names.ndim != 1:
        raise InputError(f"{path}: class_names must be a list, got shape {class_names.shape}.")
    return from_arrays(
        path.stem,
        *(content.get(key) for pair in _PAIRS for key in pair),
        num_examples=num_examples,
        mean=mean,
        std=std,
        subset_seed=subset_seed,
        class_names=class_names.tolist(),
    )


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    # Arrays of other names stay unread: only their names can matter, in a message.
    return read_npz(path, only={"class_names", *(key for pair in _PAIRS for key in pair)})


def read_npz(path: Path, *, only: Collection[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read an ``.npz`` file of plain arrays, by name.

    Args:
        path: The file.
        only: The names to read; arrays of other names come empty. ``None`` reads all.

    Raises:
        InputError: If it is damaged, no ``.npz`` file, or holds objects.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, NpzFile):
            raise InputError("it is a single array")
        with file:
            return {
                key: np.asarray(file[key]) if only is None or key in only else np.empty(0)
                for key in file.files
            }
    except UNREADABLE as error:
        raise InputError(
            f"cannot read {path} as an .npz file of plain arrays: {error}. "
            "Write it with numpy.savez."
        ) from error
