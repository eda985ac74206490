"""Figures and tables of Sankar et al. (2021) at their smallest, their scripts, and the claims."""

import sys
from pathlib import Path
from runpy import run_module

import pandas as pd
import pytest
from scipy.stats import t as student

from analysis import claims
from analysis.archive import Record
from analysis.findings import find
from analysis.sankar2021 import methods
from analysis.sankar2021.claims import CLAIMS, middle_against_others, share_with_outliers
from analysis.sankar2021.errors import difference
from analysis.sankar2021.evolution import (
    change,
    last_trace,
    middle_nearer,
    share_of_falling_layers,
    without,
)
from analysis.sankar2021.figures import FIGURES
from analysis.sankar2021.kinds import kind_of
from mining.app.command_line import main
from mining.app.experiments import plan
from mining.functional.parameters import ParameterSpace
from mining.models import ViT

EXPERIMENTS = Path(__file__).parents[2] / "conf/experiment/sankar2021"
SKIPS = "skip_connections"
SMALL = ("size=smoke", "num_threads=1", "progress=false")
#: The experiments that others draw from.
BASES = ["class_means", "evolution", "layers", "training", "tuned_sam", "tuned_trace"]
#: Experiments that are run for the test: of some figures those of another.
RUNS = (
    *("layers", "evolution", "class_means", "fig07", "fig10", "transformer"),
    *("table1", "table2", "table3", "fig08", "fig14"),
)


