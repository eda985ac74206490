"""Training that leaves checkpoints and can be interrupted."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import InputError
from mining.data import Dataset
from mining.functional.batchnorm import modes
from mining.storage.checkpoints import load_optimizer_state, load_weights
from mining.storage.files import write_atomically
from mining.storage.fingerprint import Fingerprint, describe, rounding_of
from mining.training.classification import Classification
from mining.training.loop import Callback, DivergenceError, Loop, LossHook
from mining.training.optimization import make_optimizer
from mining.training.settings import TrainingSettings


def checkpoint_path(directory: Path, epoch: int) -> Path:
    """Name the checkpoint kept after ``epoch`` in a training's directory."""
    return directory / f"epoch_{epoch:04d}.pt"


def save_model(model: nn.Module, path: Path, epoch: int) -> None:
    """Write a model without the state of an optimizer, the initialization as epoch 0."""
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "epoch": epoch}, buffer)
    write_atomically(path, buffer.getbuffer())


def take_steps(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    checkpoint: Path,
    num: int,
    *,
    seed: int,
) -> None:
    """Take further steps of a training from one of its checkpoints, in place.

    The optimizer goes on with its moments and its learning rate. The examples are shuffled anew:
    the order that the training itself took next is not kept.

    Args:
        model: Of the architecture of the checkpoint, on the device of the data.
        dataset: The data set of the training.
        settings: Its recipe.
        checkpoint: A file that ``train`` kept, with the state of the optimizer.
        num: Mini-batches, at most one epoch of them.
        seed: Of the order of examples, of augmentation and of dropout.

    Raises:
        InputError: If there are fewer mini-batches, or the file has no state of an optimizer.
    """
    load_weights(model, checkpoint)
    objective = Classification(model, dataset, settings, seed)
    optimizer = make_optimizer(settings, objective.variables)
    optimizer.load_state_dict(load_optimizer_state(checkpoint))
    num_batches = -(-len(dataset.split("train")) // settings.batch_size)
    if not 1 <= num <= num_batches:
        raise InputError(f"step must lie between 1 and {num_batches}, one epoch, got {num}.")
    with torch.random.fork_rng([objective.device] if objective.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for batch in islice(objective.batches(0), num):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(objective.loss(batch))
            optimizer.step()


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
    objective = Classification(model, dataset, settings, seed)
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

    objective: Classification
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
