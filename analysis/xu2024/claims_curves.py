"""Claims 1 to 3 of Xu et al. (2024): random and descent directions, and other checkpoints."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from analysis.findings import Finding, Runs, count, labels_of, networks, verdict
from analysis.panels import curves_of
from analysis.records import epoch_of
from mining.pipelines.building import has_batch_norm
from mining.pipelines.targets import Target


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
            if has_batch_norm(Target.read("model", run.config["model"])):
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
        findings.append(Finding(claim, network, count(labels), holds))
    return findings
