"""Images in directories: CUB-200-2011, ImageNet, CINIC-10 and others with those layouts."""

import hashlib
import json
import logging
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from mining import InputError
from mining.data.dataset import Dataset, balanced_subset
from mining.data.images import Channels, from_arrays, require_statistics
from mining.storage.files import drop_if_damaged, read_arrays, save_arrays

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Listing:
    files: tuple[str, ...]  # (N,) relative to the root
    labels: npt.NDArray[np.int64]  # (N,)
    class_names: tuple[str, ...]

    def choose(self, num_examples: int, seed: int) -> "_Listing":
        generator = torch.Generator().manual_seed(seed)
        chosen = balanced_subset(torch.from_numpy(self.labels), num_examples, generator).numpy()
        return _Listing(tuple(self.files[i] for i in chosen), self.labels[chosen], self.class_names)


def image_folder(
    root: str | Path,
    size: int = 224,
    cache: str | Path | None = "data/cache",
    num_workers: int | None = None,
    *,
    num_examples: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    subset_seed: int = 0,
) -> Dataset:
    """Decode a directory of images into memory as RGB, ``4 · 3 · size²`` bytes per example.

    Two layouts are supported. CUB-200-2011 has ``images.txt``, ``image_class_labels.txt``,
    ``train_test_split.txt``, ``classes.txt`` and ``images/``. ImageNet and CINIC-10 have
    ``train/<class>/`` for training; the test split is the first of ``test/``, ``val/`` and
    ``valid/`` that has class directories (CINIC-10's ``valid/`` is thus ignored). Classes are
    numbered in alphabetical order.

    The shorter side is resized to ``size`` (bilinear, antialiased) and the centre is cropped.
    If ``num_examples``, ``mean`` and ``std`` are all given, only the chosen files are decoded;
    otherwise all are, since the statistics are those of all training images.

    Args:
        root: The directory.
        size: Height and width of the inputs, pixels.
        cache: Directory for the decoded images, which are reused as long as the chosen files have
            the same names, sizes and modification times; None = decode in every run.
        num_workers: Decoding threads; None = a few more than there are processors.
        num_examples: Examples kept per split, a class-balanced random subset; None = all.
        mean: Subtracted, per channel, pixels in [0, 1]; None = the mean of the training images.
        std: Divisor, per channel, pixels in [0, 1]; None = that of the training images.
        subset_seed: Seed of the random subset.

    Returns:
        The data set, inputs ``(N, 3, size, size)``, named after the directory.

    Raises:
        FileNotFoundError: If the directory, or a file it lists, does not exist.
        InputError: If it has neither layout, its splits differ in classes, an image cannot be
            decoded, or an argument is out of range.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No directory {root.resolve()}. Name one: data.root=DIRECTORY")
    for argument, value in (("size", size), ("num_workers", num_workers)):
        if value is not None and value < 1:
            raise InputError(f"{argument} must be positive, got {value}.")
    cub = (root / "images.txt").is_file()
    splits = _list_cub(root) if cub else _list_class_directories(root)
    require_statistics(root.name, mean, std, has_train="train" in splits)
    if num_examples is not None and mean is not None and std is not None:
        splits = {key: split.choose(num_examples, subset_seed) for key, split in splits.items()}

    decoded = _decode_cached(
        root, splits, size, None if cache is None else Path(cache), num_workers
    )
    labels = {key: split.labels for key, split in splits.items()}
    return from_arrays(
        root.resolve().name,
        decoded.get("train"),
        labels.get("train"),
        decoded.get("test"),
        labels.get("test"),
        num_examples=num_examples,
        mean=mean,
        std=std,
        subset_seed=subset_seed,
        class_names=next(iter(splits.values())).class_names,
    )


def _list_cub(root: Path) -> dict[str, _Listing]:
    files = _table(root / "images.txt")
    classes = _table(root / "image_class_labels.txt")
    in_train = _table(root / "train_test_split.txt")
    names = _table(root / "classes.txt")
    index = {key: number for number, key in enumerate(sorted(names, key=names.__getitem__))}
    try:
        rows = [(file, index[classes[key]], in_train[key] == "1") for key, file in files.items()]
    except KeyError as error:
        raise InputError(
            f"{root}: images.txt, image_class_labels.txt, train_test_split.txt and classes.txt "
            f"must agree, but one of them lacks the number {error}."
        ) from error
    splits = {}
    for split, wanted in (("train", True), ("test", False)):
        chosen = [(f"images/{file}", label) for file, label, train in rows if train is wanted]
        if chosen:
            labels = np.array([label for _, label in chosen])
            paths = tuple(file for file, _ in chosen)
            splits[split] = _Listing(paths, labels, tuple(sorted(names.values())))
    if not splits:
        raise InputError(f"{root / 'images.txt'} must list images, got an empty file.")
    return splits


def _table(path: Path) -> dict[str, str]:
    """Lines of ``key value`` in the file's order."""
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}, which CUB-200-2011's layout has.")
    rows = [line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2:
            raise InputError(f"{path}: lines must be a number and a value, got {row[0]!r}.")
    return {key: value.strip() for key, value in rows}


def _list_class_directories(root: Path) -> dict[str, _Listing]:
    splits = {}
    for split, names in (("train", ("train",)), ("test", ("test", "val", "valid"))):
        # ImageNet's test/ holds unlabelled images and no class directories.
        listings = (_list_classes(root, name) for name in names)
        listing = next((listing for listing in listings if listing is not None), None)
        if listing is not None:
            splits[split] = listing
    if not splits:
        raise InputError(
            f"{root} must hold images.txt (as CUB-200-2011), or train/<class>/ or test/<class>/ "
            f"or val/<class>/ with images (as ImageNet), got "
            f"{', '.join(sorted(path.name for path in root.iterdir())[:8]) or 'nothing'}."
        )
    if len({split.class_names for split in splits.values()}) > 1:
        differing = set(splits["train"].class_names) ^ set(splits["test"].class_names)
        raise InputError(
            f"{root}: training and test images must have the same classes, but only one of the "
            f"two has {', '.join(sorted(differing)[:5])}."
        )
    return splits


def _list_classes(root: Path, split: str) -> _Listing | None:
    directory = root / split
    if not directory.is_dir():
        return None
    classes = sorted(path.name for path in directory.iterdir() if path.is_dir())
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            path.relative_to(root).as_posix()
            for path in (directory / name).rglob("*")
            if path.suffix.lower() in _SUFFIXES
        )
        files += found
        labels += [label] * len(found)
    return _Listing(tuple(files), np.array(labels), tuple(classes)) if files else None


