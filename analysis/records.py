"""What the scripts share: finding runs, and saying which command makes a missing one."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from mining.runs import load_runs


def parser(description: str, output: str) -> argparse.ArgumentParser:
    """Make a parser with the options that every script has.

    Args:
        description: What the script draws.
        output: Default path of the picture.
    """
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    arguments.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of runs")
    arguments.add_argument("--picture", type=Path, default=Path(output), help="PNG to write")
    arguments.add_argument("--dpi", type=int, default=150, help="dots per inch of the picture")
    return arguments


def find_runs(root: Path, command: str, **where: Any) -> pd.DataFrame:
    """Read the finished runs with the given values.

    Args:
        root: The output folder.
        command: What makes these runs, for the error.
        where: As for ``load_runs``.

    Raises:
        FileNotFoundError: If there is none.
    """
    runs = load_runs(root, **where)
    if runs.empty:
        raise FileNotFoundError(f"No finished run in {root}. Make it: {command}")
    return runs


def run_script(main: Callable[[], None]) -> None:
    """Run a script; what is missing is said in one line, with exit code 1."""
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def point_name(config: dict[str, Any]) -> str:
    """Name the θ of a run: the file, or the epoch of its training."""
    if config["checkpoint"] is not None:
        return Path(config["checkpoint"]).stem
    epoch = config["train"]["epochs"] if config["epoch"] is None else config["epoch"]
    return f"E={epoch}"
