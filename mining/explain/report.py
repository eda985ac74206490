"""An assessment as a page of text, and as a report in Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from mining.explain.assess import Assessment
from mining.explain.meanings import MEANINGS, split_name
from mining.explain.measurement import Measurement
from mining.explain.quantity import Difference


@dataclass(frozen=True)
class Reference:
    """The measurements of a known network, beside which others are printed."""

    name: str  # in a few words
    command: str  # with which it was measured
    values: Mapping[str, float]


def references() -> list[Reference]:
    """Read the reference values that ship with the package."""
    text = files("mining.explain").joinpath("reference_values.json").read_text(encoding="utf-8")
    return [Reference(**entry) for entry in json.loads(text)]


def number(value: float | None) -> str:
    """Format a number with three digits."""
    return "-" if value is None else f"{value:.3g}"


def describe(found: Measurement) -> str:
    """Format a measurement as ``value ± error``, in parentheses if it does not apply."""
    if found.value is None:
        return "-"
    text = number(found.value)
    if found.error is not None:
        text += f" ± {found.error:.2g}"
    return text if found.applies else f"({text})"


def page(assessment: Assessment, known: Sequence[Reference] = ()) -> str:
    """Format an assessment as one page of plain text.

    Args:
        assessment: What was measured.
        known: Networks whose values stand beside it.
    """
    counts = ", ".join(f"{n} {name}" for name, n in assessment.num_examples.items() if n)
    rows = [("", "value ± standard error", *(reference.name for reference in known))]
    notes: list[str] = []
    for name, title in _lines(assessment):
        found = assessment[name]
        mark = ""
        if found.why:
            notes.append(found.why)
            mark = f" [{len(notes)}]"
        beside = (number(reference.values.get(name)) for reference in known)
        rows.append((title, describe(found) + mark, *beside))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines = [f"Assessment: {counts} examples", "", *table, ""]
    if assessment.labels:
        lines += [f"Gaussian curves: {', '.join(assessment.labels)}", ""]
    lines += [f"{finding.name}: {finding.text}" for finding in assessment.findings]
    lines += [f"[{index}] {note}" for index, note in enumerate(notes, 1)]
    return "\n".join(lines) + "\n"


def markdown(assessment: Assessment, title: str, picture: str, known: Sequence[Reference]) -> str:
    """Format an assessment as a report in Markdown.

    Args:
        assessment: What was measured.
        title: The heading.
        picture: The file name of the picture.
        known: Networks whose values stand beside it.
    """
    lines = [f"# {title}", ""]
    lines += [f"**{finding.name}**: {finding.text}\n" for finding in assessment.findings]
    lines += [f"![Spectrum, curves and intervals]({picture})", ""]
    columns = ["quantity", "value ± standard error", *(reference.name for reference in known)]
    lines += [_row([*columns, "what it means", "what it does not mean"])]
    lines += [_row(["---"] * (len(columns) + 2))]
    for name, line in _lines(assessment):
        found, meaning = assessment[name], MEANINGS[split_name(name)[0]]
        says = meaning.says + (f" *{found.why}*" if found.why else "")
        beside = (number(reference.values.get(name)) for reference in known)
        lines.append(_row([line, describe(found), *beside, says, meaning.does_not_say]))
    lines += ["", "Numbers in parentheses do not apply, for the reason given beside them.", ""]
    counts = (f"{n} {name}" for name, n in assessment.num_examples.items() if n)
    lines += [f"Examples: {', '.join(counts)}.", ""]
    if assessment.labels:
        lines += [f"Labels of the Gaussian curves: {', '.join(assessment.labels)}.", ""]
    if known:
        lines += ["Reference values were measured by", ""]
        lines += [f"- {reference.name}: `{reference.command}`" for reference in known]
    return "\n".join(lines).rstrip() + "\n"


def compare_page(first: Assessment, second: Assessment, found: Mapping[str, Difference]) -> str:
    """Format two assessments beside their paired differences, as plain text."""
    rows = [("", "first", "second", "second - first, 95 % interval", "")]
    for name, title in _lines(first):
        if name not in found:
            continue
        change = found[name]
        text = number(change.value)
        if change.interval is not None:
            text += f"  [{number(change.interval[0])}, {number(change.interval[1])}]"
        verdict = "beyond noise" if change.is_clear else ""
        rows.append((title, describe(first[name]), describe(second[name]), text, verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in rows
    )


def _lines(assessment: Assessment) -> list[tuple[str, str]]:
    """List names and titles of the quantities, in the order of their meanings."""
    order = {name: index for index, name in enumerate(MEANINGS)}
    found = []
    for position, name in enumerate(assessment.quantities):
        meaning, examples = split_name(name)
        if meaning in order:
            title = MEANINGS[meaning].title + (f", {examples}" if examples else "")
            found.append((order[meaning], position, name, title))
    return [(name, title) for _, _, name, title in sorted(found)]


def _row(cells: Sequence[Any]) -> str:
    # A bar within a cell would end it.
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
