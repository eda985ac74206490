"""All that a report shows, from finished runs and from curves and surfaces in memory."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mining.evaluation.curves import Curve, Surface
from mining.evaluation.storage import load_curves, load_surface
from mining.pipelines import PIPELINE_KEYS
from mining.reporting.curves import curve_content
from mining.reporting.places import Plane, followed_directions, read_plane
from mining.reporting.records import FinishedRun, differences, flat, name_networks
from mining.reporting.spectra import (
    blocks_content,
    criteria,
    density_content,
    spectrum_content,
)
from mining.reporting.summary import summarize
from mining.reporting.surfaces import line_contents, surface_content
from mining.reporting.tables import assessment_content, layers_content, training_content

_KINDS = (
    "surfaces",
    "curves",
    "spectra",
    "trainings",
    "assessments",
    "layers",
    "pictures",
)
#: Pictures of runs that the page does not draw itself are shown up to this many bytes in all.
_PICTURES = 1_000_000
#: Network and θ of what was not read from runs.
_IN_MEMORY, _THETA = "given in Python", "θ"


class Content:
    """Collects what a report shows.

    Args:
        runs: Finished runs, in the order in which the page lists them.
    """

    def __init__(self, runs: Sequence[FinishedRun]) -> None:
        self.runs = runs
        self.items: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS}
        self._planes: dict[int, tuple[str, Plane]] = {}  # by surface: its network, too
        self._bytes_of_pictures = 0

    def read(self) -> None:
        """Read all runs: surfaces first, since curves are placed on them."""
        readers: dict[str, Callable[[int, FinishedRun], None]] = {
            "surface": self._read_surface,
            "curve": self._read_curves,
            "spectrum": self._read_spectrum,
            "train": self._read_training,
            "assess": self._read_assessment,
            "layers": self._read_layers,
        }
        for first in (True, False):
            for number, run in enumerate(self.runs):
                if (run.pipeline == "surface") == first:
                    readers.get(run.pipeline, self._read_picture)(number, run)
            if first:
                self._tell_surfaces_apart()

    def add_surface(
        self, surface: Surface, basins: Sequence[Mapping[str, Any]] | None = None, **about: Any
    ) -> int:
        """Add a surface and its lines through θ; returns its number on the page."""
        number = len(self.items["surfaces"])
        self.items["surfaces"].append(about | surface_content(surface, basins))
        for line in line_contents(surface, number):
            self.items["curves"].append(about | line)
        return number

    def add_curve(self, curve: Curve, **about: Any) -> dict[str, Any]:
        """Add a curve; returns what the page shows of it."""
        content = {"group": _group(curve.name), **about, **curve_content(curve)}
        self.items["curves"].append(content)
        return content

    def _read_surface(self, number: int, run: FinishedRun) -> None:
        surface = load_surface(run.directory / "surface.npz")
        about: dict[str, Any] = _about(number, run) | {"key": _key(run)}
        if run.config.get("update") is not None:
            about["note"] = "θ moves by the update rule of Adam"
        basins = run.metrics.get("basins")  # which runs of earlier versions lack
        at = self.add_surface(surface, basins, **about)
        directions = run.directory / "directions.pt"
        if directions.exists() and run.config.get("update") is None:
            self._planes[at] = (run.network, read_plane(directions, run.point, surface))

    def _tell_surfaces_apart(self) -> None:
        """Note in what surfaces of the same θ and the same directions differ."""
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for surface in self.items["surfaces"]:
            groups.setdefault((surface["network"], surface["point"], *surface["names"]), []).append(
                surface
            )
        for group in groups.values():
            configs = [flat(_shown(self.runs[surface["run"]])) for surface in group]
            for surface, found in zip(group, differences(configs), strict=True):
                surface["differs"] = ", ".join(found)

    def _read_curves(self, number: int, run: FinishedRun) -> None:
        curves = load_curves(run.directory / "curves.npz")
        path = run.directory / "directions.pt"
        planes = {at: p for at, (network, p) in self._planes.items() if network == run.network}
        directions = followed_directions(path) if planes and path.exists() else []
        for position, curve in enumerate(curves):
            content = self.add_curve(curve, **_about(number, run))
            content["place"] = {}
            for at, plane in planes.items() if directions else ():
                found = plane.place(directions[position], curve.alphas, run.point)
                if found is not None:
                    content["place"][str(at)] = found

    def _read_spectrum(self, number: int, run: FinishedRun) -> None:
        of = run.config["spectrum"]
        title = str(of["operator"]).replace("_", "-").title()
        title += "" if of["parameters"] is None else f" of {of['parameters']}"
        content = spectrum_content(run.directory, run.metrics)
        self.items["spectra"].append(_about(number, run) | content | {"title": title})

    def _read_training(self, number: int, run: FinishedRun) -> None:
        content = training_content(run.directory, run.metrics)
        self.items["trainings"].append(_about(number, run) | content)

    def _read_assessment(self, number: int, run: FinishedRun) -> None:
        about = _about(number, run)
        self.items["assessments"].append(about | assessment_content(run.metrics))
        lines, density = (run.directory / name for name in ("curves.npz", "density.npz"))
        for curve in load_curves(lines) if lines.exists() else ():
            self.add_curve(curve, **about, group=f"{_group(curve.name)} (assessment)")
        if density.exists():
            content = {"density": density_content(density), "criteria": criteria(run.metrics)}
            more = {"eigenvalues": None, "trace": None, "title": "Hessian (assessment)"}
            self.items["spectra"].append(about | content | more)

    def _read_layers(self, number: int, run: FinishedRun) -> None:
        content = layers_content(run.metrics) | {"blocks": blocks_content(run.directory)}
        self.items["layers"].append(_about(number, run) | content)
        self._read_picture(number, run)

    def _read_picture(self, number: int, run: FinishedRun) -> None:
        """Show the pictures of a run that the page does not draw itself."""
        for path in sorted(run.directory.glob("*.png")):
            content = path.read_bytes()
            kept = self._bytes_of_pictures + len(content) <= _PICTURES
            self._bytes_of_pictures += len(content) * kept
            image = base64.b64encode(content).decode("ascii") if kept else None
            about = {"file": str(path), "title": f"{run.pipeline}: {path.stem}", "image": image}
            self.items["pictures"].append(_about(number, run) | about)


def describe_runs(
    runs: Sequence[FinishedRun], in_memory: Sequence[Curve | Surface] = ()
) -> dict[str, Any]:
    """Collect all that a report shows.

    Args:
        runs: Finished runs.
        in_memory: Curves and surfaces that no run has.

    Returns:
        Lists of ``networks``, each with its points and a summary of each; of ``runs``; and of each
        kind of result, with ``network``, ``point`` and ``run`` to which it belongs.
    """
    content = Content(runs)
    content.read()
    about: dict[str, Any] = {"network": _IN_MEMORY, "point": _THETA, "run": None, "loss_of": ""}
    for result in in_memory:
        if isinstance(result, Surface):
            content.add_surface(result, **about)
        else:
            content.add_curve(result, **about, place={})
    return {
        "networks": _networks(runs, content.items),
        "runs": [_run_content(run) for run in runs],
        **content.items,
    }


def _networks(
    runs: Sequence[FinishedRun], items: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Describe the networks, those with pictures of their landscape first."""
    shown = [item["network"] for kind in ("surfaces", "curves") for item in items[kind]]
    keys = dict.fromkeys([*shown, *(run.network for run in runs)])
    names = name_networks(runs) | name_networks([run for run in runs if run.network in shown])
    found = []
    for key in keys:
        own = [run for run in runs if run.network == key]
        orders = {run.point: _order(run) for run in own if run.pipeline != "train"}
        orders = orders or {run.point: _order(run) for run in own[:1]}
        names_of_points = sorted(orders, key=lambda point: orders[point]) or [_THETA]
        name = names.get(key, _IN_MEMORY)
        summaries = {}
        for point in names_of_points:
            of_point = {
                kind: [i for i in items[kind] if i["network"] == key and i["point"] == point]
                for kind in items
            }
            summaries[point] = summarize(name, point, own, of_point)
        found.append(
            {
                "key": key,
                "name": name,
                "has_landscape": key in shown,
                "points": names_of_points,
                "summary": summaries,
            }
        )
    return found


