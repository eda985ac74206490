"""Curves and surfaces on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mining import InputError
from mining.evaluation.curves import (
    _ACCURACY_ERRORS,
    _COVARIANCES,
    _CURVE_FIELDS,
    _SURFACE_FIELDS,
    SINGLE,
    Curve,
    Surface,
    fields_of,
)
from mining.storage.files import read_arrays, save_arrays


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
    for name in (*_CURVE_FIELDS, *_COVARIANCES, *_ACCURACY_ERRORS):
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
    chance = float(arrays["chance_loss"]) if "chance_loss" in arrays else None
    rounding = float(arrays.get("rounding", SINGLE))
    known = {key: arrays[key] for key in arrays if key.startswith("metadata_")}
    curves = []
    for k, name in enumerate(arrays["names"]):
        record = {
            key.removeprefix("metadata_"): float(values[k])
            for key, values in known.items()
            if np.isfinite(values[k])
        }
        fields: dict[str, Any] = {
            field: torch.from_numpy(arrays[field][k])
            for field in (*_CURVE_FIELDS, *_COVARIANCES, *_ACCURACY_ERRORS)
            if field in arrays
        }
        curves.append(
            Curve(
                alphas=torch.from_numpy(arrays["alphas"]),
                name=str(name),
                chance_loss=chance,
                rounding=rounding,
                **fields,
                **fields_of(record),
            )
        )
    return curves


def save_surface(path: Path, surface: Surface) -> None:
    """Write a surface as an ``.npz`` file with one array a field, axes (A, B) throughout."""
    arrays: dict[str, object] = {
        "alphas": surface.alphas,
        "betas": surface.betas,
        "names": surface.names,
    }
    for name in (*_SURFACE_FIELDS, "chance_loss", "rounding"):
        if getattr(surface, name) is not None:
            arrays[name] = getattr(surface, name)
    save_arrays(path, arrays)


def load_surface(path: Path) -> Surface:
    """Read what ``save_surface`` wrote; see ``read_arrays``."""
    arrays = read_arrays(path)
    x, y = map(str, arrays["names"])
    return Surface(
        alphas=torch.from_numpy(arrays["alphas"]),
        betas=torch.from_numpy(arrays["betas"]),
        names=(x, y),
        chance_loss=float(arrays["chance_loss"]) if "chance_loss" in arrays else None,
        rounding=float(arrays.get("rounding", SINGLE)),
        **{name: torch.from_numpy(arrays[name]) for name in _SURFACE_FIELDS if name in arrays},
    )
