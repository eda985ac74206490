"""``python -m mining explore``: the report, served, with lines evaluated where they are drawn."""

import argparse
import functools
import logging
import shlex
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from typing import Any

from mining import InputError
from mining.app.reports import add_choice, chosen_runs, collect, heading
from mining.pipelines.settings import Settings
from mining.reporting.page import build_page
from mining.reporting.records import FinishedRun
from mining.reporting.server import Request, Server
from mining.reporting.worker import Watch

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Serve a page until Ctrl-C, after printing its address.

    Args:
        arguments: What follows ``explore`` on the command line.

    Raises:
        InputError: If there is no surface among the runs, or the port is taken.
    """
    options = parse(arguments)
    try:
        runs = chosen_runs(options)
        command = " ".join(["python -m mining explore", *map(shlex.quote, arguments)])
        server = serve(runs, command, options.port)
    except KeyboardInterrupt:  # before anything is served
        sys.exit(130)
    try:
        print("Drag on the contours to draw a line; Ctrl-C ends.", file=sys.stderr)
        print(server.url, flush=True)
        if options.open:
            webbrowser.open(server.url)
        server.serve_forever()
    except KeyboardInterrupt:
        print("Stopping.", file=sys.stderr)
    finally:
        server.server_close()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments that follow ``explore``; exits with a line on stderr if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m mining explore",
        description="Serve the report of finished runs to this machine; lines that are drawn on a "
        "surface are evaluated and added. Lines are not written to disk.",
    )
    add_choice(parser)
    parser.add_argument("--port", type=int, default=0, help="the port; by default a free one")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser.parse_args(arguments)


def serve(runs: Sequence[FinishedRun], command: str, port: int = 0) -> Server:
    """Make the server of a page; ``serve_forever`` runs it.

    Args:
        runs: Finished runs, with a surface among them.
        command: What was typed.
        port: 0 takes a free one.

    Raises:
        InputError: If there is no surface among the runs, or the port is taken.
    """
    content = collect(runs, [], command)
    numbers = [surface["run"] for surface in content["surfaces"]]
    if not numbers:
        raise InputError(
            "There is no surface to explore among the runs. One is computed by "
            "python -m mining pipeline=surface"
        )
    surfaces = [runs[number] for number in numbers]
    page = build_page(heading(content["networks"]), content, served=True)
    try:
        return Server(page, len(surfaces), Evaluations(surfaces), port)
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: {error}") from error


class Evaluations:
    """Evaluates lines of surfaces; the landscape of the latest surface is kept.

    Args:
        runs: Of the surfaces, in the order in which the page has them.
    """

    def __init__(self, runs: Sequence[FinishedRun]) -> None:
        self._runs = runs
        self._surface = functools.lru_cache(maxsize=1)(self._build)

    def __call__(self, request: Request, watch: Watch) -> Mapping[str, Any]:
        """Evaluate a line, and return what the page shows of it."""
        import torch

        from mining.reporting.curves import line_content

        start = (0.0, 0.0) if request.start is None else request.start
        first = -1.0 if request.start is None else 0.0
        points = torch.linspace(first, 1.0, request.num, dtype=torch.float64)
        run, ends = self._runs[request.surface], (start, request.end)
        curve = self._surface(request.surface).line(ends, points, watch)
        about = {"network": run.network, "point": run.point, "run": None, "loss_of": run.loss_of}
        return about | line_content(curve, ends, request.surface)

    def _build(self, number: int) -> Any:
        from mining.pipelines.exploring import ExploredSurface

        run = self._runs[number]
        log.warning("Building the landscape of %s.", run.directory)
        return ExploredSurface(run.directory.resolve(), Settings.read(run.config))
