"""Claims 4, 7 and 8 of Xu et al. (2024): eigenvectors and second-order models."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.findings import Finding, Runs, count, labels_of, networks, verdict
from analysis.panels import peak_height, told_unconverged, unconverged
from analysis.records import epoch_of


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
    return Finding(f"P.E. give v-basins ({window})", network, count(labels), holds)


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
    return Finding(claim, network, "; ".join(parts), verdict(cases))


def falling_peaks(network: str, members: Sequence[Any]) -> Finding:
    """Judge whether the peak along N.E.1 and the eigenvalue shrink."""
    heights = [peak_height(run) for run in members]
    lowest = [run.metrics["metadata"][0]["eigenvalue"] for run in members]
    falling = [a > b for a, b in pairwise(heights)]
    falling += [abs(a) > abs(b) for a, b in pairwise(lowest)]
    measured = "; ".join(
        f"E={epoch_of(run.config)}: {height:.3g}, λmin {value:.3g}"
        + (" (not converged)" if "N.E.1" in unconverged(run) else "")
        for run, height, value in zip(members, heights, lowest, strict=True)
    )
    return Finding("Peak along N.E.1 and |λmin| fall with E", network, measured, verdict(falling))


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
                f"E={epoch_of(run.config)}: {run.metrics['critical_point']}{told_unconverged(run)}"
                for run in members
            )
            holds = verdict([run.metrics["critical_point"] == kind for run in members])
            findings.append(Finding(claim, network, measured, holds))
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
                "GMI and MLI follow their second-order models to 10 % between θ and λ=-1",
                network,
                "; ".join(measured),
                verdict(cases),
            )
        )
    return findings
