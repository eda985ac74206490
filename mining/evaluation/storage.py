"""Curves and surfaces on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mining import InputError
from mining.evaluation.curves import CURVE_TENSORS, Curve, Surface, fields_of
from mining.storage.files import read_arrays, save_arrays
from mining.storage.records import load_record, save_record


def save_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write curves over the same points as one ``.npz`` file.

    The file has ``alphas`` (T,), ``loss`` and ``accuracy`` (K, T), ``loss_test`` and
    ``accuracy_test`` (K, T) where there are any, ``loss_covariance`` (K, T, T) and
    ``accuracy_error`` (K, T) with their like of the test set where losses were estimated,
    ``names`` (K,), ``chance_loss`` (), and one array
    (K,) named ``metadata_…`` for each number known of the directions, ``nan`` where it is not.

    Raises:
        InputError: If there are none or their points differ.
    """
    if not curves or any(not torch.equal(c.alphas, curves[0].alphas) for c in curves):
        raise InputError("curves must be at least one, and over the same alphas.")
    arrays: dict[str, object] = {"alphas": curves[0].alphas, "names": [c.name for c in curves]}
    for name in CURVE_TENSORS:
        rows = [getattr(c, name) for c in curves]
        if all(row is not None for row in rows):
            arrays[name] = torch.stack(rows)
    if curves[0].chance_loss is not None:
        arrays["chance_loss"] = curves[0].chance_loss
    arrays["rounding"] = curves[0].rounding
    records = [c.record() for c in curves]
    for key in sorted({key for record in records for key in record}):
        arrays[f"metadata_{key}"] = [record.get(key, np.nan) for record in records]
    save_arrays(path, arrays)


def load_curves(path: Path) -> list[Curve]:
    """Read what ``save_curves`` wrote; see ``read_arrays``."""
    arrays = read_arrays(path)
    common: dict[str, Any] = {
        n: float(arrays[n]) for n in ("chance_loss", "rounding") if n in arrays
    }
    known = {key: arrays[key] for key in arrays if key.startswith("metadata_")}
    curves = []
    for k, name in enumerate(arrays["names"]):
        record = {
            key.removeprefix("metadata_"): float(values[k])
            for key, values in known.items()
            if np.isfinite(values[k])
        }
        own = {key: torch.from_numpy(arrays[key][k]) for key in CURVE_TENSORS if key in arrays}
        fields: dict[str, Any] = {**common, **own, **fields_of(record)}
        curves.append(Curve(torch.from_numpy(arrays["alphas"]), name=str(name), **fields))
    return curves


def save_surface(path: Path, surface: Surface) -> None:
    """Write a surface as an ``.npz`` file with one array a field, axes (A, B) throughout."""
    save_record(path, surface)


def load_surface(path: Path) -> Surface:
    """Read what ``save_surface`` wrote; see ``read_arrays``."""
    return load_record(path, Surface)