def call(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
    run_module(module, run_name="__main__")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the runs of all figures; all of layers are those of one experiment."""
    folder = tmp_path_factory.mktemp("sankar2021")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in RUNS:
            patch.setattr(sys, "argv", ["mining", f"experiment=sankar2021/{name}", *SMALL])
            main()
    return folder


def test_every_experiment_has_a_row_in_the_table():
    assert sorted([*FIGURES, *BASES]) == sorted(path.stem for path in EXPERIMENTS.iterdir())


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_says_what_it_shows_and_how_to_make_it(figure, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(f"analysis.sankar2021.{figure}", monkeypatch, "--help")
    told = " ".join(capsys.readouterr().out.split())
    command = f"python -m mining experiment=sankar2021/{figure}"
    assert FIGURES[figure][0] in told
    assert command in told
    about = (EXPERIMENTS / f"{figure}.yaml").read_text()
    assert f"{command} && python -m analysis.sankar2021.{figure}\n" in about


def test_sweeps_have_the_treatments_that_they_compare():
    def regularizers(name):
        runs = plan([f"experiment=sankar2021/{name}", "size=cpu", "seed=0", "data=mnist"])
        return [run.settings.regularizer.options for run in runs]

    assert [options["gamma"] for options in regularizers("table1")] == [0, 0.01]
    assert {(o["every"], o["layers"]) for o in regularizers("table3")} == {(50, "all")}
    assert [options["layers"] for options in regularizers("table2")] == ["all", "middle"]
    assert [options["every"] for options in regularizers("fig08")] == [10, 25, 50, 100, 200]
    assert len(regularizers("fig14")) == 6
    assert [options["gamma"] for options in regularizers("fig07")] == [0, 0.01]
    assert len(plan(["experiment=sankar2021/layers", "size=cpu"])) == 15
    evolution = plan(["experiment=sankar2021/evolution", "size=cpu", "seed=0"])
    left_out = [
        (run.settings.model.options.get("batch_norm"), run.settings.model.options.get(SKIPS))
        for run in evolution
    ]
    assert left_out == [
        (None, None),
        (True, None),
        (False, None),
        (None, True),
        (None, False),
        (None, None),
    ]
    recipes = [run.settings.train.options for run in evolution]
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize("figure", sorted(set(FIGURES) - {"tuned"}))
def test_every_figure_is_drawn(figure, work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    picture = work / f"{figure}.png"
    call(f"analysis.sankar2021.{figure}", monkeypatch, *SMALL, "--picture", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(picture.with_suffix(".csv")))


def test_the_claims_are_judged(work, tmp_path, monkeypatch):
    monkeypatch.chdir(work)
    path = tmp_path / "claims.csv"
    monkeypatch.setattr(sys, "argv", ["claims", "sankar2021", *SMALL, "--csv", str(path)])
    claims.main()
    written = pd.read_csv(path)
    told = {"1a", "1b", "2a", "2b", "3a", "3b", "3c", "4a", "5a", "5b", "6c", "7a", "7b"}
    assert told <= set(written.criterion)  # a trace after a single step may be negative
    assert "6a" not in set(written.criterion)  # the images are too small for a VGG
    assert set(written.verdict) == {"not decided"}  # of two seeds


def record(pipeline="layers", config=None, **metrics):
    return Record(
        f"{pipeline}/lenet-mnist/0",
        {"seed": 0, "model": {}, **(config or {})},
        metrics,
        {},
        1.0,
        "cpu",
    )


def layer(place, distance, outliers, size=100):
    return {
        "operator": "hessian", "layer": str(place), "place": place, "size": size,
        "normalized_wasserstein": distance, "outliers": outliers,
    }  # fmt: skip


def test_quantities_by_hand():
    rows = [layer(0.125, 1.0, 3), layer(0.375, 0.1, 2), layer(0.625, 0.01, 4), layer(0.875, 10, 1)]
    rows += [layer(0.875, 10.0, None), {**layer(None, 0.0, 3), "layer": "(whole)"}]
    given = [record(num_classes=3, layers=[*rows, layer(0.875, 10.0, 3, size=8)])]
    assert share_with_outliers(given, "hessian") == pytest.approx(2 / 5)
    assert share_with_outliers(given, "gauss_newton") is None
    # Middle: -1 and -2. Others: 0, 1, 1 and 1.
    assert middle_against_others(given, "normalized_wasserstein") == pytest.approx(-1.5 - 0.75)


def test_differences_of_treatments_by_hand():
    def training(accuracy, **regularizer):
        config = {"train": {"weight_decay": 0.0}, "regularizer": regularizer or None}
        return record("train", config, test_accuracy=accuracy, train_accuracy=1.0)

    runs = [
        training(0.90),
        training(0.92, gamma=0.01, every=50, layers="all"),
        training(0.93, gamma=0.01, every=50, layers="middle"),
    ]
    assert difference(runs, "all layers", "none") == pytest.approx(-2)
    assert difference(runs, "middle layers", "all layers") == pytest.approx(-1)
    assert difference(runs[:1], "all layers", "none") is None


def evolution(seed=0, traces=(10.0, 1.0), largest=(8.0, 4.0), **model):
    arrays = {
        "curvature.epoch": [1, 2], "curvature.trace": traces, "curvature.lambda_max": largest,
        "curvature_layers.epoch": [1, 1, 1, 1, 2, 2, 2, 2],
        "curvature_layers.place": [0.125, 0.375, 0.625, 0.875] * 2,
        "curvature_layers.lambda_max": [8.0, 0.8, 8.0, 0.08, 0.04, 0.4, 4.0, 0.4],
    }  # fmt: skip
    return Record("train/vgg11-cifar10/0", {"seed": seed, "model": model}, {}, arrays, 1.0, "cpu")


def test_quantities_of_the_evolution_by_hand():
    given = [evolution()]
    assert change(given, "trace") == pytest.approx(-1)
    assert change([evolution(traces=(1.0, -1.0))], "trace") is None
    assert share_of_falling_layers(given) == pytest.approx(3 / 4)
    # Distances of the middle: 1, 0, 1, 0; of the others: 0, 2, 2, 1.
    assert middle_nearer(given) == pytest.approx(0.5 - 1.25)


def test_pairs_are_compared_within_an_architecture():
    plain = {"batch_norm": False}
    pair = [evolution(batch_norm=True), evolution(traces=(10.0, 100.0), **plain)]
    treated = {"ours": "complete", "other": "no batch norm", "treatment": without}
    assert last_trace(pair, **treated) == pytest.approx(-2)
    assert last_trace(pair[:1], **treated) is None
    (criterion,) = (c for claim in CLAIMS for c in claim.criteria if c.name == "6a")
    (finding,) = find(criterion, pair)
    assert (finding.network, finding.values) == ("vgg11-cifar10", {0: pytest.approx(-2)})
    (largest,) = (c for claim in CLAIMS for c in claim.criteria if c.name == "4a")
    assert [f.network for f in find(largest, pair)] == [
        "vgg11-cifar10", "vgg11-cifar10, no batch norm",
    ]  # fmt: skip


def test_methods_are_chosen_by_validation_and_compared_in_pairs(tmp_path, monkeypatch):
    def training(seed, validation, test, decay=0.0, **regularizer):
        accuracies = {"validation": [0.5, validation], "test": [0.5, test], "noisy": [0.5, 0.5]}
        arrays = {f"held_out.{split}_accuracy": found for split, found in accuracies.items()}
        config = {"train": {"weight_decay": decay}, "regularizer": regularizer or None}
        return Record(
            "train/lenet-mnist/0", {"seed": seed, "model": {}, **config}, {}, arrays, 1.0, "cpu"
        )

    sam = (0.91, 0.94, 0.93)
    given = {
        "sankar2021/tuned": [
            *(training(seed, 0.9, 0.90 + 0.01 * seed) for seed in range(3)),
            *(training(seed, 0.95, 0.92 + 0.01 * seed, decay=0.01) for seed in range(3)),
            *(training(seed, 0.85, 0.99, decay=0.1) for seed in range(3)),
        ],
        "sankar2021/tuned_sam": [training(seed, 0.9, sam[seed], rho=0.1) for seed in range(3)],
        "sankar2021/tuned_trace": [training(seed, 0.9, 0.8, gamma=0.1) for seed in range(2)],
    }
    monkeypatch.setattr(methods, "kept_or_finished", lambda name, overrides: given[name])
    rows = methods.rows_of([record for found in given.values() for record in found])
    found = methods.compare(methods.choose(rows)).set_index("method")
    assert found.loc["weight decay", "strength"] == 0.01  # not the better one on the test images
    assert found.loc["weight decay", "difference"] == pytest.approx(-2)
    assert found.loc["SAM", "difference"] == pytest.approx(-(1 + 3 + 1) / 3)
    differences = pd.Series([-1.0, -3.0, -1.0])
    t = differences.mean() / (differences.std() / 3**0.5)
    assert found.loc["SAM", "p"] == pytest.approx(2 * student.sf(abs(t), 2))
    assert dict(found.n) == {"nothing": 3, "weight decay": 3, "SAM": 3, "trace penalty": 2}
    monkeypatch.chdir(tmp_path)
    call("analysis.sankar2021.tuned", monkeypatch, "--picture", tmp_path / "tuned.png")
    assert len(pd.read_csv(tmp_path / "tuned.csv")) == 14


def test_methods_are_tuned_as_often():
    found = []
    for name in ("tuned", "tuned_sam", "tuned_trace"):
        runs = plan([f"experiment=sankar2021/{name}", "size=cpu", "seed=0", "data=mnist"])
        found += [methods.method_of(Record("", run.config, {}, {}, 1.0, "")) for run in runs]
    counts = pd.Series([method for method, _ in found]).value_counts()
    assert dict(counts) == {"weight decay": 4, "SAM": 4, "trace penalty": 4, "nothing": 1}


def test_every_layer_of_a_transformer_has_a_kind():
    names = ParameterSpace.of(ViT((1, 8, 8), 10, patch=2, width=8, depth=1, heads=2)).layers
    kinds = pd.Series([kind_of(name) for name in names]).value_counts()
    assert dict(kinds) == {
        "norm": 3, "query and key": 2, "value and out": 2, "MLP": 2, "embedding": 2, "head": 1,
    }  # fmt: skip
