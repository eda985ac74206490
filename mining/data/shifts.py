"""Shifted versions of a data set, and another data set in the form of one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from mining import InputError
from mining.data.dataset import Dataset, Split

Kind = Literal["noise", "blur", "grey", "rotation", "contrast"]

#: The amount of each kind, from strength 1 to 5.
AMOUNTS: dict[Kind, tuple[float, ...]] = {
    "noise": (0.04, 0.08, 0.12, 0.18, 0.26),  # standard deviation of pixels in [0, 1]
    "blur": (0.015, 0.025, 0.035, 0.05, 0.07),  # standard deviation, as a share of the height
    "grey": (0.2, 0.4, 0.6, 0.8, 1.0),  # share of the colour that is taken away
    "rotation": (10.0, 20.0, 30.0, 45.0, 60.0),  # degrees, to either side
    "contrast": (0.75, 0.5, 0.35, 0.2, 0.1),  # share that is left of the contrast
}
#: Weights of red, green and blue in the brightness of a pixel: ITU-R BT.601.
_BRIGHTNESS = (0.299, 0.587, 0.114)
_BLOCK = 1000


@dataclass(frozen=True)
class Shift:
    """A change of all images: noise, blur, grey, rotation or contrast, of strength 1 to 5.

    ``AMOUNTS`` tells what a strength is; labels stay. Pixels are changed on [0, 1], to which they
    are limited afterwards, and then normalized as before.

    Raises:
        InputError: If the kind is unknown or the strength out of its range.
    """

    kind: Kind
    strength: int
    seed: int = 0  # of the noise, and of the side to which an image is turned

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"shift must be one of {get_args(Kind)}, got {self.kind!r}.")
        if self.strength not in range(1, 6):
            raise InputError(f"the strength of a shift must be 1 to 5, got {self.strength}.")

    @classmethod
    def parse(cls, text: str) -> Shift:
        """Read kind and strength from ``noise:3`` for instance.

        Raises:
            InputError: If it is of another form.
        """
        kind, _, strength = text.partition(":")
        if kind not in get_args(Kind) or strength not in tuple("12345"):
            raise InputError(
                f"shift must be KIND:STRENGTH, a kind of {', '.join(get_args(Kind))} and a "
                f"strength from 1 to 5, as noise:3, got {text!r}."
            )
        return cls(kind, int(strength))  # type: ignore[arg-type]

    @property
    def amount(self) -> float:
        """The amount of this strength; see ``AMOUNTS``."""
        return AMOUNTS[self.kind][self.strength - 1]

    def split(self, split: Split, of: Dataset) -> Split:
        """Shift the images of a split that are normalized as those of a data set.

        Raises:
            InputError: If the normalization is unknown, or grey images are to lose their colour.
        """
        mean, std = _normalization(of, split.inputs)
        if self.kind == "grey" and split.inputs.shape[1] != 3:
            raise InputError(f"shift=grey needs colours, and the images of {of.name} are grey.")
        generator = torch.Generator().manual_seed(self.seed)
        inputs = torch.empty_like(split.inputs)
        for start in range(0, len(inputs), _BLOCK):
            pixels = split.inputs[start : start + _BLOCK] * std + mean
            changed = _CHANGES[self.kind](pixels, self.amount, generator).clamp(0, 1)
            inputs[start : start + _BLOCK] = (changed - mean) / std
        return Split(inputs, split.labels)


def shifted(dataset: Dataset, kind: Kind, strength: int, seed: int = 0) -> Dataset:
    """Shift all images of a data set; see ``Shift``.

    Args:
        dataset: With a known normalization, as the functions of ``mining.data`` make it.
        kind: ``noise``, ``blur``, ``grey``, ``rotation`` or ``contrast``.
        strength: From 1 to 5.
        seed: Of the noise, and of the side to which an image is turned.

    Raises:
        InputError: If an argument is out of its range, or the data set does not fit.
    """
    shift = Shift(kind, strength, seed)
    train, test = (
        None if split is None else shift.split(split, dataset)
        for split in (dataset.train, dataset.test)
    )
    return replace(dataset, name=f"{dataset.name}_{kind}{strength}", train=train, test=test)


def with_noise(split: Split, deviation: float, seed: int = 0) -> Split:
    """Add Gaussian noise to inputs as they are, normalized and without limits.

    ``Shift`` adds it to pixels on [0, 1] instead.

    Args:
        split: The examples.
        deviation: Standard deviation of the noise, in the units of the inputs.
        seed: Of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    return Split(_noise(split.inputs, deviation, generator), split.labels)


