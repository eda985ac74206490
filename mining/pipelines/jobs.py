"""From settings to a finished run: it is skipped, continued or computed."""

import logging
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mining.pipelines.settings import Settings
from mining.storage.runs import Run

log = logging.getLogger(__name__)


def find_run(settings: Settings, directory: Path | None = None) -> Run:
    """Return the run of the settings, finished or not.

    Args:
        settings: What is asked for.
        directory: Where it lies, if not where its settings say.
    """
    inputs = settings.inputs()
    if directory is None:
        directory = Path(settings.outputs) / inputs.directory()
    return Run(directory, settings.record(), inputs.identity())


def compute(settings: Settings, run: Run) -> None:
    """Compute a run."""
    # Imported here: a finished run is skipped without waiting for torch.
    import torch

    from mining.pipelines.problem import Problem

    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    _module(settings).run(Problem(settings.as_read(), run))


def redraw(settings: Settings, run: Run) -> None:
    """Draw the pictures of a finished run again."""
    from mining.pipelines.problem import Problem

    _module(settings).draw(Problem(settings.as_read(), run))


def finish(settings: Settings, *read: str) -> Run:
    """Return the finished run of the settings, which is computed if it is not finished.

    Args:
        settings: What is asked for.
        read: Names of files that are about to be read; see ``Run.is_finished``.
    """
    run = find_run(settings)

    def make() -> None:
        what = "training" if settings.pipeline == "train" else "run"
        log.info("No finished %s in %s: computing it once now.", what, run.directory)
        compute(settings, run)

    run.complete(make, *read)
    return run


def _module(settings: Settings) -> ModuleType:
    return import_module(f"mining.pipelines.{settings.pipeline}")
