"""``python -m mining runs``: what an output folder holds, finished or not."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

from mining import InputError
from mining.pipelines import PIPELINE_KEYS
from mining.pipelines.shares import share_done
from mining.reporting.records import flat
from mining.storage.spelling import suggest
from mining.storage.states import RunState, State, run_states

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def main(arguments: Sequence[str]) -> None:
    """List runs, or remove them.

    Args:
        arguments: What follows ``runs`` on the command line.

    Raises:
        InputError: If there is no such folder, or no run has a key that is asked for.
    """
    options = parse(arguments)
    found = [run for run in run_states(options.folder) if options.state in (None, run.state)]
    for condition in options.where:
        found = matching(found, condition)
    if options.remove:
        _remove(found, sure=options.yes)
    elif options.json:
        print(json.dumps([_as_record(run) for run in found], indent=1))
    else:
        print("\n".join(_listing(found)) or f"No runs in {options.folder}.")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments that follow ``runs``; exits with a line on stderr if one is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m mining runs",
        description="List runs: state, age, size, directory and the keys in which they differ.",
    )
    parser.add_argument("where", nargs="*", metavar="KEY=VALUE", help="only runs with this value")
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs"), help="the folder of outputs=FOLDER"
    )
    parser.add_argument("--state", choices=get_args(State), help="only runs in this state")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.add_argument("--remove", action="store_true", help="delete them, after a question")
    parser.add_argument("--yes", action="store_true", help="delete without a question")
    return parser.parse_args(arguments)


def _differing(runs: Sequence[RunState]) -> list[dict[str, Any]]:
    """Give, for each run, its values of the keys in which the runs differ.

    Only keys count that their pipeline reads, and that all runs with a known configuration have.
    """
    configs = [
        {
            key: value
            for key, value in flat(run.config).items()
            if key.partition(".")[0] in PIPELINE_KEYS.get(run.pipeline, ())
        }
        for run in runs
    ]
    known = [config for config in configs if config]
    shared = [key for key in known[0] if all(key in c for c in known)] if known else []
    chosen = [key for key in shared if len({json.dumps(c[key]) for c in known}) > 1]
    return [{key: config[key] for key in chosen if key in config} for config in configs]


class _Configured(Protocol):
    @property
    def config(self) -> Mapping[str, Any]: ...


Found = TypeVar("Found", bound=_Configured)


def matching(runs: Sequence[Found], condition: str) -> list[Found]:
    """Choose the runs that have a value.

    Args:
        runs: Finished or not.
        condition: ``KEY=VALUE``, as ``train.lr=0.1``.

    Raises:
        InputError: If it is none, or no run has the key.
    """
    key, equals, wanted = condition.partition("=")
    if not equals:
        raise InputError(f"{condition!r} must be KEY=VALUE, as seed=1.")
    configs = [flat(run.config) for run in runs]
    known = {name for config in configs for name in config}
    if runs and key not in known:
        raise InputError(f"No run has the key {key}{suggest(key, sorted(known))}.")
    pairs = zip(runs, configs, strict=True)
    return [run for run, config in pairs if key in config and _text(config[key]) == wanted]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _listing(runs: Sequence[RunState]) -> Iterable[str]:
    """Give a line per run, pipeline by pipeline."""
    for pipeline in dict.fromkeys(run.pipeline for run in runs):
        group = [run for run in runs if run.pipeline == pipeline]
        for run, values in zip(group, _differing(group), strict=True):
            told = " ".join(f"{key}={_text(value)}" for key, value in values.items())
            age = _duration(time.time() - run.modified)
            line = f"{_state(run):<16} {age:>7} {_size(run.size):>8}  {run.directory}  {told}"
            yield line.rstrip() + (f"\n    {run.note}" if run.note else "")


def _state(run: RunState) -> str:
    share = None if run.state == "done" else share_done(run.directory, run.config)
    return run.state if share is None else f"{run.state} {share:.0%}"


def _as_record(run: RunState) -> dict[str, Any]:
    return {
        "directory": str(run.directory),
        "state": run.state,
        "share": 1.0 if run.state == "done" else share_done(run.directory, run.config),
        "note": run.note,
        "modified": run.modified,
        "size": run.size,
        "config": run.config,
    }


def _duration(seconds: float) -> str:
    length, unit = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    return f"{seconds / length:.0f} {unit}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _remove(runs: Sequence[RunState], *, sure: bool) -> None:
    if not runs:
        print("No such runs.")
        return
    if not sure:
        print("\n".join(_listing(runs)))
        print(f"Delete these ({len(runs)})? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.")
            return
    for run in runs:
        run.remove()
    print(f"Deleted {len(runs)}.")
