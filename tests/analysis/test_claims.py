"""How claims are judged from the records of runs."""

import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis import claims
from analysis.findings import Claim, Finding, verdict
from analysis.xu2024.claims_curvature import second_order, surfaces
from analysis.xu2024.claims_curves import labelled
from analysis.xu2024.claims_mined import mined_basins, mined_peaks
from mining import InputError
from mining.evaluation.curves import Curve
from mining.evaluation.storage import save_curves

CONF = Path(__file__).parents[2] / "conf"


def run_of(network, epoch=10, config=(), **metrics):
    """A finished run, as far as the claims look at it."""
    config = {"train": {"epochs": 200}, "epoch": epoch, "model": {}, **dict(config)}
    return {
        "model": network.split("-")[0],
        "data": network.split("-")[1],
        "seed": 0,
        "config": config,
        "metrics": metrics,
        "pipeline": "curve",
    }


def holds(claim, *runs):
    return [finding.holds for finding in claim(lambda _: pd.DataFrame(list(runs)))]


def test_claims_judge_labels():
    sides = partial(labelled, "fig04", "v-sides", "v-side")
    good = run_of("mlp-digits", labels=["v-side"])
    assert holds(sides, good, good) == ["yes"]
    assert holds(sides, good, run_of("mlp-digits", labels=["v-basin"])) == ["1 of 2"]
    other = run_of("cnn-digits", labels=["v-basin"])
    assert holds(sides, good, other) == ["yes", "no"]  # each network by itself


@pytest.mark.parametrize(
    ("network", "labels", "expected"),
    [
        ("mlp-digits", ["w-basin", "v-basin"], "yes"),
        ("mlp-digits", ["w-basin", "vvv-basin"], "no"),
        ("cifar_resnet8-digits", ["w-basin", "vvv-basin"], "yes"),
        ("cifar_resnet8-digits", ["w-basin", "v-basin"], "no"),
    ],
)
def test_claims_judge_vvv_basins(network, labels, expected):
    target = {"_target_": "", "alpha": 0.0, "gamma": 0.1}
    direction = {"direction": target}
    runs = [run_of(network, config=direction, labels=[label]) for label in labels]
    assert holds(mined_basins, *runs) == [expected]


def test_claims_judge_surfaces(tmp_path):
    named = {"sources": ["P.E.1", "N.E.1"], "indices": [0, 0], "metadata": [{}, {}]}
    torch.save({"vectors": torch.eye(2), **named}, tmp_path / "directions.pt")
    ends = {"x_direction": {"which": "largest"}, "y_direction": {"which": "smallest"}}
    runs = [
        run_of("mlp-digits", epoch, ends, critical_point=kind) | {"directory": tmp_path}
        for epoch, kind in ((10, "saddle"), (200, "minimum"))
    ]
    assert holds(surfaces, runs[0]) == ["not measured", "not measured", "yes"]
    assert holds(surfaces, *runs) == ["not measured", "not measured", "1 of 2"]


def test_claims_judge_second_order_models_between_the_ends():
    config = {"direction": {"away": False}}
    good = run_of("mlp-digits", config=config, relative_errors=[0.5, 0.01, 0.02, None])
    assert holds(second_order, good) == ["yes"]
    bad = run_of("mlp-digits", config=config, relative_errors=[0.01, 0.2, 0.02, None])
    assert holds(second_order, good, bad) == ["1 of 2"]


def test_mining_that_diverged_is_no_evidence(tmp_path):
    def mined(epoch, label, lowest, **metadata):
        alphas = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        loss = torch.tensor([lowest, 1.0, lowest], dtype=torch.float64)
        directory = tmp_path / f"{label} {epoch}"
        save_curves(directory / "curves.npz", [Curve(alphas, loss)])
        direction = {"_target_": "mining.directions.Xu2024WPeak", "descent": {"lr": 0.1}}
        config = {"direction": direction}
        run = run_of("mlp-digits", epoch, config, labels=[label], metadata=[metadata])
        return run | {"directory": directory}

    peaks, none = mined(10, "w-peak", 0.5), mined(200, "v-basin", 2.0)
    assert holds(mined_peaks, peaks, none) == ["yes"]
    assert holds(mined_peaks, mined(10, "v-basin", 2.0), none) == ["1 of 2"]
    ended = mined(200, "v-basin", 2.0, diverged_epoch=7)
    assert holds(mined_peaks, ended) == ["not measured"]
    (finding,) = mined_peaks(lambda _: pd.DataFrame([peaks, ended]))
    assert finding.measured == "E=10: w-peak, falls by 0.5; E=200: mining diverged in its epoch 7"


def test_no_case_is_no_verdict():
    assert verdict([]) == "not measured"
    assert verdict([True, True]) == "yes"
    assert verdict([True, False]) == "1 of 2"
    assert verdict([False]) == "no"


def test_claims_name_experiments_that_there_are():
    for claim in claims.CLAIMS:
        for figure in claim.figures:
            assert (CONF / f"experiment/{claim.paper}/{figure}.yaml").exists()


@pytest.fixture
def of_two_papers(monkeypatch):
    """A table of one claim of each of two papers."""

    def found(name):
        return lambda runs: [Finding(f"sky is {name}", "mlp-digits", "1", verdict([True]))]

    both = [Claim(name, 1, f"Skies are {name}.", ("fig01",), (found(name),)) for name in "ab"]
    monkeypatch.setattr(claims, "CLAIMS", tuple(both))


@pytest.mark.parametrize(
    ("arguments", "papers"),
    [
        ([], ["a", "b"]),
        (["b"], ["b"]),
        (["size=smoke", "seed=1"], ["a", "b"]),
        (["a", "s=1"], ["a"]),
    ],
)
def test_the_table_is_of_all_papers_or_of_one(
    arguments, papers, of_two_papers, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "claims.csv"
    monkeypatch.setattr(sys, "argv", ["claims", *arguments, "--csv", str(path)])
    claims.main()
    assert pd.read_csv(path).to_dict("list") == {
        "paper": papers,
        "number": [1] * len(papers),
        "claim": [f"sky is {paper}" for paper in papers],
        "network": ["mlp-digits"] * len(papers),
        "measured": [1] * len(papers),
        "holds": ["yes"] * len(papers),
    }
    printed = capsys.readouterr().out
    assert [
        paper for paper in "ab" if f"{paper} 1. Skies are {paper}. (fig01)" in printed
    ] == papers


def test_a_paper_without_claims_is_refused(of_two_papers, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["claims", "c"])
    with pytest.raises(InputError, match=r"No claim of 'c' is checked, only of a, b\."):
        claims.main()
