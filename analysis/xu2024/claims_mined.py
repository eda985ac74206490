"""Claims 5 and 6 of Xu et al. (2024): directions that Algorithms 1 and 2 mine."""

from typing import Any

import pandas as pd

from analysis.findings import Finding, Runs, labels_of, networks, verdict
from analysis.panels import peak_height
from analysis.records import epoch_of, learning_rate_of
from analysis.xu2024.overlaps import overlap_row, overlaps


def mined_peaks(runs: Runs) -> list[Finding]:
    """Claim 5: curves along directions of Algorithm 1."""
    findings = []
    for network, rate, group in _mined(runs("fig09")):
        measured, cases = [], []
        for run in group:
            epoch, label = epoch_of(run.config), run.metrics["labels"][0]
            diverged = run.metrics["metadata"][0].get("diverged_epoch")
            if diverged is None:
                measured.append(f"E={epoch}: {label}, falls by {peak_height(run):.3g}")
                cases.append((label == "w-peak") == (epoch < 100))
            else:  # which says nothing of what there is
                measured.append(f"E={epoch}: mining diverged in its epoch {diverged}")
        claim = f"Algorithm 1 (η={rate:g}) gives w-peaks at E=10 and 50 and none at E=200"
        findings.append(Finding(claim, network, "; ".join(measured), verdict(cases)))
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
        findings.append(Finding(claim, network, measured, verdict(more)))
        single = [row["|cosine|"] < 0.9 for row in rows]
        claim = f"It is no single eigenvector (η={rate:g})"
        findings.append(Finding(claim, network, measured, verdict(single)))
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
                "Algorithm 2 gives no vvv-basin for the MLP"
                if mlp
                else "Algorithm 2 gives a vvv-basin for some α and γ",
                network,
                measured,
                verdict([not any(found)] if mlp else [any(found)]),
            )
        )
    return findings
