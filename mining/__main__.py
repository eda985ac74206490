"""The command line: ``python -m mining`` or ``mining``."""

import json
import logging
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from errno import EACCES, EEXIST, ENOSPC, ENOTDIR, EROFS
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from mining.pipelines import PIPELINE_KEYS, UNNAMED_KEYS
from mining.pipelines.experiments import register_resolvers
from mining.runs import Run

#: What wrong input raises; anything else is a mistake of ours and shows its traceback.
_EXPECTED = (
    HydraException,
    OmegaConfBaseException,
    ValueError,
    OSError,
    ArithmeticError,
    MemoryError,
)
_HYDRA = {"version_base": "1.3", "config_path": "pkg://mining.conf", "config_name": "config"}
_failures: list[BaseException] = []
log = logging.getLogger("mining")


def main() -> None:
    """Run the command line; exit code 1 and one line on stderr where the input is wrong."""
    sys.path.insert(0, str(Path.cwd()))  # a user's own classes, also for the console script
    logging.raiseExceptions = False  # a full disk is reported once, not by every log line
    register_resolvers()
    OmegaConf.register_new_resolver("mining.help", _help, replace=True)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        hydra.main(**_HYDRA)(_execute)()
        return
    # Hydra's own report takes several lines, and tells a user who mistyped a key to append it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(**_HYDRA)(_execute_or_report)()
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except _EXPECTED as error:
        _report(error)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
    if _failures:
        _failures.clear()
        sys.exit(1)


def _execute_or_report(cfg: DictConfig) -> None:
    try:
        _execute(cfg)
    except _EXPECTED as error:  # before Hydra adds a line of its own
        _report(error)


def _report(error: BaseException) -> None:
    """Print one line; the other jobs of a sweep go on."""
    print(f"error: {_describe(error)}", file=sys.stderr)
    _failures.append(error)


def _execute(cfg: DictConfig) -> None:
    """Run one job, unless it is finished, and print its directory."""
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    run = Run(Path(HydraConfig.get().runtime.output_dir), config)
    _warn_of_unread(config["pipeline"], HydraConfig.get().overrides.task)
    if run.finished:
        _redraw(run)
        log.info("Finished before, skipped: %s", run.directory)
    else:
        # Imported here: a finished run is skipped without waiting for torch.
        pipeline = import_module(f"mining.pipelines.{config['pipeline']}")
        try:
            import_module("mining.pipelines.building").prepare(config)
            pipeline.run(config, run)
        finally:
            _remove_if_empty(run)
    print(run.directory, flush=True)


def _warn_of_unread(pipeline: str, overrides: Sequence[str]) -> None:
    """Say which arguments change nothing because the pipeline does not read their key."""
    read = {*PIPELINE_KEYS[pipeline], *UNNAMED_KEYS}
    if any(key.endswith("direction") for key in read):
        read.add("descent")  # of a direction that is mined
    for override in overrides:
        key = re.split(r"[.=]", override.lstrip("+~"))[0]
        if key not in read:
            log.warning("pipeline=%s does not read %s: it changes nothing.", pipeline, override)


def _redraw(run: Run) -> None:
    """Draw a finished run again where other picture settings are asked for."""
    if run.recorded_config()["picture"] == run.config["picture"]:
        return
    pipeline = import_module(f"mining.pipelines.{run.config['pipeline']}")
    pipeline.draw(run.directory, run.config)
    run.record_picture()


def _remove_if_empty(run: Run) -> None:
    """Leave no directory behind that holds nothing but a log, and nothing that writes there.

    Folders outside of ``outputs``, given as ``hydra.run.dir``, are the user's and stay.
    """
    if Path(run.config["outputs"]).resolve() not in run.directory.resolve().parents:
        return
    if {path.name for path in run.directory.iterdir()} <= {"mining.log"}:
        root, own = logging.getLogger(), run.directory.resolve() / "mining.log"
        for handler in list(root.handlers):  # what is logged later would look for the folder
            if (
                isinstance(handler, logging.FileHandler)
                and Path(handler.baseFilename).resolve() == own
            ):
                root.removeHandler(handler)
                handler.close()
        shutil.rmtree(run.directory)
        for parent in run.directory.parents[:2]:  # model and data, pipeline
            if not any(parent.iterdir()):
                parent.rmdir()


