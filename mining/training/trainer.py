"""Training that leaves checkpoints and can be interrupted."""

import hashlib
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from mining import InputError
from mining.data import Dataset, Split
from mining.functional.batchnorm import modes
from mining.functional.execution_plan import takes_channels_last
from mining.storage.checkpoints import read_tensors
from mining.storage.files import write_atomically
from mining.storage.fingerprint import Fingerprint, rounding_of
from mining.training.augmentation import crop_and_flip
from mining.training.optimization import learning_rate, make_optimizer
from mining.training.settings import TrainingSettings

#: Seconds between two saves of the state from which a killed training resumes.
_SAVE_INTERVAL = 20.0


class DivergenceError(ArithmeticError):
    """The loss left its scale during training."""


@dataclass
class _State:
    """Everything that an interrupted training needs to go on as if nothing had happened."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    order: torch.Generator  # of the examples, on the CPU
    augmentation: torch.Generator  # on the device
    channels_last: bool  # whether the model takes images with their channels last in memory
    mark: Fingerprint  # which training it is
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # a row per finished epoch
    written: list[str] = field(default_factory=list)  # names of the files of this training

    def save(self, path: Path) -> None:
        self.written = sorted({*self.written, path.name})
        buffer = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "metrics": self.history[-1] if self.history else {},
                "history": self.history,
                "order": self.order.get_state(),
                "augmentation": self.augmentation.get_state(),
                "dropout": self._global_states(),
                "written": self.written,
                "mark": str(self.mark),
            },
            buffer,
        )
        write_atomically(path, buffer.getbuffer())

    def load(self, path: Path) -> None:
        content = read_tensors(path)
        if not isinstance(content, dict) or not self.mark.matches(content.get("mark")):
            raise InputError(
                f"{path} holds another training: with other settings, another model, seed or "
                "initialization, or on other data. Give every training a directory of its own, "
                "or remove the files of that one."
            )
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.order.set_state(content["order"].cpu())
        self.augmentation.set_state(content["augmentation"].cpu())
        self.epoch, self.history = content["epoch"], content["history"]
        self.written = content["written"]
        torch.set_rng_state(content["dropout"][0].cpu())
        for state in content["dropout"][1:]:
            torch.cuda.set_rng_state(state.cpu(), self.device)

    def _global_states(self) -> list[Tensor]:
        """Return the states of the global generators, from which dropout and its like draw."""
        states = [torch.get_rng_state()]
        return states + (
            [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        )


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
    examples = dataset.split("train")
    device = examples.inputs.device
    trainable = [p for p in model.parameters() if p.requires_grad]
    state = _State(
        model,
        make_optimizer(settings, trainable),
        device,
        torch.Generator().manual_seed(seed),
        torch.Generator(device).manual_seed(seed),
        takes_channels_last(model, examples.inputs),
        _identify(model, dataset, settings, seed),
    )
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False),
    ):
        torch.manual_seed(seed)  # dropout knows no other generator
        resume = directory / "resume.pt"
        if resume.exists():
            state.load(resume)
        else:
            if not overwrite:
                _check_unused(directory, settings)
            if 0 in settings.kept_epochs:
                state.save(checkpoint_path(directory, 0))
        _run_epochs(state, dataset, settings, directory, progress=progress)
    return _table(state.history)


def _identify(
    model: nn.Module, dataset: Dataset, settings: TrainingSettings, seed: int
) -> Fingerprint:
    """Digest what decides the weights: recipe, seed, initial model and data.

    The loss of the model as it is tells apart what its description and tensors do not.
    """
    digest = hashlib.sha256(repr((settings, seed, model)).encode())
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
            f"directory: {directory} already has {', '.join(existing)}, and no resume.pt to go "
            "on from. Give every training a directory of its own, or overwrite=True."
        )


def _run_epochs(
    state: _State, dataset: Dataset, settings: TrainingSettings, directory: Path, *, progress: bool
) -> None:
    """Train from the epoch of ``state`` to the last."""
    test = None if dataset.test is None else dataset.test.batches(settings.batch_size)
    saved = time.monotonic()
    bar = tqdm(
        range(state.epoch, settings.epochs),
        initial=state.epoch,
        total=settings.epochs,
        desc="train",
        unit="epoch",
        disable=not progress,
        dynamic_ncols=True,
    )
    for epoch in bar:
        started = time.monotonic()
        row = {"epoch": epoch + 1, "lr": learning_rate(settings, epoch)}
        row |= _train_epoch(state, dataset.split("train"), settings, row["lr"])
        if test is not None:
            row |= _test(state.model, test)
        row["seconds"] = time.monotonic() - started
        state.history.append(row)
        state.epoch = epoch + 1
        if _diverged(state):
            for name in state.written:
                (directory / name).unlink(missing_ok=True)
            raise DivergenceError(
                f"Training diverged in epoch {state.epoch}: loss {row['train_loss']:.3g} after "
                f"{state.history[0]['first_loss']:.3g} at the start. Lower train.lr "
                f"({settings.lr}) or train.momentum ({settings.momentum})."
            )
        write_atomically(directory / "history.csv", _table(state.history).to_csv(index=False))
        if state.epoch in settings.kept_epochs:
            state.save(checkpoint_path(directory, state.epoch))
        if state.epoch in settings.kept_epochs or time.monotonic() - saved > _SAVE_INTERVAL:
            state.save(directory / "resume.pt")
            saved = time.monotonic()
        shown: dict[str, object] = {
            k: f"{row[k]:.3f}" for k in ("train_loss", "test_accuracy") if k in row
        }
        bar.set_postfix(shown, refresh=False)


def _diverged(state: _State) -> bool:
    """Tell whether the last epoch left the scale of the first batch, or anything overflowed."""
    row, limit = state.history[-1], 10 * state.history[0]["first_loss"]
    values = (row["train_loss"], row.get("test_loss", 0.0))
    tensors = state.model.state_dict().values()
    return not (
        values[0] <= limit
        and all(map(math.isfinite, values))
        and all(bool(tensor.isfinite().all()) for tensor in tensors)
    )


def _table(history: list[dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(history).drop(columns="first_loss").astype({"epoch": int})


def _train_epoch(
    state: _State, examples: Split, settings: TrainingSettings, lr: float
) -> dict[str, float]:
    """Take one pass over the examples in a new order; return its means."""
    device = examples.inputs.device
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    order = torch.randperm(len(examples), generator=state.order).to(device)
    first = torch.zeros((), device=device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.float64, device=device)
    state.model.train()
    # Nearly equal batches: a last one of a single example would break batch norm.
    for step, chosen in enumerate(order.tensor_split(-(-len(order) // settings.batch_size))):
        inputs, labels = examples.inputs[chosen], examples.labels[chosen]
        if settings.augment:
            inputs = crop_and_flip(inputs, state.augmentation)
        layout = torch.channels_last if state.channels_last else torch.contiguous_format
        inputs = inputs.contiguous(memory_format=layout)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
            outputs = state.model(inputs)
        loss = F.cross_entropy(outputs.float(), labels)
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        state.optimizer.step()
        if step == 0:
            first = loss.detach()
        loss_sum += loss.detach().double() * len(chosen)
        correct += (outputs.argmax(1) == labels).sum()
    return {
        "first_loss": float(first),
        "train_loss": float(loss_sum) / len(examples),
        "train_accuracy": float(correct) / len(examples),
    }


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
