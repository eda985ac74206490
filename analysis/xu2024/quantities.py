"""The numbers per training that the claims of Xu et al. (2024) are held to."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.archive import Record
from analysis.records import epoch_of
from mining.directions.eigenvectors import NEGATIVE, POSITIVE
from mining.explain.curve_shape import find_stationary_points

Records = Sequence[Record]
Array = NDArray[np.float64]

#: Epochs of the trainings of the paper. A shorter training has its E at the same share of it.
_PAPER_EPOCHS = 200


def share(told: Iterable[bool]) -> float | None:
    """Return the share of what is true; ``None`` of nothing."""
    found = list(told)
    return sum(found) / len(found) if found else None


def mean(values: Iterable[float]) -> float | None:
    """Return the mean; ``None`` of nothing."""
    found = list(values)
    return float(np.mean(found)) if found else None


def paper_epoch(record: Record) -> float:
    """Return E of θ as the paper counts it: the share of its training, times 200 epochs."""
    config = record.config
    return _PAPER_EPOCHS * epoch_of(config) / int(config["train"]["epochs"])


def at(records: Records, *epochs: int) -> list[Record]:
    """Choose the records of θ at some epochs E of the paper."""
    return [record for record in records if paper_epoch(record) in epochs]


def source(record: Record, key: str = "direction") -> str:
    """Name the class of a direction source."""
    return str(record.config[key]["_target_"]).rpartition(".")[2]


def labels(records: Records, label: str) -> float | None:
    """Return the share of curves that the classifier gives a label."""
    return share(shape.label == label for record in records for shape in record.shapes)


def points(records: Records, number: int) -> float | None:
    """Return the share of curves with a number of stationary points, as the paper counts them."""
    return share(shape.stationary_points == number for record in records for shape in record.shapes)


def falls(record: Record) -> list[tuple[float, float | None, float, float | None]]:
    """List falls and standard errors on the left and on the right of each curve of a run."""
    return [
        (fall["left"], fall["left_error"], fall["right"], fall["right_error"])
        for fall in record.metrics["falls"]
    ]


def height(record: Record, index: int = 0) -> float:
    """Return the height of the peak on which θ lies along a direction, nats."""
    left, _, right, _ = falls(record)[index]
    return min(left, right)


def is_peak(left: float, left_error: float | None, right: float, right_error: float | None) -> bool:
    """Whether the loss falls on both sides by more than twice the sampling error."""
    return left > 2 * (left_error or 0) and right > 2 * (right_error or 0)


def peaks(records: Records) -> float | None:
    """Return the share of curves on whose peak θ lies, beyond sampling errors."""
    return share(is_peak(*fall) for record in records for fall in falls(record))


def lowest(records: Records) -> float | None:
    """Return the share of curves of which θ is the lowest point, to sampling errors."""
    return share(
        left <= 2 * (left_error or 0) and right <= 2 * (right_error or 0)
        for record in records
        for left, left_error, right, right_error in falls(record)
    )


def w_peaks_of_the_paper(records: Records) -> float | None:
    """Return the share of curves with three stationary points of which θ is the middle one."""
    return share(_three_about_theta(curve) for record in records for curve in record.curves)


def _three_about_theta(curve: Any) -> bool:
    loss, found = curve.loss, find_stationary_points(curve.loss)
    about = len(found) == 3 and found[1] == curve.origin
    return about and bool(loss[found[1]] > loss[found[0]])


# Gaussian directions


def gaussian(records: Records) -> list[Record]:
    """Choose curves along Gaussians, once where batch norm makes no difference."""
    chosen = [r for r in records if r.pipeline == "curve" and source(r) == "Gaussian"]
    return [record for record in chosen if record.config["batchnorm"]["mode"] == "recalibrate"]


def stationary_points(records: Records) -> float | None:
    """Return the mean number of stationary points of Gaussian curves."""
    return mean(s.stationary_points for record in gaussian(records) for s in record.shapes)


def of_gaussians(quantity: Callable[[Records], float | None]) -> Callable[[Records], float | None]:
    """Apply a quantity to the Gaussian curves of a training."""
    return lambda records: quantity(gaussian(records))


def early_gaussians(quantity: Callable[[Records], float | None]) -> Any:
    """Apply a quantity to the Gaussian curves at E = 10."""
    return lambda records: quantity(at(gaussian(records), 10))


# Angles


def spread_of_angles(records: Records) -> float | None:
    """Return the deviation of angles to the gradient at E = 0 over that of isotropic directions.

    Later epochs have the same Gaussians, and so do the angles to the last checkpoint.
    """
    for record in at(records, 0):
        angles = np.array(record.arrays["gaussian_gradient"])
        isotropic = 180 / math.pi / math.sqrt(record.metrics["num_parameters"])
        return float(angles.std(ddof=1) / isotropic)
    return None


def gradient_to_converged(records: Records) -> float | None:
    """Return the share of angles between batch gradient and last checkpoint in [88°, 90°]."""
    found = [angle for r in records for angle in r.arrays["gradient_checkpoint"]]
    return share(88 <= angle <= 90 for angle in found)


def squared_gradient(records: Records) -> float | None:
    """Return ‖g‖² at the initialization."""
    return mean(record.metrics["gradient_norm"] ** 2 for record in at(records, 0))


# Eigenvectors


def eigen(records: Records, which: str, *epochs: int, scaled: bool) -> list[Record]:
    """Choose curves along P.E. (``largest``) or N.E. (``smallest``)."""
    return [
        record
        for record in at(records, *epochs)
        if record.config["direction"].get("which") == which
        and (record.config["grid"]["scale"] == "curvature") == scaled
    ]


def along(
    quantity: Callable[[Records], float | None], which: str, *epochs: int, scaled: bool
) -> Callable[[Records], float | None]:
    """Apply a quantity to curves along eigenvectors."""
    return lambda records: quantity(eigen(records, which, *epochs, scaled=scaled))


def change(of: Callable[[Record], float], first: int, last: int) -> Callable[[Records], Any]:
    """Return the change of a number of the unscaled curves along N.E. between two epochs."""

    def quantity(records: Records) -> float | None:
        ends = [
            mean(of(record) for record in eigen(records, "smallest", epoch, scaled=False))
            for epoch in (first, last)
        ]
        return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]

    return quantity


def smallest_eigenvalue(record: Record) -> float:
    """Return log10 of the magnitude of λ min."""
    return math.log10(abs(record.metrics["metadata"][0]["eigenvalue"]))


# Algorithms 1 and 2


def mined(records: Records, rate: float, *epochs: int) -> list[Record]:
    """Choose curves along directions of Algorithm 1 of a learning rate that did not diverge."""
    return [
        record
        for record in at(records, *epochs)
        if source(record) == "Xu2024WPeak"
        and record.config["direction"]["descent"]["lr"] == rate
        and "diverged_epoch" not in record.metrics["metadata"][0]
    ]


def mined_peaks(rate: float) -> Callable[[Records], float | None]:
    """Share of the curves of Algorithm 1 at E = 10 and 50 that are peaks beyond their errors."""
    return lambda records: peaks(mined(records, rate, 10, 50))


def remaining_height(rate: float) -> Callable[[Records], float | None]:
    """Height along Algorithm 1's direction at E = 200 over that at E = 10."""

    def quantity(records: Records) -> float | None:
        late, early = (mined(records, rate, epoch) for epoch in (200, 10))
        if not late or not early or height(early[0]) == 0:
            return None
        return height(late[0]) / height(early[0])

    return quantity


