"""Training that leaves checkpoints and can be interrupted."""

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import InputError
from mining.data import Dataset
from mining.functional.batchnorm import modes
from mining.functional.execution_plan import takes_channels_last
from mining.storage.files import write_atomically
from mining.storage.fingerprint import Fingerprint, describe, rounding_of
from mining.training.augmentation import crop_and_flip
from mining.training.loop import Callback, DivergenceError, Loop, LossHook, Objective
from mining.training.settings import TrainingSettings

#: Training has diverged when the mean loss of an epoch exceeds this multiple of the first.
_LEFT_SCALE = 10.0


class _Classification(Objective[tuple[Tensor, Tensor]]):
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
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def modules(self) -> list[nn.Module]:
        return [self.model]

    @property
    def generators(self) -> list[torch.Generator]:
        return [self._order, self._augmentation]

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
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
        assert self._first is not None
        row = {
            "first_loss": float(self._first),
            "train_loss": float(self._loss_sum) / len(self._examples),
            "train_accuracy": float(self._correct) / len(self._examples),
        }
        if self._test is not None:
            row |= _test(self.model, self._test)
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
        return {k: f"{row[k]:.3f}" for k in ("train_loss", "test_accuracy") if k in row}

    def state_dict(self) -> dict[str, Any]:
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
        self.model.load_state_dict(state["model"])
        self._order.set_state(state["order"].cpu())
        self._augmentation.set_state(state["augmentation"].cpu())
        torch.set_rng_state(state["dropout"][0].cpu())
        for cuda in state["dropout"][1:]:
            torch.cuda.set_rng_state(cuda.cpu(), self.device)


def checkpoint_path(directory: Path, epoch: int) -> Path:
    """Name the checkpoint kept after ``epoch`` in a training's directory."""
    return directory / f"epoch_{epoch:04d}.pt"


def save_initialization(model: nn.Module, path: Path) -> None:
    """Write a model as it is before training, as the checkpoint of epoch 0."""
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "epoch": 0}, buffer)
    write_atomically(path, buffer.getbuffer())


