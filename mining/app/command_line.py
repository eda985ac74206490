"""The command line: ``python -m mining`` or ``mining``."""

import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mining import InputError, ranks
from mining.app.arguments import arrange, as_typed
from mining.app.experiments import register_resolvers
from mining.app.help import help_text
from mining.app.hydra_versions import VERSION, register_resolver
from mining.app.messages import (
    FailedJobError,
    describe,
    describe_fault,
    is_expected,
    passed_through_mining,
)
from mining.pipelines import PAGE, PIPELINE_KEYS, UNNAMED_KEYS
from mining.pipelines.jobs import complete, compute, find_run, redraw
from mining.pipelines.settings import Picture, Settings
from mining.storage.runs import Run
from mining.storage.states import has_traceback

_HYDRA = {"config_path": "pkg://mining.conf", "config_name": "config", **VERSION}
#: Seconds for which the other ranks let the first one say what is wrong.
_PRECEDENCE = 5.0
_failures: list[BaseException] = []
#: Of the process that started a sweep: its jobs may run in others.
_main_pid: int | None = None
#: Commands that are no runs, and the modules whose ``main`` takes the arguments after them.
_COMMANDS = {
    "runs": "mining.app.runs",
    "report": "mining.app.reports",
    "export": "mining.app.exports",
    "explore": "mining.app.explore",
}
log = logging.getLogger("mining")


