"""What a training minimizes: cross-entropy on shuffled examples."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining.data import Dataset
from mining.functional.execution_plan import takes_channels_last
from mining.training.augmentation import crop_and_flip
from mining.training.loop import DivergenceError, Objective
from mining.training.settings import TrainingSettings

#: Training has diverged when the mean loss of an epoch exceeds this multiple of the first.
_LEFT_SCALE = 10.0


class Classification(Objective[tuple[Tensor, Tensor]]):
    """Cross-entropy of a model on shuffled training examples."""

    task = "train"
    refusal = (
        "holds another training: with other settings, another model, seed or initialization, or on "
        "other data. Give every training a directory of its own, or remove the files of that one."
    )

    def __init__(
        self, model: nn.Module, dataset: Dataset, settings: TrainingSettings, seed: int
    ) -> None:
        self.model, self._settings = model, settings
        self._examples = dataset.split("train")
        self._test = None if dataset.test is None else dataset.test.batches(settings.batch_size)
        self.device = self._examples.inputs.device
        self._order = torch.Generator().manual_seed(seed)
        self._augmentation = torch.Generator(self.device).manual_seed(seed)
        channels_last = takes_channels_last(model, self._examples.inputs)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._first: Tensor | None = None  # loss of the first batch of the epoch
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.float64, device=self.device)

    @property
    def variables(self) -> list[Tensor]:
        """See ``Objective``."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def modules(self) -> list[nn.Module]:
        """See ``Objective``."""
        return [self.model]

    @property
    def generators(self) -> list[torch.Generator]:
        """See ``Objective``."""
        return [self._order, self._augmentation]

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Objective``."""
        self._start_epoch()
        order = torch.randperm(len(self._examples), generator=self._order).to(self.device)
        self.model.train()
        # Nearly equal batches: a last one of a single example would break batch norm.
        for chosen in order.tensor_split(-(-len(order) // self._settings.batch_size)):
            inputs, labels = self._examples.inputs[chosen], self._examples.labels[chosen]
            if self._settings.augment:
                inputs = crop_and_flip(inputs, self._augmentation)
            yield inputs.contiguous(memory_format=self._layout), labels

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """See ``Objective``."""
        inputs, labels = batch
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._settings.bf16):
            outputs = self.model(inputs)
        loss = F.cross_entropy(outputs.float(), labels)
        if self._first is None:
            self._first = loss.detach()
        self._loss_sum += loss.detach().double() * len(labels)
        self._correct += (outputs.argmax(1) == labels).sum()
        return loss

    def end_epoch(self, history: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """See ``Objective``."""
        assert self._first is not None
        row = {
            "first_loss": float(self._first),
            "train_loss": float(self._loss_sum) / len(self._examples),
            "train_accuracy": float(self._correct) / len(self._examples),
        }
        if self._test is not None:
            found = evaluate(self.model, self._test)
            row |= {f"test_{name}": value for name, value in found.items()}
        self._check(row, [*history, row][0]["first_loss"], len(history) + 1)
        return row

    def _check(self, row: Mapping[str, float], first: float, epoch: int) -> None:
        """Raise if the epoch left the scale of the first batch, or anything overflowed."""
        values = (row["train_loss"], row.get("test_loss", 0.0))
        tensors = self.model.state_dict().values()
        if not (
            values[0] <= _LEFT_SCALE * first
            and all(map(math.isfinite, values))
            and all(bool(tensor.isfinite().all()) for tensor in tensors)
        ):
            raise DivergenceError(
                f"Training diverged in epoch {epoch}: loss {values[0]:.3g} after {first:.3g} at "
                f"the start. Lower train.lr ({self._settings.lr}) or train.momentum "
                f"({self._settings.momentum})."
            )

    def shown(self, row: Mapping[str, float]) -> dict[str, str]:
        """See ``Objective``."""
        return {k: f"{row[k]:.3f}" for k in ("train_loss", "test_accuracy") if k in row}

    def state_dict(self) -> dict[str, Any]:
        """See ``Objective``."""
        cuda = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "order": self._order.get_state(),
            "augmentation": self._augmentation.get_state(),
            # From the global generators dropout and its like draw.
            "dropout": [torch.get_rng_state()]
            + ([torch.cuda.get_rng_state(self.device)] if cuda else []),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``Objective``."""
        self.model.load_state_dict(state["model"])
        self._order.set_state(state["order"].cpu())
        self._augmentation.set_state(state["augmentation"].cpu())
        torch.set_rng_state(state["dropout"][0].cpu())
        for cuda in state["dropout"][1:]:
            torch.cuda.set_rng_state(cuda.cpu(), self.device)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Compute the mean ``loss`` (cross-entropy, nats) and the ``accuracy`` in eval mode.

    The model is left in eval mode.
    """
    model.eval()
    count = sum(len(labels) for _, labels in batches)
    loss = correct = torch.zeros((), dtype=torch.float64, device=batches[0][0].device)
    for inputs, labels in batches:
        outputs = model(inputs)
        loss = loss + F.cross_entropy(outputs, labels, reduction="sum").double()
        correct = correct + (outputs.argmax(1) == labels).sum()
    return {"loss": float(loss) / count, "accuracy": float(correct) / count}