def _describe(error: BaseException) -> str:
    """Say in one line what is wrong and what would be right."""
    cause: BaseException | None = error
    while cause is not None:
        if (
            isinstance(cause, ConfigAttributeError | ConfigKeyError)
            and cause.parent_node is not None
        ):
            keys = sorted(map(str, cast(DictConfig, cause.parent_node)))
            allowed = [key for key in keys if key not in ("hydra", "_target_")]
            return f"no key {cause.full_key!r}; there are {', '.join(allowed) or 'none'}"
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key} must be given: {cause.full_key}=VALUE"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.errno in (ENOSPC, EACCES, EROFS, ENOTDIR, EEXIST):
        where = f" {error.filename}" if error.filename else ""
        attempt = "access" if error.errno == EACCES else "write"
        return f"cannot {attempt}{where}: {error.strerror}. Make room, or outputs=ANOTHER_FOLDER"
    text = " ".join(str(error).partition("Config search path:")[0].split())
    missing = re.match(r"Could not find '(\w+)/", text) or re.search(r"'(\w+)/[^']*'", text)
    if isinstance(error, MissingConfigException) and missing:
        options = _options(files("mining.conf").joinpath(missing[1]))
        return f"{text.partition('Available')[0]}There are {', '.join(name for name, _ in options)}"
    return text


def _help() -> str:
    """List every group with its options, each with the first line of its file."""
    lines = [
        "See, mine and explain the loss landscape of deep networks.",
        "",
        "  python -m mining                                 one Gaussian curve of an MLP on digits",
        "  python -m mining pipeline=train model=cnn        train, keep checkpoints",
        "  python -m mining -m direction=gaussian,gradient  a sweep",
        "  python -m mining experiment=quickstart           every kind of curve, in a minute",
        "",
        "A run leaves record, arrays and picture in outputs/<pipeline>/<model>-<data>/<digest>,",
        "and prints that path last. A finished run is skipped, an interrupted one goes on.",
        "",
        "Groups (GROUP=OPTION) and their options:",
    ]
    root = files("mining.conf")
    for group in sorted(entry.name for entry in root.iterdir() if entry.is_dir()):
        if group.startswith("_"):
            continue
        lines += ["", f"{group}:"]
        if group in ("x_direction", "y_direction"):
            lines.append("  as direction, for an axis of pipeline=surface")
            continue
        for name, about in _options(root.joinpath(group)):
            lines.append(f"  {name:<18} {about}")
            if group in ("model", "data", "direction"):
                keys = _keys(root.joinpath(group, f"{name}.yaml").read_text(), group)
                indent = " " * 21
                lines += textwrap.wrap(
                    ", ".join(keys), 100, initial_indent=indent, subsequent_indent=indent
                )
    lines += ["", "Keys (KEY=VALUE), with their defaults:", ""]
    text = root.joinpath("config.yaml").read_text()
    lines += text[text.index("\ncheckpoint:") + 1 : text.index("\nhydra:")].splitlines()
    lines += ["", "-m sweeps over comma-separated values; --cfg job shows the configuration."]
    return "\n".join(lines).replace("$", "$$")


def _keys(text: str, group: str) -> list[str]:
    """List the keys of an option, ``direction.basins=null`` for instance, from its file."""
    content = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text)))
    found = []
    for key, value in content.get(group, content).items():
        if key not in ("name", "_target_", "defaults"):
            default = value if isinstance(value, str) else json.dumps(value)
            without = isinstance(value, dict) or default.startswith(("${", "?"))
            found.append(f"{group}.{key}" if without else f"{group}.{key}={default}")
    return found


def _options(folder: Any, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _options(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            lines = entry.read_text().splitlines()
            about = next(line for line in lines if not line.startswith("# @")).removeprefix("# ")
            found.append((prefix + entry.name.removesuffix(".yaml"), about))
    return found


if __name__ == "__main__":
    main()