def main() -> None:
    """Run the command line; exit code 1 and one line on stderr where something is wrong."""
    global _main_pid
    _main_pid = os.getpid()
    sys.path.append(str(Path.cwd()))  # a user's own classes, which hide nothing that is installed
    logging.raiseExceptions = False  # a full disk is reported once, not by every log line
    if "--version" in sys.argv[1:]:
        print(f"mining {version('mining')}")
        return
    if sys.argv[1:2] and sys.argv[1] in _COMMANDS:
        _run_command(sys.argv[1], sys.argv[2:])
        return
    register_resolvers()
    register_resolver("mining.help", help_text)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        hydra.main(**_HYDRA)(_execute)()
        return
    # Hydra's own report takes several lines, and tells a user who mistyped a key to append it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        sys.argv[1:] = arrange(sys.argv[1:])
        _refuse_sweep(any(word in ("-m", "--multirun") for word in sys.argv[1:]))
        hydra.main(**_HYDRA)(_execute_or_report)()
    except KeyboardInterrupt:
        if ranks.launched_index() == 0:
            print("Interrupted. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except FailedJobError as error:  # in another process, which has reported it
        _failures.append(error)
    except Exception as error:  # while Hydra composed the configuration
        if not is_expected(error) and not passed_through_mining(error):
            text = f"Hydra cannot compose {' '.join(sys.argv[1:])}: {type(error).__name__} {error}"
            error = InputError(text)  # its own checks are assertions, in part
        _report(error, None)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
    if _failures:
        _failures.clear()
        sys.exit(1)


def _run_command(name: str, arguments: Sequence[str]) -> None:
    """Run a command that looks at runs instead of making one."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    try:
        import_module(_COMMANDS[name]).main(arguments)
    except (InputError, OSError) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(1)


def _execute_or_report(cfg: DictConfig) -> None:
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        _refuse_sweep(HydraConfig.get().mode == RunMode.MULTIRUN)
        _execute(cfg)
    except Exception as error:  # before Hydra adds a line of its own
        _report(error, directory / "mining.log")
        _remove_if_empty(directory, cfg)
        if ranks.launched():
            _failures.clear()
            sys.exit(1)  # also where Hydra has further jobs
        if os.getpid() != _main_pid:  # whose list of failures nobody reads
            raise FailedJobError(str(directory)) from error
    except BaseException:
        _remove_if_empty(directory, cfg)
        raise


def _report(error: Exception, log: Path | None) -> None:
    """Print one line; the other jobs of a sweep go on.

    Args:
        error: What was raised.
        log: Where the traceback of a fault of the program is kept; ``None``: on stderr.
    """
    expected, rank = is_expected(error), ranks.launched_index()
    if rank and expected:
        # The first one says the same, in most cases, and torchrun ends this one then.
        time.sleep(_PRECEDENCE)
    print(f"error: {describe(error)}" if expected else describe_fault(error, log), file=sys.stderr)
    _failures.append(error)


def _execute(cfg: DictConfig) -> None:
    """Run one job, unless it is finished, and print its directory."""
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    settings = Settings.read(config)
    directory = Path(HydraConfig.get().runtime.output_dir)
    if ranks.launched_index() > 0:
        settings = replace(settings, progress=False)
        _be_quiet()
    with ranks.distributed() as group:
        # One folder for all, also where its name is the time of the start.
        directory = group.from_first(lambda: directory)
        typed = [as_typed(argument) for argument in HydraConfig.get().overrides.task]
        run = find_run(settings, directory, typed)
        _warn_of_unread(settings.pipeline, typed)
        computed = complete(settings, run, partial(compute, settings, run))
        ranks.on_first(partial(_conclude, settings, run, computed=computed))


def _conclude(settings: Settings, run: Run, *, computed: bool) -> None:
    """Print the directory of a finished run, and its page if it has one."""
    if not computed:
        _redraw(settings, run)
        log.info("Finished before, skipped: %s", run.directory)
    page = run.directory / PAGE
    if page.exists():
        print(page.read_text(encoding="utf-8"))
    print(run.directory, flush=True)


def _refuse_sweep(sweeps: bool) -> None:
    """Raise ``InputError`` if several runs are asked of processes that share one."""
    if sweeps and ranks.launched():
        raise InputError(
            "The processes of torchrun share one run: leave out -m, and experiments of several "
            "runs. Many runs at once are for a launcher: python -m mining -m hydra/launcher=…"
        )


def _be_quiet() -> None:
    """Leave log lines to the first rank, whose are the same; errors are reported by each."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.addHandler(logging.NullHandler())


def _warn_of_unread(pipeline: str, overrides: Sequence[str]) -> None:
    """Say which arguments change nothing because the pipeline does not read their key."""
    read = {*PIPELINE_KEYS[pipeline], *UNNAMED_KEYS}
    if any(key.endswith("direction") for key in read):
        read.add("descent")  # of a direction that is mined
    for override in overrides:
        key = re.split(r"[.=]", override.lstrip("+~"))[0]
        if key not in read:
            log.warning("pipeline=%s does not read %s: it changes nothing.", pipeline, override)


def _redraw(settings: Settings, run: Run) -> None:
    """Draw a finished run again where other settings are asked for, or a picture is damaged."""
    recorded = Picture.read(run.recorded_config()["picture"])
    if recorded == settings.picture and run.pictures_are_whole:
        return
    with run.alone():
        redraw(settings, run)
        run.record_picture()


def _remove_if_empty(directory: Path, cfg: DictConfig) -> None:
    """Leave no directory behind that holds nothing but log lines, and nothing that writes there.

    A log with the traceback of a fault stays. Folders outside of ``outputs``, given as
    ``hydra.run.dir``, are the user's and stay.
    """
    if ranks.launched_index() > 0:
        return  # it is the first one's
    directory = directory.resolve()
    own = directory / "mining.log"
    if Path(str(cfg.outputs)).resolve() not in directory.parents:
        return
    if {path.name for path in directory.iterdir()} - {own.name}:
        return
    if has_traceback(own):
        return
    root = logging.getLogger()
    for handler in list(root.handlers):  # what is logged later would look for the folder
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).resolve() == own:
            root.removeHandler(handler)
            handler.close()
    shutil.rmtree(directory, ignore_errors=True)
    for parent in directory.parents[:2]:  # model and data, pipeline
        with suppress(OSError):  # another run is in it
            parent.rmdir()