def _order(run: FinishedRun) -> tuple[int, int, str]:
    epoch = -1 if run.epoch is None else run.epoch
    return epoch, int(run.config.get("step") or 0), run.point


def _about(number: int, run: FinishedRun) -> dict[str, Any]:
    about = {"network": run.network, "point": run.point, "run": number}
    return about | {"loss_of": run.loss_of}


def _group(name: str) -> str:
    """Name what numbered directions of one source have in common."""
    return re.sub(r" \d+$", "", name)


def _key(run: FinishedRun) -> str:
    """Digest what a surface shows, whatever its θ: a page keeps it at another checkpoint."""
    return hashlib.sha256(json.dumps(_shown(run), sort_keys=True).encode()).hexdigest()[:8]


def _shown(run: FinishedRun) -> dict[str, Any]:
    """Give what the pipeline of a run reads, but for θ."""
    keys = [k for k in PIPELINE_KEYS[run.pipeline] if k not in ("epoch", "step", "checkpoint")]
    return {key: run.config.get(key) for key in keys}


def _run_content(run: FinishedRun) -> dict[str, Any]:
    record = run.record
    return {
        "pipeline": run.pipeline,
        "network": run.network,
        "point": run.point,
        "loss_of": run.loss_of,
        "along": list(dict.fromkeys(map(_group, run.metrics.get("directions") or ()))),
        "directory": str(run.directory),
        "command": run.command.text,
        "why": run.command.why,
        "typed": run.typed,
        "digest": run.digest,
        "seed": record.get("seed"),
        "versions": record.get("versions") or {},
        "git": record.get("git") or {},
        "device": record.get("device"),
        "seconds": record.get("seconds"),
    }
