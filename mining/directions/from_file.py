"""Directions from a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mining import InputError
from mining.data.npz import read_npz
from mining.directions.base import Direction, DirectionSource, as_normalization, check_num
from mining.directions.normalization import Name, Normalization
from mining.functional.parameters import ParameterSpace
from mining.landscape import Landscape
from mining.storage.checkpoints import describe_kind, is_plain, read_tensors


@dataclass(frozen=True)
class FromFile(DirectionSource):
    """Directions stored in an ``.npz`` or ``.pt`` file.

    The file holds one array per parameter name, or one flat array of shape (D,) or (K, D), or it
    is the ``directions.pt`` of a run: ``vectors`` (K, D) with the ``names`` of the parameters in
    flattening order.

    Args:
        path: The file.
        normalization: A normalization or its name.
    """

    path: str | Path
    normalization: Normalization | Name = "none"

    def __post_init__(self) -> None:
        as_normalization(self.normalization)

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Read the first ``num`` directions; see ``DirectionSource.directions``.

        Raises:
            FileNotFoundError: If there is no such file.
            InputError: If it holds fewer directions, is unreadable, or does not fit the parameters.
        """
        path = Path(self.path)
        vectors = _as_vectors(_read(path), landscape.space, path)
        check_num(num, len(vectors), f", as many as {path} holds")
        normalize = as_normalization(self.normalization)
        theta = landscape.theta
        return [
            Direction(normalize(vector.to(theta), theta, landscape.space), path.stem, index)
            for index, vector in enumerate(vectors[:num])
        ]


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"direction.path: no file {path}.")
    if path.suffix != ".npz":
        return read_tensors(path)
    return read_npz(path)


def _as_vectors(content: Any, space: ParameterSpace, path: Path) -> Tensor:
    """Return the directions as the rows of a matrix, shape ``(K, D)``."""
    if isinstance(content, Mapping) and {"model", "optimizer"} <= set(content):
        raise InputError(
            f"{path} is a checkpoint, not a direction. Use direction=checkpoint_delta "
            f"direction.checkpoint={path}"
        )
    if isinstance(content, Mapping) and "vectors" in content:
        given = content.get("names", space.names)
        if not isinstance(given, list | tuple | np.ndarray):
            raise InputError(f"{path}: names must be a list, got {type(given).__name__}.")
        names = tuple(map(str, given))
        if names != space.names:
            raise InputError(
                f"{path} holds directions of other parameters: {', '.join(names[:3])} …; the model "
                f"has {', '.join(space.names[:3])} …"
            )
        content = content["vectors"]
    elif isinstance(content, Mapping):
        arrays = {name: _tensor(array, path) for name, array in content.items()}
        single = len(arrays) == 1 and not set(arrays) <= set(space.names)
        content = next(iter(arrays.values())) if single else space.flatten(arrays)
    vectors = _tensor(content, path)
    vectors = vectors[None] if vectors.dim() == 1 else vectors
    if vectors.dim() != 2 or vectors.shape[1] != space.size:
        raise InputError(
            f"{path} must hold directions of {space.size} entries, got shape "
            f"{tuple(vectors.shape)}."
        )
    return vectors


def _tensor(value: Any, path: Path) -> Tensor:
    """Take an array as a tensor if it holds plain floating-point numbers."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        kind = f"an array of {value.dtype}"
        if value.dtype in (np.float16, np.float32, np.float64):
            return torch.as_tensor(value)
    elif isinstance(value, Tensor):
        kind = describe_kind(value)
        if is_plain(value) and value.is_floating_point():
            return value
    raise InputError(
        f"{path} must hold one array per parameter name, or one flat array, of floating-point "
        f"numbers, got {kind}."
    )
