"""From settings to a finished run: it is skipped, continued or computed."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mining import ranks
from mining.pipelines.settings import Settings
from mining.storage.runs import Run

log = logging.getLogger(__name__)

#: Pipelines whose work several ranks share; the first rank computes the others alone.
_SHARED = ("curve", "surface", "spectrum", "eigenvectors", "mine")


def find_run(
    settings: Settings, directory: Path | None = None, arguments: Sequence[str] | None = None
) -> Run:
    """Return the run of the settings, finished or not.

    Args:
        settings: What is asked for.
        directory: Where it lies, if not where its settings say.
        arguments: What was typed for it on the command line, if anything.
    """
    inputs = settings.inputs()
    if directory is None:
        directory = Path(settings.outputs) / inputs.directory()
    return Run(directory, settings.record(), inputs.identity(), arguments)


def complete(settings: Settings, run: Run, compute: Callable[[], None], *read: str) -> bool:
    """Compute a run unless it is finished; several ranks do it together, if they can.

    The first rank looks what there is, holds the lock, and writes.

    Args:
        settings: Of the run.
        run: The run.
        compute: Computes it; called by all ranks that take part.
        read: As for ``Run.complete``.

    Returns:
        Whether it was computed now.
    """
    group = ranks.current()
    if group.size == 1:
        return run.complete(compute, *read)
    shared = settings.pipeline in _SHARED

    def together() -> None:
        group.from_first(lambda: shared)  # the others begin
        if shared:
            compute()
        else:
            log.info("pipeline=%s: one process computes.", settings.pipeline)
            ranks.on_first(compute)

    if not group.first:
        if group.from_first(bool):
            compute()
        return group.from_first(bool)
    computed = run.complete(together, *read)
    if not computed:
        group.from_first(lambda: False)
    return group.from_first(lambda: computed)


def compute(settings: Settings, run: Run) -> None:
    """Compute a run."""
    # Imported here: a finished run is skipped without waiting for torch.
    import torch

    from mining.pipelines.problem import Problem

    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    with _styled(settings):
        _module(settings).run(Problem(settings.as_read(), run))


def redraw(settings: Settings, run: Run) -> None:
    """Draw the pictures of a finished run again."""
    from mining.pipelines.problem import Problem

    with _styled(settings):
        _module(settings).draw(Problem(settings.as_read(), run))


def _styled(settings: Settings) -> AbstractContextManager[None]:
    """Draw in the style of the settings, if they have one."""
    style = settings.picture.style
    if style is None:
        return nullcontext()
    from mining.plotting.styles import in_style

    return in_style(style)


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

    complete(settings, run, make, *read)
    return run


def _module(settings: Settings) -> ModuleType:
    return import_module(f"mining.pipelines.{settings.pipeline}")
