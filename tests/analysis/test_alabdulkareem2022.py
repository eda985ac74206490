"""Figures and table of Alabdulkareem (2022) at their smallest, and their scripts."""

import sys
from pathlib import Path
from runpy import run_module

import pandas as pd
import pytest

from analysis import archive, claims
from analysis.alabdulkareem2022.figures import FIGURES
from analysis.alabdulkareem2022.series import epochs_of
from analysis.records import experiment_runs
from mining.app.command_line import main
from mining.app.experiments import plan

pytest.importorskip("statsmodels")
pytest.importorskip("ruptures")

EXPERIMENTS = Path(__file__).parents[2] / "conf/experiment/alabdulkareem2022"
#: A training of either rate.
SMALL = ("size=smoke", "seed=0", "train.batch_size=32", "train.epochs=4")
SMALL += ("num_threads=1", "progress=false")


def call(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
    run_module(module, run_name="__main__")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the runs of the sweep."""
    folder = tmp_path_factory.mktemp("alabdulkareem2022")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["mining", "experiment=alabdulkareem2022/sweep", *SMALL])
        main()
    return folder


def test_every_experiment_has_a_row_in_the_table():
    assert sorted([*FIGURES, "sweep"]) == sorted(path.stem for path in EXPERIMENTS.iterdir())


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_says_what_it_shows_and_how_to_make_it(figure, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(f"analysis.alabdulkareem2022.{figure}", monkeypatch, "--help")
    told = " ".join(capsys.readouterr().out.split())
    command = f"python -m mining experiment=alabdulkareem2022/{figure}"
    assert FIGURES[figure][0] in told
    assert command in told
    about = (EXPERIMENTS / f"{figure}.yaml").read_text()
    assert f"{command} && python -m analysis.alabdulkareem2022.{figure}\n" in about


def test_the_sweep_has_sixty_trainings_and_every_figure_draws_them():
    few = ["size=cpu", "seed=0,1"]
    sweep = {run.directory for run in plan(["experiment=alabdulkareem2022/sweep", *few])}
    assert len(sweep) == 60 * 2 // 5
    for figure in ("fig01", "table1"):
        runs = plan([f"experiment=alabdulkareem2022/{figure}", *few])
        assert {run.directory for run in runs} == sweep
    seeds = {run.settings.seed for run in plan(
        ["experiment=alabdulkareem2022/sweep", "size=cpu", "train.weight_decay=0.0",
         "train.batch_size=32"]
    )}  # fmt: skip
    assert seeds == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("figure", ["fig01", "fig02", "fig04", "fig05", "fig06", "table1"])
def test_every_figure_is_drawn(figure, work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    picture = work / f"{figure}.png"
    call(f"analysis.alabdulkareem2022.{figure}", monkeypatch, *SMALL, "--picture", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    written = pd.read_csv(picture.with_suffix(".csv"))
    assert len(written)
    if figure == "table1":
        assert set(written["N"]) == {6}  # two trainings of four epochs
        assert set(written["trainings"]) == {2}


def test_missing_runs_name_the_command_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = "python -m mining experiment=alabdulkareem2022/sweep size=smoke seed=9"
    with pytest.raises(SystemExit, match=f"Make them: {command}"):
        call("analysis.alabdulkareem2022.fig06", monkeypatch, "size=smoke", "seed=9")


def test_fig03_has_the_ratio_beside_the_values(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    small = ("size=smoke", "num_threads=1", "progress=false", "power.starts=3")
    monkeypatch.setattr(sys, "argv", ["mining", "experiment=alabdulkareem2022/fig03", *small])
    main()
    picture = work / "fig03.png"
    call("analysis.alabdulkareem2022.fig03", monkeypatch, *small, "--picture", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "|λ₂/λ₁|" in capsys.readouterr().out
    assert len(pd.read_csv(picture.with_suffix(".csv"))) == 2 * 3 * 10


def test_kept_records_tell_what_the_runs_tell(work, tmp_path, monkeypatch):
    monkeypatch.chdir(work)
    monkeypatch.setattr(archive, "_FOLDER", tmp_path)
    runs = experiment_runs("alabdulkareem2022/sweep", SMALL)
    records = [archive.record_of(run) for run in runs.itertuples()]
    archive.keep("alabdulkareem2022/sweep", records)
    kept = epochs_of(archive.read_archive("alabdulkareem2022/sweep"))
    assert len(kept) == 8
    table = pd.read_csv(Path(runs.directory.iloc[0]) / "curvature.csv")
    held_out = pd.read_csv(Path(runs.directory.iloc[0]) / "held_out.csv")
    own = epochs_of(records)[:4]
    assert own.lambda_max.tolist() == pytest.approx(table.lambda_max.tolist(), rel=1e-6)
    assert own.noisy.tolist() == pytest.approx((100 * held_out.noisy_accuracy).tolist(), rel=1e-6)


def test_the_conjectures_are_judged(work, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(work)
    path = tmp_path / "claims.csv"
    monkeypatch.setattr(sys, "argv", ["claims", "alabdulkareem2022", *SMALL, "--csv", str(path)])
    claims.main()
    written = pd.read_csv(path)
    assert {"1a", "2a", "2b", "3a"} <= set(written.criterion)
    assert set(written.verdict) == {"not decided"}  # of a single seed
