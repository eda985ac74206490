"""What the scripts share: finding runs, and saying which command makes a missing one."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from mining.app.experiments import plan
from mining.directions import Descent
from mining.pipelines.building import has_batch_norm
from mining.pipelines.jobs import find_run
from mining.pipelines.settings import Picture
from mining.pipelines.targets import Target
from mining.storage.files import write_atomically
from mining.storage.identity import data_name
from mining.storage.table import load_runs, read_runs


def parser(description: str, output: str) -> argparse.ArgumentParser:
    """Make a parser with the options that every script has.

    Args:
        description: What the script draws.
        output: Default path of the picture.
    """
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    arguments.add_argument(
        "--picture", type=Path, default=Path(output), help="file to write: .png, .pdf or .svg"
    )
    arguments.add_argument("--dpi", type=int, default=Picture.dpi, help="dots per inch of a PNG")
    arguments.add_argument(
        "--width", type=float, help="inches, the height in proportion; default: as it is drawn"
    )
    arguments.add_argument(
        "--colormap", help="of matplotlib, for curves and surfaces; default: that of the runs"
    )
    return arguments


def parse(arguments: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: If an option of the picture is out of its range.
    """
    options = arguments.parse_args()
    given = {key: getattr(options, key) for key in ("dpi", "width", "colormap")}
    Picture.read({"format": options.picture.suffix.lower()[1:], **given})
    return options


def losses_drawn(config: dict[str, Any]) -> dict[str, Any]:
    """Return how the losses of a run are drawn: what ``draw_curves`` and ``draw_surface`` take."""
    return Picture.read(config["picture"]).of_losses


def figure_options(experiment: str, description: str) -> argparse.Namespace:
    """Read the arguments of the script of a figure: ``overrides``, ``csv`` and of the picture.

    Args:
        experiment: Name of the experiment that it draws, ``xu2024/fig02`` for instance.
        description: What the script draws.
    """
    arguments = parser(description, f"outputs/{experiment}.png")
    arguments.epilog = f"Its runs are those of: python -m mining experiment={experiment}"
    arguments.add_argument("--csv", type=Path, help="numbers to write; default: beside the picture")
    add_overrides(arguments)
    options = parse(arguments)
    if options.colormap is not None:
        options.overrides.append(f"picture.colormap={options.colormap}")
    options.csv = options.csv or options.picture.with_suffix(".csv")
    return options


def add_overrides(arguments: argparse.ArgumentParser) -> None:
    """Let a script take what its experiment was run with, as ``overrides``."""
    arguments.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="what the experiment was run with: size=smoke, subject=mlp, seed=1, outputs=FOLDER",
    )


def experiment_runs(experiment: str, overrides: Sequence[str]) -> pd.DataFrame:
    """Read the finished runs of an experiment; see ``planned_runs``.

    Args:
        experiment: Its name, ``xu2024/fig02`` for instance.
        overrides: What it was run with besides.
    """
    return planned_runs([f"experiment={experiment}", *overrides])


def planned_runs(arguments: Sequence[str]) -> pd.DataFrame:
    """Read the finished runs of ``python -m mining`` with these arguments, in their order.

    They are drawn as they were, but for what the arguments say of ``picture``.

    Those that are missing are said on stderr, with the command that makes them.

    Raises:
        FileNotFoundError: If none is finished.
    """
    planned = plan(arguments)
    finished = [run for run in planned if find_run(run.settings, run.directory).finished]
    command = f"python -m mining {shlex.join(arguments)}"
    if not finished:
        raise FileNotFoundError(
            f"No finished run of this. Make them: {command} (or give the size=… and subject=… that "
            "they were made with)"
        )
    if len(finished) < len(planned):
        missing = f"{len(planned) - len(finished)} of {len(planned)} runs are missing"
        print(f"{missing}. Make them: {command}", file=sys.stderr)
    runs = read_runs([run.directory for run in finished])
    default = asdict(Picture())
    for config, run in zip(runs.config, finished, strict=True):
        asked = asdict(run.settings.picture).items()
        config["picture"] |= {key: value for key, value in asked if value != default[key]}
    return runs