def train(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    directory: Path,
    *,
    seed: int,
    progress: bool = True,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    loss_hook: LossHook | None = None,
) -> pd.DataFrame:
    """Train ``model`` in place with cross-entropy, and keep checkpoints.

    A training that was killed goes on from the last state on disk, and ends with the same
    weights as one that was not. That state, ``resume.pt``, stays: delete it when the result is
    safe. It knows its training by settings, seed, data and the initialization of the model.

    Args:
        model: The initialized model, on the device of the data, also of a training that goes on.
        dataset: Training and test examples, on one device.
        settings: The recipe.
        directory: Gets ``epoch_<epoch>.pt`` (model, optimizer moments, epoch, metrics) for every
            kept epoch and ``history.csv``.
        seed: Of the order of examples, of augmentation and of dropout. The global generators
            are afterwards as they were. On one machine and with one number of CPU threads the
            same seed gives the same weights.
        progress: Whether to draw a progress bar on stderr.
        overwrite: Whether checkpoints and the history of another training that lie in
            ``directory`` are replaced.
        callbacks: Called with the ``Loop`` after each epoch. They cannot change the training: what
            they do to the model, the optimizer and random numbers is undone.
        loss_hook: Takes the loss of a step, shape ``()``, and its batch (inputs and labels), and
            returns the loss that is minimized. Reported are the losses without it. The state on
            disk knows the code of the hook, but not the attributes of an object.

    Returns:
        A row per epoch: ``epoch``, ``lr``, ``train_loss`` and ``train_accuracy`` (means over the
        epoch, while weights change), ``test_loss`` and ``test_accuracy`` (at its end, where there
        are test examples), ``seconds``.

    Raises:
        DivergenceError: If the mean loss of an epoch exceeds ten times that of the first batch,
            or it, a weight or the test loss overflows. The checkpoints of this training, and no
            other files, are deleted then.
        InputError: If ``directory`` has the state of another training, or a file would be
            overwritten that this training did not write.
    """
    objective = _Classification(model, dataset, settings, seed)
    keep = _Keeper(objective, settings, directory)
    loop = Loop(
        objective,
        settings,
        path=directory / "resume.pt",
        mark=_identify(model, dataset, settings, seed, loss_hook),
        callbacks=(keep, *callbacks),
        loss_hook=loss_hook,
    )
    with torch.random.fork_rng([objective.device] if objective.device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout knows no other generator
        if not loop.resume():
            if not overwrite:
                _check_unused(directory, settings)
            if 0 in settings.kept_epochs:
                keep.checkpoint(loop)
        try:
            loop.run(progress=progress)
        except DivergenceError:
            keep.remove(loop.epoch)
            raise
    return _table(loop.history)


@dataclass(frozen=True)
class _Keeper:
    """Writes the history after each epoch, and the checkpoints that are kept."""

    objective: _Classification
    settings: TrainingSettings
    directory: Path

    def __call__(self, loop: Loop[Any]) -> None:
        history = _table(loop.history).to_csv(index=False)
        write_atomically(self.directory / "history.csv", history)
        if loop.epoch in self.settings.kept_epochs:
            self.checkpoint(loop)
            loop.save()

    def checkpoint(self, loop: Loop[Any]) -> None:
        """Write the checkpoint of the last finished epoch."""
        buffer = io.BytesIO()
        content = {
            "model": self.objective.model.state_dict(),
            "optimizer": loop.optimizer.state_dict(),
            "epoch": loop.epoch,
            "metrics": loop.history[-1] if loop.history else {},
        }
        torch.save(content, buffer)
        write_atomically(checkpoint_path(self.directory, loop.epoch), buffer.getbuffer())

    def remove(self, epoch: int) -> None:
        """Delete the checkpoints up to ``epoch``, and the state."""
        for kept in self.settings.kept_epochs:
            if kept <= epoch:
                checkpoint_path(self.directory, kept).unlink(missing_ok=True)
        (self.directory / "resume.pt").unlink(missing_ok=True)


def _identify(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    seed: int,
    loss_hook: LossHook | None,
) -> Fingerprint:
    """Digest what decides the weights: recipe, seed, initial model and data.

    The loss of the model as it is tells apart what its description and tensors do not.
    """
    digest = hashlib.sha256(repr((settings, seed, model)).encode())
    if loss_hook is not None:
        digest.update(repr(describe(loss_hook)).encode())
    splits = [split for split in (dataset.train, dataset.test) if split is not None]
    tensors = [tensor for split in splits for tensor in (split.inputs, split.labels)]
    state = [value for value in model.state_dict().values() if isinstance(value, Tensor)]
    for tensor in state + tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().data)
    inputs, labels = (tensor[:16].clone() for tensor in tensors[:2])
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    cuda = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), modes(model, batch_statistics=False), torch.no_grad():
        torch.manual_seed(0)  # of a model that draws random numbers
        loss = float(F.cross_entropy(model(inputs).float(), labels))
        for name, buffer in model.named_buffers():  # one may count its passes
            buffer.copy_(buffers[name])
    return Fingerprint(digest.hexdigest(), (loss,), rounding_of(torch.float32, coarse=False))


def _check_unused(directory: Path, settings: TrainingSettings) -> None:
    """Raise ``InputError`` if a training in ``directory`` would overwrite something."""
    paths = [checkpoint_path(directory, epoch) for epoch in settings.kept_epochs]
    existing = [path.name for path in (*paths, directory / "history.csv") if path.exists()]
    if existing:
        raise InputError(
            f"directory: {directory} already has {', '.join(existing)}, and no resume.pt to "
            "continue from. Give every training a directory of its own, or overwrite=True."
        )


def _table(history: list[dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(history).drop(columns="first_loss").astype({"epoch": int})


@torch.no_grad()
def _test(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    model.eval()
    count = sum(len(labels) for _, labels in batches)
    loss = correct = torch.zeros((), dtype=torch.float64, device=batches[0][0].device)
    for inputs, labels in batches:
        outputs = model(inputs)
        loss = loss + F.cross_entropy(outputs, labels, reduction="sum").double()
        correct = correct + (outputs.argmax(1) == labels).sum()
    return {"test_loss": float(loss) / count, "test_accuracy": float(correct) / count}
