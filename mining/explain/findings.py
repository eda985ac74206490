"""What the numbers of an assessment show, by fixed rules; ``docs/assess.md`` lists them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mining.explain.quantity import Quantity
from mining.explain.stationarity import SIGNIFICANCE

#: A fall of the loss counts from this share of the chance level, or of the loss without one.
LEAST_FALL = 0.01
#: Standard errors by which a difference must exceed zero.
STANDARD_ERRORS = 3.0
#: A negative eigenvalue counts from this share of the largest one; those of trained networks are
#: smaller (at most 2.5 % in those that were tried).
NEGATIVE_SHARE = 0.05
#: Stored statistics are stale if they raise the loss by this share of it, and by ``LEAST_FALL``.
STALE_SHARE = 0.2
#: A training set is memorized from this accuracy and up to this share of the chance level.
MEMORIZED_ACCURACY, MEMORIZED_LOSS = 0.95, 0.2
#: A network with a loss above this share of the chance level has not learned anything.
UNTRAINED_LOSS = 0.95


@dataclass(frozen=True)
class Finding:
    """A conclusion, and the numbers from which it follows."""

    name: str
    text: str  # in a sentence or two

    def record(self) -> dict[str, Any]:
        """Return what goes into ``run.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What conclusions are drawn from.

    Args:
        quantities: Measurements by name.
        brackets: Of the extreme eigenvalues, ends in ascending order.
        chance_loss: The chance-level loss, if there is one.
        majority_shares: Share of the most frequent class in each set, by the suffix of its names.
    """

    quantities: Mapping[str, Quantity]
    brackets: Mapping[str, tuple[float, float]]
    chance_loss: float | None
    majority_shares: Mapping[str, float]

    def value(self, name: str) -> float | None:
        """Return the value of a measurement that exists."""
        found = self.quantities.get(name)
        return None if found is None else found.value

    def exceeds(self, name: str, least: float) -> bool:
        """Whether a number exceeds ``least``, and zero by three standard errors."""
        found = self.quantities.get(name)
        if found is None or found.value is None or found.error is None:
            return False
        return found.value > max(least, STANDARD_ERRORS * found.error)

    def is_below_zero(self, name: str) -> bool:
        """Whether a number is below zero by three standard errors, or by all where it has none."""
        found = self.quantities[name]
        return found.value is not None and found.value < -STANDARD_ERRORS * (found.error or 0.0)

    @property
    def scale(self) -> float:
        """The loss to which falls are related."""
        return self.chance_loss or abs(self.value("loss") or 0.0)

    @property
    def descends(self) -> bool:
        """Whether the loss still falls along the gradient, which is beyond its noise."""
        probability = self.value("gradient_p_value")
        if probability is None or probability > SIGNIFICANCE:
            return False
        return self.exceeds("gradient_fall", LEAST_FALL * self.scale)


def find(evidence: Evidence) -> Iterator[Finding]:
    """Name what the numbers show."""
    rules = {
        "stale batch-norm statistics": _stale,
        "other batch-norm statistics": _other_statistics,
        "memorized": _memorized,
        "untrained": _untrained,
        "descending": _descending,
        "saddle": _saddle,
    }
    texts = {name: rule(evidence) for name, rule in rules.items()}
    if not any(texts[name] for name in ("untrained", "descending", "saddle")):
        texts["minimum"] = _minimum(evidence)
    yield from (Finding(name, text) for name, text in texts.items() if text)


def _stale(of: Evidence) -> str:
    stored, again = of.value("loss_stored_statistics"), of.value("loss_recalibrated")
    if stored is None or again is None:
        return ""
    least = max(STALE_SHARE * abs(again), LEAST_FALL * of.scale)
    if not of.exceeds("batchnorm_mismatch", least):
        return ""
    return (
        f"The stored batch-norm statistics are stale: with them, as in model.eval(), the loss is "
        f"{stored:.3g}, and with recalibrated ones {again:.3g}. Recalibrate them "
        "(torch.optim.swa_utils.update_bn), or load the buffers that belong to the weights."
    )


def _other_statistics(of: Evidence) -> str:
    stored, again = of.value("loss_stored_statistics"), of.value("loss_recalibrated")
    if stored is None or again is None or not of.is_below_zero("batchnorm_mismatch"):
        return ""
    if again - stored <= max(STALE_SHARE * abs(stored), LEAST_FALL * of.scale):
        return ""
    return (
        f"With the stored batch-norm statistics the loss is lower, {stored:.3g}, than with "
        f"recalibrated ones, {again:.3g}, as after training with augmented images. "
        "batchnorm=frozen assesses the network as it is in model.eval()."
    )


def _memorized(of: Evidence) -> str:
    loss, accuracy, test = (of.value(n) for n in ("loss", "accuracy", "accuracy_test"))
    if loss is None or accuracy is None or test is None or of.chance_loss is None:
        return ""
    share = of.majority_shares["_test"]
    interval = of.quantities["accuracy_test"].interval
    fits = accuracy >= MEMORIZED_ACCURACY and loss <= MEMORIZED_LOSS * of.chance_loss
    if not fits or interval is None or interval[0] > share:
        return ""
    return (
        f"The network has memorized its training examples ({100 * accuracy:.1f} % right), and on "
        f"the test examples it is no better than guessing: {100 * test:.1f} % right, where the "
        f"most frequent class is {100 * share:.1f} %. Look at the labels."
    )


def _untrained(of: Evidence) -> str:
    loss = of.value("loss")
    if loss is None or of.chance_loss is None or loss < UNTRAINED_LOSS * of.chance_loss:
        return ""
    return (
        f"The loss, {loss:.3g}, is that of guessing (log C = {of.chance_loss:.3g}): the network "
        "has learned nothing of these examples. Sharpness and width say nothing then."
    )


def _descending(of: Evidence) -> str:
    if not of.descends:
        return ""
    return (
        "θ is not a minimum: the gradient is beyond its sampling noise, and one step along it "
        f"lowers the loss by {of.value('gradient_fall'):.2g}. Training has not converged."
    )


def _saddle(of: Evidence) -> str:
    bracket, fall = of.brackets.get("lambda_min"), of.value("negative_fall")
    lowest, highest = of.value("lambda_min"), of.value("lambda_max")
    if bracket is None or lowest is None or highest is None or bracket[1] >= 0 or of.descends:
        return ""
    falls = of.exceeds("negative_fall", LEAST_FALL * of.scale)
    bent = -lowest > NEGATIVE_SHARE * highest and of.is_below_zero("lambda_min")
    if not (falls or bent):
        return ""
    amount = "" if fall is None else f", by {max(fall, 0.0):.2g} within steps up to half of ‖θ‖"
    return (
        "θ is at a saddle: the gradient leads hardly down, but the loss falls along the "
        f"eigenvector of the most negative eigenvalue, {lowest:.2g}, where the largest is "
        f"{highest:.2g}{amount}. Training has stopped before a minimum."
    )


def _minimum(of: Evidence) -> str:
    known = ("gradient_p_value", "gradient_fall", "lambda_min", "negative_fall")
    if any(of.value(name) is None for name in known):
        return ""
    return (
        "θ is a minimum as far as these examples can tell: neither along the gradient nor along "
        "the direction of most negative curvature does the loss fall by an amount that counts."
    )