def find_runs(root: Path, command: str, **where: Any) -> pd.DataFrame:
    """Read the finished runs with the given values.

    Args:
        root: The output folder.
        command: What makes these runs, for the error.
        where: As for ``load_runs``.

    Raises:
        FileNotFoundError: If there is none.
    """
    if not root.is_dir() or (runs := load_runs(root, **where)).empty:
        raise FileNotFoundError(f"No finished run in {root}. Make it: {command}")
    return runs


def save_csv(rows: Sequence[dict[str, Any]] | pd.DataFrame, path: Path) -> None:
    """Write the numbers of a picture, six digits each."""
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


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
    step = config.get("step")
    return f"E={epoch_of(config)}" + (f" and {step} steps" if step is not None else "")


def epoch_of(config: dict[str, Any]) -> int:
    """Return the epoch of θ in its training."""
    return int(config["train"]["epochs"] if config["epoch"] is None else config["epoch"])


def learning_rate_of(config: dict[str, Any]) -> float | None:
    """Return the learning rate of Algorithms 1 and 2, ``None`` of other directions."""
    direction = config.get("direction") or {"_target_": ""}
    if not direction["_target_"].endswith(("Xu2024WPeak", "Xu2024VVVBasin")):
        return None
    return float(direction["descent"]["lr"])


def departures(config: dict[str, Any]) -> list[str]:
    """Name layers, normalization and the like, up to the seed, that are not the defaults."""
    normalization = _named_normalization(config)
    policy, hidden = config["batchnorm"]["mode"], config["model"].get("hidden", [128])
    found = ["-".join(map(str, hidden))] if hidden != [128] else []
    found += [] if config["model"].get("skip_connections", True) else ["no skip connections"]
    found += [f"norm: {normalization}"] if normalization else []
    if policy != "recalibrate":
        found += [
            f"batch norm: {policy}"
            if has_batch_norm(Target.read("model", config["model"]))
            else "no batch norm"
        ]
    found += [f"on {data_name(config['data_shifted'])}"] if config.get("data_shifted") else []
    found += [f"shift: {config['shift']}"] if config.get("shift") else []
    found += [f"not moved: {config['freeze']}"] if config.get("freeze") else []
    found += [f"{config['split']} loss"] if config["split"] != "train" else []
    rate = learning_rate_of(config)
    found += [f"η={rate:g}"] if rate not in (None, Descent.lr) else []
    return found + ([f"seed {config['seed']}"] if config["seed"] != 0 else [])


def describe(run: Any) -> str:
    """Say which network, point and departures a run is of: ``mlp-cifar10, E=10, seed 1``."""
    parts = [f"{run.model}-{run.data}", point_name(run.config), *departures(run.config)]
    return ", ".join(parts)


def tell_apart(runs: Sequence[Any]) -> list[str]:
    """Describe the runs of one figure; in what they differ is named, defaults too.

    Args:
        runs: As ``experiment_runs`` gives them.

    Returns:
        For each run its description, with seed, normalization, learning rate of mining and window
        of those that differ in it.
    """
    names = [[describe(run)] for run in runs]
    for name in (_seed, _normalization, _learning_rate, window):
        values = [name(run) for run in runs]
        if len(set(values)) > 1:
            for parts, value in zip(names, values, strict=True):
                parts += [value] if value and value not in parts[0].split(", ") else []
    return [", ".join(parts) for parts in names]


def window(run: Any) -> str:
    """Write the interval of α of a run."""
    grid = run.config["grid"]
    return f"α in [{grid['low']:g}, {grid['high']:g}]"


def _seed(run: Any) -> str:
    return f"seed {run.config['seed']}"


def _learning_rate(run: Any) -> str:
    rate = learning_rate_of(run.config)
    return "" if rate is None else f"η={rate:g}"


def _normalization(run: Any) -> str:
    """Name the normalization of random directions: that of the model by default."""
    given = _named_normalization(run.config)
    axes = ("x_direction",) if run.pipeline == "surface" else ("direction",)
    kinds = (".Gaussian", ".Uniform")
    random = any(str(run.config[key]["_target_"]).endswith(kinds) for key in axes)
    return f"norm: {given or 'model'}" if given or random else ""


def _named_normalization(config: dict[str, Any]) -> str | None:
    """Name the normalization that a run was given, with the order of its norm unless that is 2."""
    given = config.get("normalization")
    if not given:
        return None
    order = given.get("order", 2)
    return str(given["name"]) + ("" if order == 2 else f" L{order}")
