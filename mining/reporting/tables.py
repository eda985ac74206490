"""Trainings, assessments and layers as a page shows them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mining.explain.meanings import MEANINGS, split_name
from mining.reporting.encoding import encode

#: Tables that a training may leave, by what the page calls them.
_TABLES = {"history": "history.csv", "monitor": "curvature.csv", "held_out": "held_out.csv"}
_LAYER_COLUMNS = (
    *("operator", "layer", "size", "trace", "trace_standard_error", "lambda_max"),
    *("lambda_max_residual", "outliers", "gap", "wasserstein", "jensen_shannon"),
)


def training_content(directory: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a training: its history, and what a monitor and held-out images showed."""
    content: dict[str, Any] = {"checkpoints": metrics.get("checkpoints", [])}
    for name, file in _TABLES.items():
        path = directory / file
        content[name] = _columns(pd.read_csv(path)) if path.exists() else None
    return content


def _columns(table: pd.DataFrame) -> dict[str, Any]:
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(float)
    return {str(name): encode(numbers[name].to_numpy()) for name in numbers}


def assessment_content(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an assessment: each quantity with its meaning, and what follows from them."""
    intervals, second = metrics.get("intervals", {}), metrics.get("second", {})
    order = list(MEANINGS)
    rows = []
    for name, found in metrics.items():
        kind, examples = split_name(name)
        if kind not in MEANINGS or not isinstance(found, Mapping):
            continue
        meaning = MEANINGS[kind]
        row = {
            **found,
            "name": name,
            "title": meaning.title + (f", {examples}" if examples else ""),
            "says": meaning.says,
            "does_not_say": meaning.does_not_say,
            "interval": intervals.get(name),
            "second": second.get(name),
        }
        rows.append((order.index(kind), row))
    rows.sort(key=lambda pair: pair[0])
    return {"rows": [row for _, row in rows], "findings": metrics.get("findings", [])}


def layers_content(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the spectra of layers: a row for each operator and layer."""
    rows = [[row.get(key) for key in _LAYER_COLUMNS] for row in metrics["layers"]]
    return {"columns": _LAYER_COLUMNS, "rows": rows}