def _decode_cached(
    root: Path,
    splits: dict[str, _Listing],
    size: int,
    cache: Path | None,
    num_workers: int | None,
) -> dict[str, npt.NDArray[np.uint8]]:
    """Images ``(N, size, size, 3)`` of each split."""
    if cache is None:
        return {key: _decode(root, split.files, size, num_workers) for key, split in splits.items()}
    path = cache / f"{root.resolve().name}-{_digest(root, splits, size)}.npz"
    drop_if_damaged(path, read_arrays)
    if not path.is_file():
        decoded = {
            key: _decode(root, split.files, size, num_workers) for key, split in splits.items()
        }
        save_arrays(path, decoded)
        _logger.info("Cached the decoded images in %s", path)
        return decoded
    _logger.info("Reading the decoded images from %s", path)
    stored = read_arrays(path)
    return {key: stored[key] for key in splits}


def _digest(root: Path, splits: dict[str, _Listing], size: int) -> str:
    """Identify the content of the cache by what can be known of the files without reading them."""
    digest = hashlib.sha256(f"{size}".encode())
    for key, split in splits.items():
        for file in split.files:
            status = (root / file).stat()
            row = [key, file, status.st_size, status.st_mtime_ns]
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:16]


def _decode(
    root: Path, files: Sequence[str], size: int, num_workers: int | None
) -> npt.NDArray[np.uint8]:
    images = np.empty((len(files), size, size, 3), dtype=np.uint8)

    def decode(index: int) -> None:
        images[index] = _square(root / files[index], size)

    with ThreadPoolExecutor(num_workers) as pool:
        done = pool.map(decode, range(len(files)))
        for _ in tqdm(done, total=len(files), desc="Decoding", unit="image"):
            pass
    return images


def _square(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """The image's centre, shape ``(size, size, 3)``."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    # SyntaxError and struct.error are what Pillow raises for damaged PNG and TIFF files.
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"cannot decode {path}: {error}") from error
    shorter = min(image.size)
    width, height = (side * size // shorter for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)  # antialiases by itself
    return np.asarray(resized.crop((left, top, left + size, top + size)))
