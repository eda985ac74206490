"""What a report says first: the landscape around a network, in a few sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mining.reporting.curves import meaning
from mining.reporting.records import FinishedRun


def summarize(
    name: str, point: str, runs: Sequence[FinishedRun], content: Mapping[str, Sequence[Any]]
) -> list[str]:
    """Describe one θ of one network.

    Args:
        name: Of the network.
        point: Of θ.
        runs: The finished runs of the network.
        content: What the page shows of this θ, by kind.
    """
    sentences = [
        sentence
        for part in (
            _of_training(name, runs),
            _of_loss(point, runs),
            _of_surfaces(content.get("surfaces", ())),
            _of_curves(content.get("curves", ())),
            _of_spectra(content.get("spectra", ())),
            _of_assessments(content.get("assessments", ())),
        )
        for sentence in part
    ]
    return list(dict.fromkeys(sentences))


def _of_training(name: str, runs: Sequence[FinishedRun]) -> Iterator[str]:
    for run in runs[:1]:
        train, found = run.config["train"], run.metrics
        size = found.get("num_parameters")
        parts = [f"The network is {name}"]
        if size is not None:
            parts[0] += f" ({size:,} parameters)"
        if run.config.get("checkpoint") is None:
            parts.append(
                f"trained for {train['epochs']} epochs ({train['optimizer']}, learning rate "
                f"{train['lr']:g}, seed {run.config['seed']})"
            )
        trained = next((r.metrics for r in runs if r.pipeline == "train"), {})
        if trained.get("test_accuracy") is not None:
            parts.append(f"which ends at a test accuracy of {trained['test_accuracy']:.2%}")
        yield f"{', '.join(parts)}."


def _of_loss(point: str, runs: Sequence[FinishedRun]) -> Iterator[str]:
    of_point = [r for r in runs if r.point == point and "loss_at_theta" in r.metrics]
    said = {}
    for run in of_point:
        loss, accuracy = run.metrics["loss_at_theta"], run.metrics.get("accuracy_at_theta")
        if loss is None or run.loss_of in said:
            continue
        text = f"a loss of {loss:.4g}"
        said[run.loss_of] = text + (f", accuracy {accuracy:.2%}" if accuracy is not None else "")
    told = "; ".join(f"{text} ({of})" for of, text in said.items())
    if told:
        yield f"θ, the network at {point}, has {told}."


def _of_surfaces(surfaces: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for surface in surfaces:
        if surface["kind"] is None:
            continue
        lines = surface["kind"]["lines"].values()
        shapes = " or ".join(f"{label} ({meaning(label)})" for label in dict.fromkeys(lines))
        sure = "" if surface["kind"]["probability"] >= 0.95 else " probably"
        about = f" ({surface['differs']})" if surface.get("differs") else ""
        yield (
            f"On the surface {' × '.join(surface['names'])}{about}, θ is{sure} "
            f"{surface['kind']['words']}: the lines through it are labelled {shapes}."
        )
        inside = [basin for basin in surface["basins"] if not basin["on_edge"]]
        if len(inside) > 1:
            yield (
                f"The surface {' × '.join(surface['names'])}{about} has {len(inside)} basins "
                "inside that are at least 1 % of its range deep."
            )


def _of_curves(curves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for curve in curves:
        if curve.get("of_surface") is None:
            groups.setdefault(curve["group"], []).append(curve)
    for group, members in groups.items():
        labels = {member["label"]: member["meaning"] for member in members}
        told = " or ".join(f"{label} ({meaning})" for label, meaning in labels.items())
        which = "the direction" if len(members) == 1 else f"{len(members)} directions"
        other = ", an epoch of a network that was trained independently" if "E'" in group else ""
        yield f"Along {which} “{group}”{other}: {told}."


def _of_spectra(spectra: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for spectrum in spectra:
        known = spectrum["eigenvalues"]
        if known is None:
            continue
        low, high = min(known["values"]), max(known["values"])
        text = f"The eigenvalues of the {spectrum['title']} lie between {low:.3g} and {high:.3g}"
        trace = spectrum["trace"]
        if trace is not None:
            text += f", and its trace is {trace['value']:.4g} ± {trace['error']:.1g}"
        yield f"{text}."


def _of_assessments(assessments: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for assessment in assessments:
        for finding in assessment["findings"]:
            yield f"Assessment, {finding['name']}: {finding['text']}"
