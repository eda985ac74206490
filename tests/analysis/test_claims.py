"""How claims are judged from the records of runs."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import archive, claims
from analysis.archive import Record, keep, read_archive
from analysis.claims import CLAIMS
from analysis.findings import Claim, Criterion, find, page
from analysis.verdicts import Bound
from analysis.xu2024 import no_skip
from analysis.xu2024 import quantities as q
from mining import InputError

ROOT = Path(__file__).parents[2]
ALPHAS = [-1.0, -0.5, 0.0, 0.5, 1.0]
#: Losses with a peak at θ, a valley there, and a slope.
PEAK, BASIN, SIDE = [2.0, 0.5, 1.0, 0.6, 2.0], [2.0, 1.0, 0.5, 1.0, 2.0], [2.0, 1.5, 1.0, 0.8, 0.7]


def record(losses=(), pipeline="curve", epoch=10, seed=0, model="mlp", config=(), **metrics):
    """A kept record, as far as the claims look at it."""
    config = {
        "pipeline": pipeline,
        "seed": seed,
        "epoch": epoch,
        "train": {"epochs": 200},
        "model": {},
        "batchnorm": {"mode": "recalibrate"},
        "grid": {"scale": 1.0},
        **dict(config),
    }
    falls = [
        {
            "left": losses_[2] - min(losses_[:3]),
            "left_error": 0.01,
            "right": losses_[2] - min(losses_[2:]),
            "right_error": 0.01,
        }
        for losses_ in losses
    ]
    arrays = {"alphas": ALPHAS, "loss": list(losses), "chance_loss": 2.3} if losses else {}
    name = f"{pipeline}/{model}-digits/{seed}{epoch}"
    metrics = {"falls": falls, **metrics}
    return Record(name, config, metrics, arrays, seconds=1.0, device="cpu")


def direction(name, **options):
    return {"direction": {"_target_": f"mining.{name}", **options}}


def test_stationary_points_peaks_and_basins_of_curves():
    gaussian = direction("Gaussian")
    records = [record([BASIN, BASIN], config=gaussian), record([SIDE], config=gaussian)]
    assert q.stationary_points(records) == pytest.approx(2 / 3)
    assert q.lowest(q.gaussian(records)) == pytest.approx(2 / 3)
    assert q.labels(records, "v-basin") == pytest.approx(2 / 3)
    assert q.points(records, 1) == pytest.approx(2 / 3)
    frozen = record([SIDE], config={**gaussian, "batchnorm": {"mode": "frozen"}})
    assert q.gaussian([frozen]) == []
    assert q.stationary_points([]) is None


def test_peaks_by_the_criterion_of_the_paper_and_by_ours():
    low = [2.0, 0.995, 1.0, 0.995, 2.0]  # three stationary points, and lower than its errors
    aside = [0.9, 0.5, 0.7, 0.75, 0.6]  # θ beside the peak
    records = [record([PEAK, low, aside, BASIN])]
    assert q.w_peaks_of_the_paper(records) == 0.5
    assert q.peaks(records) == 0.25 + 0.25  # aside falls on both sides too
    assert q.height(records[0]) == pytest.approx(0.4)


def test_epochs_are_those_of_the_paper_in_shorter_trainings():
    short = record([SIDE], epoch=5, config={"train": {"epochs": 20}})
    assert q.at([short, record(epoch=50), record(epoch=5)], 50) == [short, record(epoch=50)]
    last = record([SIDE], epoch=None, config={"train": {"epochs": 20}})
    assert q.at([last, short], 200) == [last]


def eigenvectors(which, scaled, losses, epoch=10, **metrics):
    config = {
        **direction("Eigenvectors", which=which),
        "grid": {"scale": "curvature" if scaled else 1.0},
    }
    return record(losses, epoch=epoch, config=config, **metrics)


def test_curves_along_eigenvectors_are_told_apart():
    records = [
        eigenvectors("smallest", False, [PEAK], 10, metadata=[{"eigenvalue": -2.0}]),
        eigenvectors("smallest", False, [BASIN], 200, metadata=[{"eigenvalue": -0.02}]),
        eigenvectors("smallest", True, [SIDE], 10),
        eigenvectors("largest", False, [SIDE], 10),
    ]
    assert q.along(q.peaks, "smallest", 10, scaled=False)(records) == 1
    assert q.along(q.peaks, "smallest", 10, scaled=True)(records) == 0
    assert q.along(q.peaks, "largest", 50, scaled=False)(records) is None
    assert q.change(q.height, 10, 200)(records) == pytest.approx(-0.4)
    assert q.change(q.smallest_eigenvalue, 10, 200)(records) == pytest.approx(-2)
    assert q.change(q.height, 10, 50)(records) is None


def mined(epoch, losses, rate=0.1, **metadata):
    config = direction("Xu2024WPeak", descent={"lr": rate})
    return record([losses], epoch=epoch, config=config, metadata=[metadata])


def test_mining_that_diverged_is_no_evidence():
    records = [mined(10, PEAK), mined(50, BASIN), mined(200, PEAK, diverged_epoch=7)]
    assert q.mined_peaks(0.1)(records) == 0.5
    assert q.mined_peaks(0.04)(records) is None
    assert q.remaining_height(0.1)(records) is None
    assert q.remaining_height(0.1)([*records, mined(200, BASIN)]) == 0


def test_overlaps_compare_the_two_ends_of_the_spectrum():
    of = mined(10, PEAK)
    cosines = {"N.E.1": 0.3, "N.E.2": 0.4, "P.E.1": 0.1}
    of = replace(of, metrics={**of.metrics, "cosines": cosines})
    assert q.overlap(0.1)([of]) == pytest.approx((0.125) ** 0.5 - 0.1)
    assert q.largest_cosine(0.1)([of]) == 0.4
    assert q.overlap(0.1)([mined(10, PEAK)]) is None


def test_basins_surfaces_angles_and_models():
    vvv = direction("Xu2024VVVBasin")
    three = [record([PEAK], config=vvv), record([BASIN], config=vvv)]
    assert q.vvv_basins(three, mlp=True) == 0
    assert q.vvv_basins(three, mlp=False) is None
    ends = {"x_direction": {"which": "largest"}, "y_direction": {"which": "smallest"}}
    saddle = record(pipeline="surface", config=ends, critical_point="saddle")
    assert q.kind_of("largest", "smallest", "saddle")([saddle]) == 1
    assert q.kind_of("largest", "largest", "minimum")([saddle]) is None
    angles = record(pipeline="angles", epoch=0, num_parameters=100, gradient_norm=2.0)
    angles = replace(
        angles, arrays={"gaussian_gradient": [84.0, 96.0], "gradient_checkpoint": [89.0, 91.0]}
    )
    assert q.spread_of_angles([angles]) == pytest.approx(72**0.5 / (180 / 3.14159265 / 10))
    assert q.gradient_to_converged([angles]) == 0.5
    assert q.squared_gradient([angles]) == 4
    models = record(
        pipeline="second_order", slopes=[-1, 1, -2, 0.5], relative_errors=[9, 0.1, 0.2, None]
    )
    assert q.downward([models]) == pytest.approx(2 / 3)  # θ itself has no side to slope to
    assert q.model_error([models]) == 0.2
    spectra = [
        record(pipeline="spectrum", trace=3.0, trace_standard_error=1.0),
        record(pipeline="spectrum", trace=1.0, trace_standard_error=1.0),
        record(pipeline="perturbation", scales=[0.001, 0.01], mean=[9, 3], predicted_mean=[1, 2]),
    ]
    assert q.positive_traces(spectra) == 0.5
    assert q.predicted_rise(spectra) == 1.5


def test_findings_are_one_per_network_and_count_trainings_once():
    criterion = Criterion("x", "share", "ours", "fig04", Bound(low=0.5), q.peaks)
    records = [record([PEAK], seed=seed) for seed in range(5)]
    records += [record([PEAK], epoch=50, seed=seed) for seed in range(5)]  # no further trainings
    records += [record([BASIN], seed=seed, model="cnn") for seed in range(2)]
    found = {finding.network: finding for finding in find(criterion, records)}
    assert (found["mlp-digits"].verdict.n, found["mlp-digits"].verdict.word) == (5, "holds")
    assert (found["cnn-digits"].verdict.n, found["cnn-digits"].verdict.word) == (2, "not decided")
    assert str(found["mlp-digits"]) == "mlp-digits: 1 [1, 1], n = 5: holds"


def test_every_criterion_is_written_down_and_names_an_experiment_that_there_is():
    text = (ROOT / "analysis/criteria.md").read_text()
    for claim in CLAIMS:
        for criterion in claim.criteria:
            assert re.search(rf"^\| {criterion.name.split(',')[0]} \|", text, re.M), criterion
            assert (ROOT / f"conf/experiment/{claim.paper}/{criterion.figure}.yaml").exists()


def test_a_figure_without_runs_of_its_own_has_the_records_of_their_experiment():
    evolution = read_archive("sankar2021/evolution")
    assert evolution
    assert read_archive("sankar2021/fig13") == evolution
    assert read_archive("sankar2021/fig07") != evolution


def test_records_are_kept_and_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_FOLDER", tmp_path)
    first, second = record([PEAK]), record([BASIN], seed=1)
    keep("xu2024/fig08", [first])
    path = keep("xu2024/fig08", [second, replace(first, seconds=2.0)])
    assert read_archive("xu2024/fig08") == [replace(first, seconds=2.0), second]
    assert keep("xu2024/fig08", []).read_bytes() == path.read_bytes()
    assert read_archive("xu2024/fig09") == []


@pytest.fixture
def of_two_papers(monkeypatch, tmp_path):
    """A claim of each of two papers, with kept records."""
    criterion = Criterion("x", "share of peaks", "ours", "fig01", Bound(low=0.5), q.peaks)
    both = [Claim(name, 1, f"Skies are {name}.", (criterion,)) for name in "ab"]
    monkeypatch.setattr(claims, "CLAIMS", tuple(both))
    monkeypatch.setattr(archive, "_FOLDER", tmp_path)
    for name in "ab":
        keep(f"{name}/fig01", [record([PEAK], seed=seed) for seed in range(5)])


@pytest.mark.parametrize(("arguments", "papers"), [([], ["a", "b"]), (["b"], ["b"])])
def test_the_table_is_of_all_papers_or_of_one(
    arguments, papers, of_two_papers, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "claims.csv"
    monkeypatch.setattr(sys, "argv", ["claims", *arguments, "--csv", str(path)])
    claims.main()
    written = pd.read_csv(path)
    assert list(written.paper) == papers
    assert set(written.verdict) == {"holds"}
    assert set(written.n) == {5}
    assert set(written["values"]) == {"0: 1, 1: 1, 2: 1, 3: 1, 4: 1"}
    printed = capsys.readouterr().out
    assert [paper for paper in "ab" if f"{paper} 1. Skies are {paper}." in printed] == papers


def test_a_paper_without_claims_is_refused(of_two_papers, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["claims", "c"])
    with pytest.raises(InputError, match=r"No claim of 'c' is checked, only of a, b\."):
        claims.main()


def test_chaos_is_counted_above_and_below_chance():
    def noskip(losses, reach, mode="frozen"):
        config = {"grid": {"scale": 1.0, "high": reach}, "batchnorm": {"mode": mode}}
        config |= {**direction("Gaussian"), "train": {"epochs": 30}}
        return record([losses], epoch=30, config=config)

    jagged = [9.0, 2000.0, 1.0, 2.0, 1.5]  # peaks at 2000 and, below log C, at 2; a valley at θ
    records = [noskip(jagged, 1.0), noskip(BASIN, 4.0), noskip(SIDE, 1.0, "recalibrate")]
    assert no_skip.explosion(records) == pytest.approx(3.30103)
    assert no_skip.chaos_above_chance("frozen")(records) == 0.5
    assert no_skip.smoother_far_away("frozen")(records) == 1 - 3
    assert no_skip.smoother_far_away("recalibrate")(records) is None


def test_the_page_of_claims_is_that_of_the_kept_records():
    found = [(claim, claims.check(claim, [])[0]) for claim in CLAIMS]
    written = (ROOT / "docs" / "claims.md").read_text()
    assert written == page(found), "write it anew: python -m analysis.claims --page docs/claims.md"
    table = pd.read_csv(ROOT / "analysis" / "figures" / "claims.csv")
    assert list(table.verdict) == [f.verdict.word for _, findings in found for f in findings]