def _overlapping(records: Records, rate: float) -> list[dict[str, float]]:
    """Choose the cosines of Algorithm 1's directions, of which ``analysis.archive`` has them."""
    found = mined(records, rate, 10, 50, 200)
    return [record.metrics["cosines"] for record in found if record.metrics.get("cosines")]


def overlap(rate: float) -> Callable[[Records], float | None]:
    """Rms cosine with the N.E. less that with the P.E., averaged over the checkpoints."""

    def quantity(records: Records) -> float | None:
        differences = []
        for cosines in _overlapping(records, rate):
            ends = [
                [c**2 for name, c in cosines.items() if name.startswith(end)]
                for end in (NEGATIVE, POSITIVE)
            ]
            if all(ends):
                negative, positive = (math.sqrt(np.mean(squares)) for squares in ends)
                differences.append(negative - positive)
        return mean(differences)

    return quantity


def largest_cosine(rate: float) -> Callable[[Records], float | None]:
    """Largest magnitude of a cosine with any eigenvector at any checkpoint."""
    return lambda records: max(
        (max(cosines.values()) for cosines in _overlapping(records, rate)), default=None
    )


def vvv_basins(records: Records, *, mlp: bool) -> float | None:
    """Return the number of settings of Algorithm 2 whose curve has three valleys.

    Args:
        records: Of a training.
        mlp: Whether MLPs are meant, or all other networks.
    """
    found = [
        r for r in records if source(r) == "Xu2024VVVBasin" and r.network.startswith("mlp") == mlp
    ]
    if not found:
        return None
    return float(sum(s.label == "vvv-basin" for record in found for s in record.shapes))


# Surfaces and second order


def kind_of(x: str, y: str, kind: str) -> Callable[[Records], float | None]:
    """Share of the surfaces of two eigenvectors whose critical point is of a kind."""

    def quantity(records: Records) -> float | None:
        return share(
            record.metrics["critical_point"] == kind
            for record in records
            if (record.config["x_direction"]["which"], record.config["y_direction"]["which"])
            == (x, y)
        )

    return quantity


def downward(records: Records) -> float | None:
    """Share of local models between the start and θ that slope downwards towards θ (b < 0)."""
    return share(b < 0 for record in records for b in record.metrics["slopes"][:-1])


def model_error(records: Records) -> float | None:
    """Return the largest error of a local model relative to the change, between the ends."""
    found = [max(record.metrics["relative_errors"][1:-1]) for record in records]
    return max(found) if found else None


def positive_traces(records: Records) -> float | None:
    """Share of checkpoints whose trace exceeds twice its error."""
    return share(
        record.metrics["trace"] > 2 * record.metrics["trace_standard_error"]
        for record in records
        if record.pipeline == "spectrum"
    )


def predicted_rise(records: Records) -> float | None:
    """Mean change of the loss at λ = 0.01 over ½λ²σ² tr H, averaged over the checkpoints."""
    found = []
    for record in records:
        if record.pipeline == "perturbation":
            index = record.metrics["scales"].index(0.01)
            found.append(record.metrics["mean"][index] / record.metrics["predicted_mean"][index])
    return mean(found)
