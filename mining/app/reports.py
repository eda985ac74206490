"""``python -m mining report``: finished runs as one HTML file."""

import argparse
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mining import InputError
from mining.app.commands import find_commands
from mining.app.runs import matching
from mining.evaluation.curves import Curve, Surface
from mining.reporting.content import describe_runs
from mining.reporting.page import build_page
from mining.reporting.records import FinishedRun
from mining.storage.files import write_atomically
from mining.storage.provenance import versions
from mining.storage.states import run_states

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Write a report and print its path.

    Args:
        arguments: What follows ``report`` on the command line.

    Raises:
        InputError: If there are no such runs.
    """
    options = parse(arguments)
    command = " ".join(["python -m mining report", *map(shlex.quote, arguments)])
    runs = chosen_runs(options)
    output = options.output or options.folder / "report.html"
    print(_write(runs, [], output, options.title, command))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments that follow ``report``; exits with a line on stderr if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m mining report",
        description="Write one HTML file that shows finished runs and opens without a network.",
    )
    add_choice(parser)
    parser.add_argument(
        "--output", type=Path, help="the file that is written; by default FOLDER/report.html"
    )
    parser.add_argument("--title", help="its heading; by default the networks are named")
    return parser.parse_args(arguments)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose finished runs; see ``chosen_runs``."""
    parser.add_argument(
        "what",
        nargs="*",
        metavar="RUN | KEY=VALUE",
        help="directories of runs or folders of outputs, and values that the runs must have; "
        "none: all finished runs in --folder",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs"), help="the folder of outputs=FOLDER"
    )


def chosen_runs(options: argparse.Namespace) -> list[FinishedRun]:
    """Find the runs that the arguments of ``add_choice`` name; errors as ``find_runs``."""
    where, what = split_arguments(options.what)
    return find_runs(what or [options.folder], where)


def split_arguments(what: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Tell conditions from directories."""
    where = [entry for entry in what if "=" in entry and not Path(entry).exists()]
    return where, [Path(entry) for entry in what if entry not in where]


def report(
    *what: str | Path | Curve | Surface | Sequence[Curve | Surface],
    output: str | Path = "report.html",
    title: str | None = None,
    where: Sequence[str] = (),
) -> Path:
    """Write one HTML file that shows a landscape and opens without a network.

    Args:
        what: Directories of finished runs, folders of ``outputs=``, curves and surfaces.
        output: The file that is written.
        title: Its heading; by default the networks are named.
        where: Conditions that runs must meet, ``KEY=VALUE`` each, as ``model.name=mlp``.

    Returns:
        The path of the file.

    Raises:
        InputError: If there is nothing to show, a folder holds no finished run, or plotly is not
            installed.
    """
    paths, results = [], []
    for given in what:
        if isinstance(given, str | Path):
            paths.append(Path(given))
        else:
            results += [given] if isinstance(given, Curve | Surface) else list(given)
    for result in results:
        if not isinstance(result, Curve | Surface):
            raise InputError(
                "report takes directories of runs, curves and surfaces, got "
                f"{type(result).__name__}."
            )
    runs = find_runs(paths, where) if paths else []
    return _write(runs, results, Path(output), title, "mining.report(…) in Python")


def find_runs(folders: Sequence[Path], where: Sequence[str]) -> list[FinishedRun]:
    """Read finished runs, with the command that makes each.

    Args:
        folders: Directories of runs, and folders of ``outputs=``.
        where: Conditions, ``KEY=VALUE`` each.

    Raises:
        InputError: If a folder holds no finished run, or none meets the conditions.
    """
    directories: dict[Path, None] = {}
    for folder in folders:
        if (folder / "run.json").is_file():
            directories[folder] = None
            continue
        states = run_states(folder)
        done = [state.directory for state in states if state.state == "done"]
        if not done:
            raise InputError(f"{folder} holds no finished run. Make some: python -m mining --help")
        if len(done) < len(states):
            log.warning("%s: %d runs are not finished: left out.", folder, len(states) - len(done))
        directories |= dict.fromkeys(done)
    runs = [FinishedRun.read(directory) for directory in directories]
    for condition in where:
        runs = matching(runs, condition)
    if not runs:
        raise InputError(f"No finished run has {' and '.join(where)}.")
    return runs


def _write(
    runs: Sequence[FinishedRun],
    results: Sequence[Curve | Surface],
    output: Path,
    title: str | None,
    command: str,
) -> Path:
    content = collect(runs, results, command)
    write_atomically(output, build_page(title or heading(content["networks"]), content))
    return output


def collect(
    runs: Sequence[FinishedRun], results: Sequence[Curve | Surface], command: str
) -> dict[str, Any]:
    """Collect what a page shows, with the command that makes each run.

    Args:
        runs: Finished runs.
        results: Curves and surfaces that no run has.
        command: What made the page.

    Raises:
        InputError: If there is nothing to show.
    """
    if not runs and not results:
        raise InputError("There is nothing to show: give runs, curves or surfaces.")
    commands = find_commands([run.config for run in runs])
    known = [replace(run, command=found) for run, found in zip(runs, commands, strict=True)]
    return describe_runs(known, results) | {"made": {"command": command, "versions": versions()}}


def heading(networks: Sequence[Mapping[str, Any]]) -> str:
    """Name the networks whose landscape is shown; all if none is."""
    shown = [network["name"] for network in networks if network["has_landscape"]]
    names = shown or [network["name"] for network in networks]
    some = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
    return f"Loss landscape of {' and of '.join(some)}"
