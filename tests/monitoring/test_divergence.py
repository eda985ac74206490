"""What the documentation says of the alarm is what the table of forty trainings gives."""

import re
from pathlib import Path

import pandas as pd
import pytest
from benchmarks.divergence import LEFT_SCALE, STEPS_OF, TABLE, diverged_at, judge, warnings

PAGE = Path(__file__).parent.parent.parent / "docs/monitor.md"


def test_the_page_has_the_numbers_of_the_table():
    table = pd.read_csv(TABLE).astype(STEPS_OF)
    found = judge(table)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().split("\n")
    ]
    printed = [row for row in rows if len(row) == 7 and row[0].strip("`") in set(found.predictor)]
    assert len(printed) == len(found) == 4
    for row, (_, expected) in zip(printed, found.iterrows(), strict=True):
        assert row[0].strip("`") == expected.predictor
        assert [float(row[2]), float(row[3])] == [expected.right, expected.warned]
        assert [float(row[4]), float(row[5])] == [expected.precision, expected.recall]
        assert row[6] == ("" if pd.isna(expected.median_lead) else f"{expected.median_lead:g}")
    num = re.search(r"(\d+) of (\d+) diverged", PAGE.read_text())
    assert [int(n) for n in num.groups()] == [table.diverged_at.notna().sum(), len(table)]


def test_a_training_has_diverged_where_its_loss_leaves_its_scale_or_never_falls_again():
    fell = [2.0] * 5 + [0.1] * 30
    assert diverged_at(fell) is None
    assert diverged_at([*fell, LEFT_SCALE * 2.0 + 0.1]) == 36
    assert diverged_at([*fell, float("nan")]) == 36
    # The mean of ten exceeds 1 with the fifth loss of 2: 5 · 2 + 5 · 0.1 over ten.
    assert diverged_at([*fell, *[2.0] * 20]) == 40
    assert diverged_at([2.0] * 20) == 1


def test_a_warning_needs_two_measurements_in_a_row_and_is_right_before_the_divergence():
    table = pd.DataFrame(
        {
            "epoch": [8, 16, 24, 32],
            "stability": [1.5, 0.5, 1.2, 1.1],
            "lr": 0.1,
            "critical_sharpness": [None, 30.0, 30.0, None],
            "loss": [2.0, 1.0, 2.1, 2.2],
        }
    )
    found = warnings(table)
    assert found == {"alarm": 32, "critical": 24, "loss_above_first": 32, "loss_doubled": 32}
    trainings = pd.DataFrame([{**found, "diverged_at": step} for step in (40, 32, None)])
    judged = judge(trainings.astype(STEPS_OF)).set_index("predictor").loc["alarm"]
    # It warns of three trainings, of which two diverge, one at the step of the warning.
    assert judged[["precision", "recall", "median_lead"]].tolist() == pytest.approx([0.33, 0.5, 8])
