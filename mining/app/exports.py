"""``python -m mining export``: finished runs in the formats of other programs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mining import InputError
from mining.evaluation.curves import Curve
from mining.evaluation.storage import load_curves, load_surface
from mining.plotting.latex import latex_table
from mining.plotting.losses import Array
from mining.plotting.meshes import Mesh, export_surface, mesh_of
from mining.plotting.tensorboard import event_file, numbered
from mining.reporting.records import FinishedRun, name_networks
from mining.storage.files import write_atomically

_OF_CURVES = ("alphas", "loss", "accuracy", "loss_test", "accuracy_test", "accuracy_error")


def main(arguments: Sequence[str]) -> None:
    """Write a file and print its path.

    Args:
        arguments: What follows ``export`` on the command line.

    Raises:
        InputError: If a run is not finished, or has not what the file is to hold.
    """
    options = parse(arguments)
    runs = [FinishedRun.read(directory) for directory in options.runs]
    if options.file.suffix == ".tex":
        _write_table(runs, options.file)
    elif options.file.suffix == ".tfevents":
        _write_events(runs, options)
    else:
        surface = load_surface(_surface_of(runs) / "surface.npz")
        export_surface(
            surface,
            options.file,
            loss_cap=options.loss_cap,
            log_scale=options.log_scale,
            height=options.height,
        )
    print(options.file)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments that follow ``export``; exits with a line on stderr if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m mining export",
        description="Write a surface as a mesh (.vts, .ply, .obj), labels of curves (.tex), or "
        "surfaces, curves and trainings for TensorBoard (.tfevents).",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of runs")
    parser.add_argument("file", type=Path, help="the file; its suffix is the format")
    parser.add_argument("--loss-cap", type=float, help="loss above which a mesh is cut off, nats")
    parser.add_argument("--log-scale", action="store_true", help="heights as log10 of the loss")
    parser.add_argument(
        "--height", type=float, help="range of the heights, in units of the longer axis"
    )
    return parser.parse_args(arguments)


def _surface_of(runs: Sequence[FinishedRun]) -> Path:
    if len(runs) != 1 or runs[0].pipeline != "surface":
        given = ", ".join(f"{run.directory} ({run.pipeline})" for run in runs)
        raise InputError(f"A mesh is of one run of pipeline=surface, got {given}.")
    return runs[0].directory


def _write_table(runs: Sequence[FinishedRun], path: Path) -> None:
    other = [run for run in runs if run.pipeline != "curve"]
    if other:
        raise InputError(
            f"Labels are those of runs of pipeline=curve, got {other[0].directory} "
            f"({other[0].pipeline})."
        )
    names = name_networks(runs)
    pairs = [(c, run) for run in runs for c in load_curves(run.directory / "curves.npz")]
    groups = [f"{names[run.network]}, {run.point}" for _, run in pairs]
    write_atomically(path, latex_table([curve for curve, _ in pairs], groups))


def _write_events(runs: Sequence[FinishedRun], options: argparse.Namespace) -> None:
    """Write what TensorBoard can show of runs: a mesh for a surface, scalars for the others."""
    meshes: dict[str, Mesh] = {}
    scalars: dict[str, tuple[Array, Array]] = {}
    names = name_networks(runs)
    for run in runs:
        about = f"{names[run.network]}, {run.point}, {run.digest[:8]}/" if len(runs) > 1 else ""
        if run.pipeline == "surface":
            surface = load_surface(run.directory / "surface.npz")
            heights = {k: getattr(options, k) for k in ("loss_cap", "log_scale", "height")}
            meshes[about + " × ".join(surface.names)] = mesh_of(surface, **heights)
        elif run.pipeline == "curve":
            for curve in load_curves(run.directory / "curves.npz"):
                scalars |= numbered(_columns(curve), "alphas", f"{about}{curve.name}/")
        elif run.pipeline == "train":
            for title, file in (("history", "history.csv"), ("monitor", "curvature.csv")):
                path = run.directory / file
                if path.exists():
                    table = pd.read_csv(path).apply(pd.to_numeric, errors="coerce").astype(float)
                    columns = {str(name): table[name].to_numpy() for name in table}
                    scalars |= numbered(columns, "epoch", f"{about}{title}/")
        else:
            raise InputError(
                f"TensorBoard shows runs of pipeline=surface, curve and train, got {run.directory} "
                f"({run.pipeline})."
            )
    write_atomically(options.file, event_file(meshes, scalars))


def _columns(curve: Curve) -> dict[str, Array]:
    """Give α and what a curve has at each of its points."""
    known = {name: getattr(curve, name) for name in _OF_CURVES}
    return {name: value.numpy() for name, value in known.items() if value is not None}