def in_the_form_of(dataset: Dataset, home: Dataset) -> Dataset:
    """Bring images of another data set into the shape and normalization of those of ``home``.

    Images are resized, colour images become grey or grey ones three equal channels, and pixels
    are normalized by mean and standard deviation of ``home``: what a network trained on it takes.

    Raises:
        InputError: If the classes differ in number or in order, or a normalization is unknown.
    """
    if dataset.num_classes != home.num_classes:
        raise InputError(
            f"data_shifted must have the {home.num_classes} classes of {home.name}, got "
            f"{dataset.num_classes} of {dataset.name}."
        )
    names, known = dataset.class_names, home.class_names
    if names != known and sorted(names) == sorted(known):
        raise InputError(f"data_shifted has the classes of {home.name} in another order: {names}.")
    train, test = (
        None if split is None else _reformed(split, dataset, home)
        for split in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test, mean=home.mean, std=home.std)


def _reformed(split: Split, of: Dataset, home: Dataset) -> Split:
    channels, *size = home.input_shape
    mean, std = _normalization(of, split.inputs)
    parts = []
    for inputs in torch.split(split.inputs, _BLOCK):
        pixels = inputs * std + mean
        if pixels.shape[1] != channels:
            pixels = _brightness(pixels) if channels == 1 else pixels.expand(-1, channels, -1, -1)
        if list(pixels.shape[2:]) != size:
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        parts.append(pixels)
    found = torch.cat(parts)
    mean, std = _normalization(home, found)
    return Split((found - mean) / std, split.labels)


def _normalization(dataset: Dataset, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of pixels in [0, 1], shape ``(1, C, 1, 1)``."""
    if not dataset.mean or not dataset.std:
        raise InputError(
            f"{dataset.name} must tell its normalization: give Dataset(…, mean=…, std=…), per "
            "channel, pixels in [0, 1]."
        )
    mean, std = (
        torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
        for values in (dataset.mean, dataset.std)
    )
    return mean, std


def _brightness(pixels: Tensor) -> Tensor:
    """Reduce colours, shape ``(N, 3, H, W)``, to their brightness, ``(N, 1, H, W)``."""
    weights = torch.tensor(_BRIGHTNESS, dtype=pixels.dtype, device=pixels.device)
    return (pixels * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def _noise(pixels: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return pixels + amount * torch.randn(pixels.shape, generator=generator).to(pixels)


def _blur(pixels: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    width = amount * pixels.shape[2]
    radius = min(math.ceil(3 * width), min(pixels.shape[2:]) - 1)
    steps = torch.arange(-radius, radius + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-0.5 * (steps / width) ** 2)
    kernel = (kernel / kernel.sum()).expand(pixels.shape[1], 1, -1)
    padded = functional.pad(pixels, (radius,) * 4, mode="reflect")
    across = functional.conv2d(padded, kernel[:, :, None], groups=pixels.shape[1])
    return functional.conv2d(across, kernel[:, :, :, None], groups=pixels.shape[1])


def _grey(pixels: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return torch.lerp(pixels, _brightness(pixels).expand_as(pixels), amount)


def _rotation(pixels: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    sides = torch.randint(2, (len(pixels),), generator=generator).to(pixels) * 2 - 1
    angles = torch.deg2rad(amount * sides)
    ratio = pixels.shape[2] / pixels.shape[3]
    nothing = torch.zeros_like(angles)
    rows = [
        torch.stack([angles.cos(), -angles.sin() * ratio, nothing], 1),
        torch.stack([angles.sin() / ratio, angles.cos(), nothing], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, align_corners=False)


def _contrast(pixels: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    middle = pixels.mean((1, 2, 3), keepdim=True)
    return middle + amount * (pixels - middle)


_CHANGES: dict[Kind, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "grey": _grey,
    "rotation": _rotation,
    "contrast": _contrast,
}
