"""The claims of Xu et al. (2024) beside what was measured here.

python -m mining experiment=paper/fig02 (and the other figures of the paper but fig06 and fig12)
python -m analysis.claims
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.fig09 import overlap_row, overlaps
from analysis.panels import curves_of, told_unconverged, unconverged
from analysis.records import (
    add_overrides,
    epoch_of,
    experiment_runs,
    learning_rate_of,
    run_script,
    save_csv,
)
from mining.pipelines.building import has_batch_norm

Runs = Callable[[str], pd.DataFrame]


@dataclass(frozen=True)
class Finding:
    """One claim on one network."""

    number: int
    claim: str
    network: str
    measured: str
    holds: str  # yes, no, or in how many cases


def verdict(cases: Sequence[bool]) -> str:
    """Say in how many cases a claim holds."""
    if not cases:
        return "not measured"
    if all(cases):
        return "yes"
    return f"{sum(cases)} of {len(cases)}" if any(cases) else "no"


def networks(runs: pd.DataFrame) -> list[tuple[str, list[Any]]]:
    """Group runs by network and seed, in their order."""
    grouped: dict[str, list[Any]] = {}
    for run in runs.itertuples():
        name = f"{run.model}-{run.data}"
        if not run.config["model"].get("skip_connections", True):
            name += ", no skip connections"
        if run.seed != 0:
            name += f", seed {run.seed}"
        grouped.setdefault(name, []).append(run)
    return list(grouped.items())


def labels_of(runs: Sequence[Any]) -> list[str]:
    """List the labels of all curves of some runs."""
    return [label for run in runs for label in run.metrics["labels"]]


def count(labels: Sequence[str]) -> str:
    """Count labels: ``4 v-basin, 1 exploded``."""
    found = pd.Series(list(labels)).value_counts()
    return ", ".join(f"{number} {label}" for label, number in found.items())


def gaussian_curves(runs: Runs) -> list[Finding]:
    """Claim 1: curves along Gaussian directions."""
    findings = []
    found = runs("fig02")
    for network, group in networks(found[found.pipeline == "curve"]):
        conditions: dict[str, list[Any]] = {}
        for run in group:
            normalization = (run.config.get("normalization") or {}).get("name", "model")
            mode = run.config["batchnorm"]["mode"]
            condition = f"normalization {normalization}"
            if has_batch_norm(run.config):
                condition += f", batch norm {mode}"
            elif mode == "frozen":
                continue  # these are the same curves
            conditions.setdefault(condition, []).append(run)
        for condition, members in conditions.items():
            highest = max(float(curve.loss.max()) for run in members for curve in curves_of(run))
            epochs = ", ".join(f"E={epoch_of(run.config)}" for run in members)
            about = f"up to {highest:.3g} nats, {epochs}"
            findings.append(_gaussian_finding(network, members, condition, about))
    return findings


def gaussian_conditions(figure: str, name: str, runs: Runs) -> list[Finding]:
    """Claim 1 at further epochs, in further windows, under further normalizations."""
    findings = []
    found = runs(figure)
    for network, group in networks(found[found.pipeline == "curve"]):
        conditions = [
            *_listed(f"E={epoch_of(run.config)}" for run in group),
            *_listed(f"±{run.config['grid']['high']:g}" for run in group),
            *_listed((run.config.get("normalization") or {}).get("name") for run in group),
        ]
        findings.append(_gaussian_finding(network, group, name, ", ".join(conditions)))
    return findings


def _gaussian_finding(network: str, members: Sequence[Any], condition: str, about: str) -> Finding:
    """Judge curves by their labels and, together, by their number of stationary points."""
    labels = labels_of(members)
    points = np.mean([n for run in members for n in run.metrics["stationary_points"]])
    return Finding(
        1,
        f"Gaussian curves are v-basins of about 1 stationary point: {condition}",
        network,
        f"{count(labels)}; {points:.1f} stationary points ({about})",
        verdict([label == "v-basin" for label in labels]) if points < 1.5 else "no",
    )


def _listed(values: Iterable[str | None]) -> list[str]:
    """List what differs, in its order."""
    return [value for value in dict.fromkeys(values) if value is not None]


def angles(runs: Runs) -> list[Finding]:
    """Claim 2: angles between random and descent directions."""
    findings = []
    for network, group in networks(runs("fig05")):
        ranges = [
            run.metrics["angles"][key]
            for run in group
            for key in ("gaussian_gradient", "gaussian_checkpoint")
        ]
        low, high = min(r["min"] for r in ranges), max(r["max"] for r in ranges)
        findings.append(
            Finding(
                2,
                "Gaussian and descent directions: about [89.75°, 90.25°]",
                network,
                f"[{low:.2f}°, {high:.2f}°], {group[0].config['num_directions']} a checkpoint",
                verdict([low >= 89.7 and high <= 90.3]),
            )
        )
        first = next((run for run in group if epoch_of(run.config) == 0), None)
        if first is not None:
            # The log-probability is -½ D log 2π but for this norm: it cannot but agree.
            squared = first.metrics["gradient_norm"] ** 2
            findings.append(
                Finding(
                    2,
                    "Squared norm of the gradient at E=0: 119.7 (log-probability -3.6e5)",
                    network,
                    f"{squared:.3g} ({first.metrics['log_probability']:.3g})",
                    verdict([abs(squared / 119.7 - 1) < 0.1]),
                )
            )
    return findings


def labelled(figure: str, claim: str, shape: str, runs: Runs) -> list[Finding]:
    """Claim 3: curves to checkpoints or along the gradient, all of one shape."""
    findings = []
    for network, group in networks(runs(figure)):
        labels = labels_of(group)
        holds = verdict([label == shape for label in labels])
        findings.append(Finding(3, claim, network, count(labels), holds))
    return findings


def eigenvector_curves(runs: Runs) -> list[Finding]:
    """Claim 4: curves along eigenvectors of the Hessian, of length one and scaled."""
    findings = []
    for network, group in networks(runs("fig08")):
        for scaled, window in ((False, "length one"), (True, "scaled by curvature")):
            members = [
                run for run in group if (run.config["grid"]["scale"] == "curvature") == scaled
            ]
            ends = {
                which: sorted(
                    (run for run in members if run.config["direction"]["which"] == which),
                    key=lambda run: epoch_of(run.config),
                )
                for which in ("largest", "smallest")
            }
            findings.append(positive_curves(network, window, ends["largest"]))
            findings.append(negative_curves(network, window, ends["smallest"]))
            if not scaled:  # a window that depends on the curvature decides on the height
                findings.append(falling_peaks(network, ends["smallest"]))
    return findings


def positive_curves(network: str, window: str, members: Sequence[Any]) -> Finding:
    """Judge curves along P.E."""
    labels = labels_of(members)
    holds = verdict([label == "v-basin" for label in labels])
    return Finding(4, f"P.E. give v-basins ({window})", network, count(labels), holds)


def negative_curves(network: str, window: str, members: Sequence[Any]) -> Finding:
    """Judge curves along N.E. by their label, and list the stationary points, three of a w-peak."""
    parts, cases = [], []
    for run in members:
        points = np.mean(run.metrics["stationary_points"])
        without = f", {len(unconverged(run))} not converged" if unconverged(run) else ""
        labels = count(labels_of([run]))
        parts.append(f"E={epoch_of(run.config)}: {labels} [{points:.1f}]{without}")
        if epoch_of(run.config) in (10, 50):
            cases += [label == "w-peak" for label in labels_of([run])]
    claim = f"N.E. give w-peaks at E=10 and 50 ({window}) [3 stationary points]"
    return Finding(4, claim, network, "; ".join(parts), verdict(cases))


def falling_peaks(network: str, members: Sequence[Any]) -> Finding:
    """Judge whether the peak along N.E.1 and the eigenvalue shrink."""
    heights = [peak_height(run) for run in members]
    lowest = [run.metrics["info"][0]["eigenvalue"] for run in members]
    falling = [a > b for a, b in pairwise(heights)]
    falling += [abs(a) > abs(b) for a, b in pairwise(lowest)]
    measured = "; ".join(
        f"E={epoch_of(run.config)}: {height:.3g}, λmin {value:.3g}"
        + (" (not converged)" if "N.E.1" in unconverged(run) else "")
        for run, height, value in zip(members, heights, lowest, strict=True)
    )
    return Finding(
        4, "Peak along N.E.1 and |λmin| fall with E", network, measured, verdict(falling)
    )


def peak_height(run: Any) -> float:
    """Measure how far the loss falls along the first direction, to the side where it falls less."""
    curve = curves_of(run)[0]
    origin = curve.origin
    sides = curve.loss[: origin + 1], curve.loss[origin:]
    return float(curve.loss[origin] - max(side.min() for side in sides))


def mined_peaks(runs: Runs) -> list[Finding]:
    """Claim 5: curves along directions of Algorithm 1."""
    findings = []
    for network, rate, group in _mined(runs("fig09")):
        measured, cases = [], []
        for run in group:
            epoch, label = epoch_of(run.config), run.metrics["labels"][0]
            diverged = run.metrics["info"][0].get("diverged_epoch")
            if diverged is None:
                measured.append(f"E={epoch}: {label}, falls by {peak_height(run):.3g}")
                cases.append((label == "w-peak") == (epoch < 100))
            else:  # which says nothing of what there is
                measured.append(f"E={epoch}: mining diverged in its epoch {diverged}")
        claim = f"Algorithm 1 (η={rate:g}) gives w-peaks at E=10 and 50 and none at E=200"
        findings.append(Finding(5, claim, network, "; ".join(measured), verdict(cases)))
    return findings


def mined_overlaps(runs: Runs) -> list[Finding]:
    """Claim 5: directions of Algorithm 1 and the eigenvectors of the Hessian."""
    findings = []
    for network, rate, group in _mined(runs("fig09")):
        rows = [overlap_row(item) for item in overlaps(pd.DataFrame(group), runs("fig13"))]
        if not rows:
            continue
        measured = "; ".join(
            f"{row['point'].split(', ')[1]}: {row['rms cosine with N.E.']:.4f} with "
            f"{row['N.E.']} N.E., {row['rms cosine with P.E.']:.4f} with {row['P.E.']} P.E., "
            f"{row['of a random one']:.4f} by chance, largest {row['|cosine|']:.3f} "
            f"({row['largest']})"
            for row in rows
        )
        more = [row["rms cosine with N.E."] > row["rms cosine with P.E."] for row in rows]
        claim = f"Its overlap (rms cosine, η={rate:g}) with N.E. exceeds that with P.E."
        findings.append(Finding(5, claim, network, measured, verdict(more)))
        single = [row["|cosine|"] < 0.9 for row in rows]
        claim = f"It is no single eigenvector (η={rate:g})"
        findings.append(Finding(5, claim, network, measured, verdict(single)))
    return findings


def _mined(found: pd.DataFrame) -> list[tuple[str, float, list[Any]]]:
    """Group mined runs by network and learning rate."""
    grouped: dict[tuple[str, float], list[Any]] = {}
    for network, group in networks(found):
        for run in group:
            if run.config["direction"]["_target_"].endswith("Xu2024WPeak"):
                rate = learning_rate_of(run.config)
                assert rate is not None
                grouped.setdefault((network, rate), []).append(run)
    return [(network, rate, group) for (network, rate), group in grouped.items()]


def mined_basins(runs: Runs) -> list[Finding]:
    """Claim 6: directions of Algorithm 2."""
    findings = []
    for network, group in networks(runs("fig10")):
        measured = "; ".join(
            f"α={run.config['direction']['alpha']:g}, γ={run.config['direction']['gamma']:g}: "
            f"{run.metrics['labels'][0]}"
            for run in group
        )
        found = [label == "vvv-basin" for label in labels_of(group)]
        mlp = network.startswith("mlp")
        findings.append(
            Finding(
                6,
                "Algorithm 2 gives no vvv-basin for the MLP"
                if mlp
                else "Algorithm 2 gives a vvv-basin for some α and γ",
                network,
                measured,
                verdict([not any(found)] if mlp else [any(found)]),
            )
        )
    return findings


def surfaces(runs: Runs) -> list[Finding]:
    """Claim 7: surfaces of two eigenvectors."""
    kinds = {
        ("largest", "largest"): ("P.E. × P.E. is a bowl", "minimum"),
        ("smallest", "smallest"): ("N.E. × N.E. is the bottom of a bottle", "maximum"),
        ("largest", "smallest"): ("P.E. × N.E. is a saddle", "saddle"),
    }
    findings = []
    for network, group in networks(runs("fig11")):
        for ends, (claim, kind) in kinds.items():
            members = [
                run
                for run in group
                if (run.config["x_direction"]["which"], run.config["y_direction"]["which"]) == ends
            ]
            measured = ", ".join(
                f"E={epoch_of(run.config)}: {run.metrics['centre']}{told_unconverged(run)}"
                for run in members
            )
            holds = verdict([run.metrics["centre"] == kind for run in members])
            findings.append(Finding(7, claim, network, measured, holds))
    return findings


def second_order(runs: Runs) -> list[Finding]:
    """Claim 8: second-order models along GMI and MLI curves."""
    findings = []
    for network, group in networks(runs("fig14")):
        measured, cases = [], []
        for run in group:
            errors = np.array(run.metrics["relative_errors"], dtype=float)
            # At θ itself the loss hardly changes, and a relative error says nothing.
            start, rest = errors[0], errors[1:-1].max()
            kind = "MLI" if run.config["direction"].get("away") else "GMI"
            measured.append(f"{kind}: {start:.2g} at λ=-1, between up to {rest:.2g}")
            cases.append(bool(rest < 0.1))
        findings.append(
            Finding(
                8,
                "GMI and MLI follow their second-order models to 10 % between θ and λ=-1",
                network,
                "; ".join(measured),
                verdict(cases),
            )
        )
    return findings


CLAIMS: tuple[Callable[[Runs], list[Finding]], ...] = (
    gaussian_curves,
    partial(gaussian_conditions, "fig03", "Fig. 3"),
    partial(gaussian_conditions, "figA15", "Fig. A.15"),
    partial(gaussian_conditions, "figB16", "Fig. B.16"),
    partial(gaussian_conditions, "figB17", "Fig. B.17"),
    angles,
    partial(labelled, "fig04", "Negative gradient and later checkpoint give v-sides", "v-side"),
    partial(
        labelled, "fig07", "Independent checkpoints give w-basins, also between epochs", "w-basin"
    ),
    eigenvector_curves,
    mined_peaks,
    mined_overlaps,
    mined_basins,
    surfaces,
    second_order,
)


def main() -> None:
    """Print every claim with whether it holds and what was measured, and write the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    path = Path("outputs/claims.csv")
    arguments.add_argument("--csv", type=Path, default=path, help="table to write (%(default)s)")
    add_overrides(arguments)
    options = arguments.parse_args()
    findings, missing = [], []
    for claim in CLAIMS:
        try:
            findings += claim(lambda figure: experiment_runs(f"paper/{figure}", options.overrides))
        except FileNotFoundError as error:
            missing.append(str(error))
    for finding in findings:
        print(f"{finding.number}. {finding.claim}: {finding.holds}.")
        print(f"   {finding.network}: {finding.measured}")
    if findings:
        save_csv([vars(finding) for finding in findings], options.csv)
        print(options.csv)
    if missing:
        raise FileNotFoundError("\n".join(missing))


if __name__ == "__main__":
    run_script(main)
