"""The page and the report of an assessment."""

import re

import pytest
import torch
from cases import build, loader
from torch import nn

from mining import AssessmentSettings, Landscape, assess, compare
from mining.explain.meanings import MEANINGS, split_name
from mining.explain.report import compare_page, markdown, page, references

SMALL = AssessmentSettings(num_curves=2, curve_points=11, density_steps=5)


@pytest.fixture(scope="module")
def found():
    of = Landscape(build("batchnorm"), nn.CrossEntropyLoss(), loader())
    return assess(of, test=loader(40), settings=SMALL)


def test_reference_values_are_of_known_quantities():
    known = references()
    assert len(known) == 4
    for reference in known:
        assert reference.command.startswith("python -m mining pipeline=assess ")
        assert {split_name(name)[0] for name in reference.values} <= set(MEANINGS)
        assert reference.values["lambda_max"] > 0


def test_every_measurement_has_a_line_with_its_value(found):
    text = page(found, references())
    lines = text.splitlines()
    for name, measured in found.measurements.items():
        meaning, examples = split_name(name)
        if meaning not in MEANINGS:
            continue
        title = MEANINGS[meaning].title + (f", {examples}" if examples else "")
        (line,) = [line for line in lines if re.match(re.escape(title) + r"(  |$)", line)]
        if measured.value is not None:
            assert f"{measured.value:.3g}" in line
        if measured.why:
            assert measured.why in text
    assert len(lines) < 60


def test_the_report_says_what_numbers_mean(found):
    text = markdown(found, "A network", "picture.png", references())
    for name in found.measurements:
        meaning, _ = split_name(name)
        if meaning in MEANINGS:
            assert MEANINGS[meaning].says.replace("|", "\\|") in text
            assert MEANINGS[meaning].does_not_say in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert columns == {9}  # quantity, value, four references, two sentences


def test_a_comparison_marks_what_is_beyond_noise(found):
    other = build("batchnorm")
    with torch.no_grad():
        other.linear.weight *= 3
    of = Landscape(other, nn.CrossEntropyLoss(), loader())
    second = assess(of, test=loader(40), settings=SMALL)
    changes = compare(found, second)
    lines = compare_page(found, second, changes).splitlines()
    marked = [line for line in lines if line.endswith("beyond noise")]
    clear = [n for n, c in changes.items() if c.is_clear and split_name(n)[0] in MEANINGS]
    assert len(marked) == len(clear) > 0
