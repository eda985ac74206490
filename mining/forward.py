"""How a model is run: as it stands, or in a way that is faster and gives the same."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mining.batchnorm import modes
from mining.compiled import CompiledForward
from mining.first_layer import FirstLayer
from mining.folding import Folding
from mining.substitution import Substitution

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor]

#: Bytes of the largest activation of one pass on a CPU; some of them fit its caches together.
_CACHED = 4 * 2**20
_FEWEST, _MOST = 16, 4096  # examples of one pass that follow from it


@dataclass(frozen=True)
class Path:
    """The way in which a model is run.

    Args:
        micro_batch: Examples of one pass; ``None`` takes a batch as it is.
        channels_last: Whether images lie with their channels last in memory.
        folding: Which batch norms run as part of the layer before them.
        first_layer: A linear layer on the inputs, whose products many points can share.
        compiled: Runs the forward pass as one compiled function; ``None`` does not.
    """

    micro_batch: int | None = None
    channels_last: bool = False
    folding: Folding = field(default_factory=Folding)
    first_layer: FirstLayer | None = None
    compiled: CompiledForward | None = None

    def prepare(self, inputs: Tensor) -> Tensor:
        """Lay inputs out in memory as this path takes them."""
        if self.channels_last and inputs.dim() == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def bind(
        self, forward: Forward, tensors: Mapping[str, Tensor], substitution: Substitution
    ) -> Forward:
        """Give a function that computes what ``forward`` does, on this path.

        Args:
            forward: Runs the model, in which ``tensors`` are substituted.
            tensors: Parameters and buffers by name.
            substitution: Puts tensors into the model.
        """
        plain = self.folding.fold(forward, tensors)
        if self.compiled is None:
            return plain

        def free(tensors: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            with substitution(tensors):
                return self.folding.fold(forward, tensors)(inputs)

        return self.compiled.bind(free, plain, tensors)


def find_path(
    model: nn.Module,
    forward: Forward,
    inputs: Tensor,
    tensors: Mapping[str, Tensor],
    *,
    trainable: Sequence[str],
    rounding: float,
) -> Path:
    """Find the fastest way to run a model that gives what the model gives as it stands.

    Each candidate is tried on the inputs and refused where its outputs differ by more than
    rounding: those of a model that looks at other examples of the batch, or at strides.

    Args:
        model: The model, in evaluation mode.
        forward: Runs it, with ``tensors`` substituted, in the precision that is wanted.
        inputs: A batch; its first examples are enough.
        tensors: Parameters and buffers by name.
        trainable: Names of the parameters among them that will vary.
        rounding: How far outputs may differ, relative to the largest of them.

    Returns:
        The path, ``Path()`` if there is none but the model as it stands. On a CPU a pass takes as
        many examples as fit its caches, on a GPU a whole batch.
    """
    try:
        return _find_path(model, forward, inputs, tensors, trainable, rounding)
    except RuntimeError as error:
        # The whole batch went through before: the model insists on its size.
        log.info("The model is run as it stands, on whole batches: %s", _first_line(error))
        return Path()


def _find_path(
    model: nn.Module,
    forward: Forward,
    inputs: Tensor,
    tensors: Mapping[str, Tensor],
    trainable: Sequence[str],
    rounding: float,
) -> Path:
    micro_batch = _fitting(forward, inputs) if inputs.device.type == "cpu" else None
    sample = inputs if micro_batch is None else inputs[: micro_batch + micro_batch // 2 + 1]
    expected = forward(sample)
    if not _equal(forward(sample), expected, rounding):
        log.info("The model gives something else each time it runs: it is run as it stands.")
        return Path()
    folding = Folding.of(forward, sample[:2], tensors)
    first_layer = FirstLayer.of(forward, sample[:2], {name: tensors[name] for name in trainable})
    candidates = [
        Path(micro_batch, folding=folding, first_layer=first_layer),
        Path(micro_batch, first_layer=first_layer),
    ]
    if takes_channels_last(model, sample):
        candidates.insert(0, Path(micro_batch, channels_last=True, folding=folding))
    # Cut in two however large a pass may be: later batches can be larger.
    parts = torch.split(sample, -(-2 * len(sample) // 3))
    for path in candidates:
        run = path.folding.fold(forward, tensors)
        found = torch.cat([run(path.prepare(part)) for part in parts])
        if _equal(found, expected, rounding):
            return path
        log.info("Not run with %s: the outputs differ.", _describe(path))
    return Path()


@torch.no_grad()
def takes_channels_last(model: nn.Module, inputs: Tensor) -> bool:
    """Whether a model has convolutions and runs on images with their channels last in memory.

    Convolutions are then faster, by up to a third in training on a CPU.

    Args:
        model: The model; its modes and buffers stay as they are.
        inputs: Images, shape ``(B, C, H, W)``; anything else is none.
    """
    if inputs.dim() != 4 or not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return False
    try:
        with modes(model, batch_statistics=False):
            model(inputs[:2].contiguous(memory_format=torch.channels_last))
    except RuntimeError as error:  # view() of a tensor whose channels lie last
        log.info("Channels stay first: %s", _first_line(error))
        return False
    return True


def _equal(found: Tensor, expected: Tensor, rounding: float) -> bool:
    scale = expected.nan_to_num(0, 0, 0).abs().max()
    return torch.allclose(found, expected, rtol=0, atol=rounding * float(scale), equal_nan=True)


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]


def _describe(path: Path) -> str:
    words = [f"{path.micro_batch} examples a pass"]
    words += ["channels last"] * path.channels_last
    words += [f"{len(path.folding)} folded batch norms"] * bool(path.folding)
    return ", ".join(words)


def _fitting(forward: Forward, inputs: Tensor) -> int:
    """Find how many examples fit the caches, by the largest activation of one."""
    with _Measuring(inputs[:2]) as measured:
        forward(inputs[:2])
    fit = _CACHED // max(measured.largest, 1)
    power: int = 2 ** int(math.log2(max(fit, 1)))
    return max(_FEWEST, min(_MOST, power))


class _Measuring(TorchFunctionMode):
    """Notes the largest tensor made, in bytes an example; inputs do not count."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.largest = 0
        self._num = len(inputs)
        self._inputs = inputs.untyped_storage().data_ptr()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Look at what the function returns."""
        found = function(*args, **(kwargs or {}))
        if (
            isinstance(found, Tensor)
            and found.dim() > 0
            and len(found) == self._num
            and found.untyped_storage().data_ptr() != self._inputs
        ):
            self.largest = max(self.largest, found.numel() * found.element_size() // self._num)
        return found
