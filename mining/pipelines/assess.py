"""Assess the network of a checkpoint, or two of them side by side."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mining.curvature import SpectralDensity
from mining.evaluation.storage import load_curves, save_curves
from mining.explain.assess import Assessment, assess, compare
from mining.explain.assessment_settings import AssessmentSettings
from mining.explain.meanings import MEANINGS, split_name
from mining.explain.report import compare_page, markdown, page, references
from mining.pipelines import PAGE
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.settings import Settings
from mining.pipelines.titles import describe_point
from mining.plotting import draw_curves, draw_density, draw_intervals, explain
from mining.storage.files import read_arrays, save_arrays, write_atomically
from mining.storage.records import load_record, save_record
from mining.training import TrainingSettings

log = logging.getLogger(__name__)

#: Training images on which batch-norm statistics are estimated, unless batchnorm.num_examples
#: says otherwise: they are estimated again at some 150 points.
_RECALIBRATION = 1000
#: What the last panel of the picture shows.
_SHARES = ("accuracy", "calibration_error")


def run(problem: Problem) -> None:
    """Assess each checkpoint; write numbers, picture, report and page."""
    directory = problem.run.directory
    problems = [_with_defaults(each) for each in _one_by_one(_at_home(problem))]
    shifted = _shifted(problem)
    options = problem.settings.assess.make(AssessmentSettings)
    found = []
    for number, each in enumerate(problems):
        others = [other.checkpoints.theta() for other in problems if other is not each]
        result = assess(
            each.landscape,
            test=each.test,
            shifted=shifted,
            other=str(others[0]) if others else None,
            learning_rate=_learning_rate(each.settings),
            settings=options,
            seed=each.settings.seed,
            progress=each.settings.progress,
        )
        _save(directory, number, result)
        found.append(result)
    draw(problem)
    known = references()
    picture = f"assessment.{problem.settings.picture.format}"
    title = f"{directory.parent.name}, {describe_point(problems[0].settings)}"
    report = markdown(found[0], title, picture, known)
    pages = page(found[0], known)
    more: dict[str, Any] = {}
    if len(found) == 2:
        changes = compare(found[0], found[1])
        second = f"Second checkpoint, {problems[1].settings.checkpoint}"
        table = compare_page(found[0], found[1], changes)
        report += f"\n{markdown(found[1], second, picture, known)}\n## Comparison\n\n"
        report += f"```\n{table}```\n"
        pages += f"\n{second}\n{page(found[1], known)}\n{table}"
        more = {
            "second": found[1].record(),
            "differences": {name: change.record() for name, change in changes.items()},
        }
    write_atomically(directory / "report.md", report)
    write_atomically(directory / PAGE, pages)
    problem.run.finish(
        {**found[0].record(), **more, **problems[0].record()},
        device=str(problems[0].landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw spectral density, curves and shares of each checkpoint, from saved arrays."""
    directory = problem.run.directory
    both = (_suffix(number) for number in range(2))
    rows = [suffix for suffix in both if (directory / f"assessment{suffix}.npz").exists()]
    figure = Figure(figsize=(15, 4.2 * len(rows)), layout="constrained")
    panels = []
    for row, suffix in enumerate(rows):
        spectrum, curves, shares = (
            figure.add_subplot(len(rows), 3, 3 * row + column) for column in (1, 2, 3)
        )
        arrays = read_arrays(directory / f"assessment{suffix}.npz")
        density, lines = directory / f"density{suffix}.npz", directory / f"curves{suffix}.npz"
        for axes, path in ((spectrum, density), (curves, lines)):
            if not path.exists():
                axes.set_axis_off()
                axes.text(0.5, 0.5, "not measured: see report.md", ha="center")
        if density.exists():
            extremes = (float(arrays["extremes"][0]), float(arrays["extremes"][1]))
            draw_density(spectrum, load_record(density, SpectralDensity), extremes)
            panels.append(spectrum)
        if lines.exists():
            options = problem.settings.picture.of_losses
            draw_curves(curves, load_curves(lines), legend=False, **options)
            curves.set_title(curves.get_title(), fontsize=8)
        draw_intervals(
            shares,
            arrays["names"].tolist(),
            arrays["values"].tolist(),
            [(low, high) for low, high in arrays["intervals"].tolist()],
        )
        panels.append(shares)
    title = f"{directory.parent.name}, {describe_point(problem.settings)}"
    figure.suptitle(title, fontsize=9)
    explain(figure, panels)
    save_picture(problem, figure, "assessment")


def _one_by_one(problem: Problem) -> list[Problem]:
    """Give a problem for each checkpoint."""
    given = problem.settings.checkpoint
    if not isinstance(given, list):
        return [problem]
    return [Problem(replace(problem.settings, checkpoint=each), problem.run) for each in given]


def _at_home(problem: Problem) -> Problem:
    """Give the problem on the images of ``data`` as they are."""
    return Problem(replace(problem.settings, data_shifted=None, shift=None), problem.run)


def _shifted(problem: Problem) -> list[tuple[Tensor, Tensor]] | None:
    """Give the images of ``data_shifted``, or the test images under ``shift``, in batches."""
    settings = problem.settings
    if settings.data_shifted is None and settings.shift is None:
        return None
    split: Literal["train", "test"] = "train" if problem.evaluated.test is None else "test"
    return problem.examples(split).batches(settings.batch_size)


def _with_defaults(problem: Problem) -> Problem:
    """Settle which splits there are, and on how many images statistics are estimated."""
    settings, data = problem.settings, problem.data
    if settings.split == "both" and (data.train is None or data.test is None):
        only: Literal["train", "test"] = "train" if data.test is None else "test"
        log.warning("%s has no other split than %s: only that is assessed.", data.name, only)
        settings = replace(settings, split=only)
    if settings.batchnorm.options.get("num_examples") is None:
        batchnorm = settings.batchnorm.with_options(num_examples=_RECALIBRATION)
        settings = replace(settings, batchnorm=batchnorm)
    return Problem(settings, problem.run)


def _learning_rate(settings: Settings) -> float | None:
    """Return that of the training, which is known unless the checkpoint is a file."""
    return None if settings.checkpoint else settings.train.make(TrainingSettings).lr


def _suffix(number: int) -> str:
    return "" if number == 0 else f"_{number + 1}"


def _save(directory: Path, number: int, found: Assessment) -> None:
    """Write what the picture shows."""
    suffix = _suffix(number)
    if found.density is not None:
        save_record(directory / f"density{suffix}.npz", found.density)
    if found.surroundings is not None:
        save_curves(directory / f"curves{suffix}.npz", found.surroundings.curves)
    shown = {
        name: quantity
        for name, quantity in found.quantities.items()
        if split_name(name)[0] in _SHARES and quantity.interval is not None
    }
    ends = [found.quantities[name].value for name in ("lambda_min", "lambda_max")]
    arrays = {
        "names": [_title(name) for name in shown] or [""],
        "values": [quantity.value for quantity in shown.values()],
        "intervals": torch.tensor([q.interval for q in shown.values()]).view(-1, 2),
        "extremes": [float("nan") if end is None else end for end in ends],
    }
    save_arrays(directory / f"assessment{suffix}.npz", arrays)


def _title(name: str) -> str:
    meaning, examples = split_name(name)
    return MEANINGS[meaning].title + (f", {examples}" if examples else "")
