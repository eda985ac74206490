"""Figures and tables of Gabdullin (2024) at their smallest, and the scripts that draw them."""

import sys
from pathlib import Path
from runpy import run_module

import numpy as np
import pandas as pd
import pytest

from analysis.gabdullin2024 import explosions
from analysis.gabdullin2024.figures import FIGURES
from analysis.gabdullin2024.spectra import told
from analysis.records import departures
from mining.app.command_line import main
from mining.app.experiments import plan

EXPERIMENTS = Path(__file__).parents[2] / "conf/experiment/gabdullin2024"


#: What the tests leave out of experiments of many runs, which take long to compose.
FEWER = {
    "table1": ["view=uniform_axes", "normalization=filter", "batchnorm=frozen"],
    **{f"fig{name}": ["epoch=0"] for name in (10, 11, 12, 13, "B1", "B2", "B3", "B4")},
}


def draw(figure, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [figure, *map(str, arguments)])
    run_module(f"analysis.gabdullin2024.{figure}", run_name="__main__")


def test_every_experiment_has_a_row_in_the_table():
    assert sorted(FIGURES) == sorted(path.stem for path in EXPERIMENTS.iterdir())


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_says_what_it_shows_and_how_to_make_it(figure, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        draw(figure, monkeypatch, "--help")
    told = " ".join(capsys.readouterr().out.split())
    command = f"python -m mining experiment=gabdullin2024/{figure}"
    assert FIGURES[figure][0] in told
    assert command in told
    about = (EXPERIMENTS / f"{figure}.yaml").read_text()
    assert f"{command} && python -m analysis.gabdullin2024.{figure}\n" in about


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_runs_of_three_sizes(figure):
    runs = [
        {
            str(run.directory)
            for run in plan(
                [f"experiment=gabdullin2024/{figure}", f"size={size}", *FEWER.get(figure, [])]
            )
        }
        for size in ("smoke", "cpu", "paper")
    ]
    assert all(runs)
    assert not runs[0] & runs[1]
    assert not runs[1] & runs[2]


def make_and_draw(figure, arguments, monkeypatch, folder):
    """Run an experiment and its script; return the numbers that it writes."""
    monkeypatch.chdir(folder)
    command = ["mining", f"experiment=gabdullin2024/{figure}", *arguments, "progress=false"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    draw(figure, monkeypatch, *arguments, "--picture", folder / "a.png")
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    return pd.read_csv(folder / "a.csv")


SMALL = ("size=smoke", "train.epochs=2", "train.checkpoints=[0]", "num_examples=60")
SMALL += ("num_threads=1",)


def test_table_1_says_what_explodes_and_where(tmp_path, monkeypatch, capsys):
    swept = ("view=uniform_axes", "normalization=none,filter_l1", "batchnorm=frozen,recalibrate")
    rows = make_and_draw("table1", (*SMALL, *swept), monkeypatch, tmp_path)
    assert len(rows) == 2 * 2 * 2  # modes, normalizations, ranges
    assert set(rows["normalization"]) == {"none", "filter L1"}
    assert set(rows["mode"]) == {"frozen", "recalibrate"}
    exploded = rows["largest_loss"] > 10 * rows["chance_loss"]
    assert (rows["exploded"] == (exploded | (rows["nonfinite"] > 0))).all()
    assert (rows["start"].notna() == rows["exploded"]).all()
    assert rows[rows["mode"] == "frozen"]["exploded"].sum() > 0
    recalibrated = rows[rows["mode"] == "recalibrate"]
    assert not recalibrated[recalibrated["reach"] < 1]["exploded"].any()
    printed = capsys.readouterr().out
    assert "filter L1" in printed
    assert "recalibrate" in printed


def test_several_seeds_of_table_1_are_counted_and_have_their_spread():
    seeds = [(True, 0.25, "conv"), (False, np.nan, None), (True, 0.5, "conv")]
    rows = [
        {
            "network": "net", "mode": mode, "axes": "random", "normalization": "none", "reach": 0.5,
            "seed": seed, "exploded": exploded, "start": start, "module": module,
            "largest_loss": 100.0 if exploded else 1.0, "chance_loss": 1.0, "nonfinite": 0,
        }
        for mode, found in (("frozen", seeds), ("batch", seeds[1:2]))
        for seed, (exploded, start, module) in enumerate(found)
    ]  # fmt: skip
    several, one = explosions.cells(pd.DataFrame(rows)).itertuples()
    assert (several.seeds, several.exploded, several.module) == (3, 2, "conv")
    assert several.log_ratio == pytest.approx(2)  # the median of 100, 1 and 100 times log C
    assert explosions.describe(several) == "2 of 3: from 0.25 to 0.5"
    assert explosions.describe(one) == "no"


@pytest.mark.parametrize(("figure", "points"), [("fig02", 9), ("fig04", 18)])
def test_surfaces_are_drawn_with_their_numbers(figure, points, tmp_path, monkeypatch):
    swept = ("view=uniform_axes", "batchnorm=frozen") if figure == "fig02" else ()
    rows = make_and_draw(figure, (*SMALL, *swept, "grid.num=3"), monkeypatch, tmp_path)
    assert len(rows) == points
    assert rows["loss"].notna().all()


def test_runs_that_differ_in_the_order_of_a_norm_are_told_apart():
    (one, two) = (plan([f"normalization={name}"])[0].config for name in ("filter", "filter_l1"))
    assert departures(one) == ["norm: filter"]
    assert departures(two) == ["norm: filter L1"]
    assert "not moved: fc" in departures(plan(["freeze=fc"])[0].config)


def test_spectra_are_drawn_with_their_criteria(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["size=smoke", "train.epochs=2", "train.checkpoints=[0,2]"]
    command = ["mining", "experiment=gabdullin2024/fig08", *arguments, "num_threads=1"]
    monkeypatch.setattr(sys, "argv", [*command, "progress=false"])
    main()
    capsys.readouterr()
    draw("fig08", monkeypatch, *arguments, "--picture", tmp_path / "a.png")
    printed = capsys.readouterr()
    assert "runs are missing" not in printed.err
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    written = pd.read_csv(tmp_path / "a.csv")
    runs = {str(run.directory) for run in plan(["experiment=gabdullin2024/fig08", *arguments])}
    assert len(written) == 500 * len(runs)
    modes = set(written.network.str.rsplit(", ", n=1).str[1])
    assert modes == {"train mode", "eval mode"}
    assert written.k_h05.notna().all()


def test_values_that_do_not_apply_are_in_brackets():
    record = {"value": 0.5, "error": 0.02, "applies": True, "why": ""}
    assert told(record) == "0.5 ± 0.02"
    assert told(record | {"applies": False, "why": "because"}) == "(0.5 ± 0.02)"
    assert told(record | {"value": None, "why": "because"}) == "none: because"
