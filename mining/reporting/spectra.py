"""Spectra as a page shows them: density, extreme eigenvalues, and the criteria of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mining.curvature import SpectralDensity
from mining.directions.eigenvectors import eigenvector_names
from mining.explain.meanings import MEANINGS
from mining.reporting.encoding import encode
from mining.storage.files import read_arrays
from mining.storage.records import load_record

#: Points of a density: four to its broadening; two where a page has one for every layer.
_POINTS, _POINTS_OF_BLOCK = 800, 400
_CRITERIA = ("r_e", "k_h05", "k_h1", "c_t", "negative_share")


def spectrum_content(directory: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Describe what a run of ``pipeline=spectrum`` found; parts that it left out are missing."""
    content: dict[str, Any] = {
        "criteria": criteria(metrics),
        "type": metrics.get("spectrum_type"),
        "trace": _trace(metrics),
        "density": None,
        "eigenvalues": None,
    }
    if (directory / "density.npz").exists():
        content["density"] = density_content(directory / "density.npz")
    if (directory / "eigenpairs.npz").exists():
        pairs = read_arrays(directory / "eigenpairs.npz")
        values = pairs["eigenvalues"].tolist()
        rounding = float(pairs.get("rounding", 1e-6 * max(map(abs, values), default=0.0)))
        names = eigenvector_names(values, int(pairs["num_largest"]), rounding)
        residuals = pairs["residuals"].tolist()
        content["eigenvalues"] = {"names": names, "values": values, "residuals": residuals}
    return content


def blocks_content(directory: Path) -> list[dict[str, Any]]:
    """Describe the blocks of a run of ``pipeline=layers``: densities and largest eigenvalues."""
    content = []
    for path in sorted(directory.glob("*_[0-9]*.npz")):
        arrays = read_arrays(path)
        content.append(
            {
                "operator": path.stem.rpartition("_")[0],
                "layer": str(arrays["layer"]),
                "density": density_content(path, _POINTS_OF_BLOCK),
                "eigenvalues": arrays["eigenvalues"].tolist(),
                "residuals": arrays["residuals"].tolist(),
            }
        )
    return content


def density_content(path: Path, num: int = _POINTS) -> dict[str, Any]:
    """Describe a spectral density: mean and range over its random vectors at ``num`` points."""
    density = load_record(path, SpectralDensity)
    points = density.grid(num)
    found = density.evaluate(points)
    return {
        "points": encode(points),
        "mean": encode(found.mean(0)),
        "low": encode(found.amin(0)),
        "high": encode(found.amax(0)),
        "width": density.width,
        "probes": len(density.nodes),
        "steps": density.nodes.shape[1],
        "size": density.size,
    }


def criteria(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the criteria among measurements, with their titles and meanings."""
    return [
        {**metrics[name], "title": MEANINGS[name].title, "says": MEANINGS[name].says}
        for name in _CRITERIA
        if isinstance(metrics.get(name), Mapping)
    ]


def _trace(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    if metrics.get("trace") is None:
        return None
    return {"value": metrics["trace"], "error": metrics["trace_standard_error"]}
