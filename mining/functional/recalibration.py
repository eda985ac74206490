"""What a batch-norm policy changes at θ itself."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from mining.functional.batches import mixed, pick_examples, random_order
from mining.functional.batchnorm import norm_layers, recalibrate, recalibration_batch_size
from mining.functional.loss import Batch, Loss
from mining.functional.metrics import MeanMetrics
from mining.functional.network import Network
from mining.functional.precision import products_in
from mining.functional.pytrees import num_examples, signature
from mining.ranks import ONE, Ranks

log = logging.getLogger(__name__)

#: Examples on which losses are compared, and parts of them whose spread gives the error.
_COMPARED, _PARTS = 1024, 32
#: Differences below this share of the loss show in no curve.
_NEGLIGIBLE = 0.02


class Statistics:
    """Batch-norm statistics at any point, those of θ computed once.

    Args:
        network: Runs the model under its policy.
        loss_fn: The loss.
        batches: The examples of the loss.
        inputs: Batches of inputs on which statistics are estimated.
    """

    def __init__(
        self, network: Network, loss_fn: Loss, batches: Sequence[Batch], inputs: Sequence[Any]
    ) -> None:
        self.inputs = inputs
        self._network, self._loss_fn, self._batches = network, loss_fn, batches
        # Of θ, by its version and by how many ranks estimated them.
        self._kept: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._compared: list[PolicyEffect | None] = []

    def at(self, theta: Tensor, group: Ranks = ONE) -> dict[str, Tensor]:
        """Give the buffers with which to evaluate at ``theta``.

        Args:
            theta: Shape ``(D,)``.
            group: Ranks that share the examples, which round otherwise than one.
        """
        network = self._network
        if theta is not network.theta or torch.is_inference_mode_enabled():
            return estimate_statistics(network, theta, self.inputs, group)
        key = (theta._version, group.size)
        if key not in self._kept:
            current = {known: kept for known, kept in self._kept.items() if known[0] == key[0]}
            self._kept = current | {key: estimate_statistics(network, theta, self.inputs, group)}
        return {name: buffer.clone() for name, buffer in self._kept[key].items()}

    @property
    def effect(self) -> "PolicyEffect | None":
        """What ``compare`` found, ``None`` before its first call too."""
        return self._compared[0] if self._compared else None

    def compare(self) -> "PolicyEffect | None":
        """Compare the loss at θ with that of ``model.eval()``; the first call may log a warning."""
        if not self._compared:
            network, effect = self._network, None
            if network.policy.mode != "frozen" and _has_statistics(network.model):
                buffers = self.at(network.theta)
                effect = policy_effect(network, self._loss_fn, self._batches, buffers)
            self._compared.append(effect)
            if effect is not None and effect.matters:
                log.warning("%s", effect.describe(network.policy.mode))
        return self.effect

    def mismatch(self) -> "PolicyEffect | None":
        """Compare the loss at θ with recalibrated statistics with that of ``model.eval()``.

        Whatever the policy. Under another than ``recalibrate`` statistics are estimated on the
        examples of the loss. ``None`` if no layer keeps statistics.
        """
        network = self._network
        if not any(layer.running_mean is not None for layer in norm_layers(network.model)):
            return None
        if network.recalibrates:
            buffers = self.at(network.theta)
        else:
            network = network.with_recalibration()
            held = [batch.inputs for batch in self._batches]
            inputs = mixed(held, recalibration_batch_size(max(map(num_examples, held))))
            buffers = estimate_statistics(network, network.theta, inputs)
        return policy_effect(network, self._loss_fn, self._batches, buffers)


def estimate_statistics(
    network: Network, theta: Tensor, inputs: Sequence[Any], group: Ranks = ONE
) -> dict[str, Tensor]:
    """Give buffers with which to evaluate at ``theta``.

    Args:
        network: Runs the model under its policy.
        theta: Shape ``(D,)``.
        inputs: Batches of inputs on which ``recalibrate`` estimates.
        group: The ranks that share them.
    """
    buffers = network.copy_buffers()
    if network.policy.mode == "recalibrate":
        with (
            torch.set_grad_enabled(network.needs_graph),
            network.substitution(network.tensors(theta, buffers)),
            products_in(network.theta.device, tf32=network.tf32),
        ):
            seeds = count()

            def forward(batch: Any) -> Tensor:
                with network.noise(next(seeds)):
                    return network.forward(batch)

            recalibrate(network.model, group.share(inputs), forward, group)
    return buffers


@dataclass(frozen=True)
class PolicyEffect:
    """The loss at θ under a batch-norm policy and with the statistics stored in the model."""

    loss: float
    stored_loss: float
    standard_error: float  # of the difference; nan where there is one batch only
    num_examples: int

    @property
    def losses(self) -> dict[str, float]:
        """Both losses, by what they are evaluated with."""
        return {"under_the_policy": self.loss, "in_eval_mode": self.stored_loss}

    @property
    def matters(self) -> bool:
        """Whether the two differ by more than two standard errors and 2 % of the loss."""
        if not math.isfinite(self.stored_loss):
            return False
        difference = abs(self.loss - self.stored_loss)
        if not math.isfinite(difference):
            return True
        error = 0.0 if math.isnan(self.standard_error) else self.standard_error
        larger = max(abs(self.loss), abs(self.stored_loss))
        return difference > max(2 * error, _NEGLIGIBLE * larger)

    def describe(self, mode: str) -> str:
        """Say in one line what differs, why that may be, and what to do."""
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2g}"
        return (
            f"The loss at theta is {self.loss:.4g} under batchnorm={mode} and "
            f"{self.stored_loss:.4g} with the statistics stored in the model, as in model.eval() "
            f"(difference {self.loss - self.stored_loss:.2g}{error}, {self.num_examples} "
            "examples). Usual causes: training images that were augmented, padded or normalized "
            "otherwise; another batch size in training; few examples to recalibrate on. With "
            "batchnorm=frozen the loss is that of model.eval()."
        )


@torch.no_grad()
def policy_effect(
    network: Network,
    loss_fn: Loss,
    batches: Sequence[Batch],
    statistics: dict[str, Tensor],
) -> PolicyEffect | None:
    """Compare the loss at θ under the policy with that of the stored statistics.

    Args:
        network: Runs the model under its policy.
        loss_fn: The loss.
        batches: The examples; a random 1,024 of more.
        statistics: The buffers of the policy at θ.

    Returns:
        Both losses; ``None`` if all targets are ignored.
    """
    parts = _parts(network, loss_fn, batches)
    if not parts:  # all targets are ignored
        return None
    plain = network.with_stored_statistics()
    total = sum(batch.num_examples for batch in batches)
    differences, losses = [], []
    for batch in parts:
        pair = []
        for runs, buffers in ((network, statistics), (plain, plain.copy_buffers())):
            metrics = MeanMetrics(loss_fn, [batch], classes=False)
            runs.measure(metrics, network.theta, [batch], buffers)
            scale = total / batch.num_examples if loss_fn.sums else 1.0
            pair.append(float(metrics.mean().loss) * scale)
        losses.append(pair)
        differences.append(pair[0] - pair[1])
    sizes = [batch.num_examples if loss_fn.sums else batch.weight for batch in parts]
    weights = torch.tensor(sizes, dtype=torch.float64)
    weights /= weights.sum()
    means = weights @ torch.tensor(losses, dtype=torch.float64)
    spread = torch.tensor(differences, dtype=torch.float64) - (means[0] - means[1])
    error = math.nan
    if len(parts) > 1:
        variance = (weights**2 * spread**2).sum() * len(parts) / (len(parts) - 1)
        error = float(variance.sqrt())
    return PolicyEffect(
        float(means[0]), float(means[1]), error, sum(batch.num_examples for batch in parts)
    )


def _parts(network: Network, loss_fn: Loss, batches: Sequence[Batch]) -> list[Batch]:
    """Take at most 1,024 examples, in parts that can be compared."""
    micro_batch = network.plan.micro_batch
    if micro_batch is None or len({signature(batch.inputs) for batch in batches}) > 1:
        parts, missing = [], _COMPARED
        for number in random_order(len(batches)).tolist():
            if missing > 0 and batches[number].weight > 0:
                parts.append(batches[number])
                missing -= batches[number].num_examples
        return parts
    total = sum(num_examples(batch.inputs) for batch in batches)
    chosen = random_order(total)[:_COMPARED].sort().values
    inputs, targets = pick_examples(batches, chosen)
    sample = loss_fn.batch(inputs, targets)
    size = max(1, min(len(chosen) // _PARTS, micro_batch))
    return [part for part in loss_fn.split([sample], size) if part.weight > 0]


def _has_statistics(model: nn.Module) -> bool:
    """Whether some layer has other statistics than those it was made with."""
    return any(
        bool((layer.running_mean != 0).any() or (layer.running_var != 1).any())
        for layer in norm_layers(model)
        if layer.running_mean is not None and layer.running_var is not None
    )
