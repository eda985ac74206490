"""A forward pass as one compiled function of parameters, buffers and inputs."""

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from mining import InputError
from mining.functional.loss import Batch, Loss
from mining.functional.memory import is_out_of_memory
from mining.functional.rounding import nearly_equal
from mining.functional.substitution import Forward

log = logging.getLogger(__name__)

#: A forward pass with parameters and buffers as its first argument.
FreeForward = Callable[[Mapping[str, Tensor], Tensor], Tensor]


class CompiledForward:
    """Compiles the forward pass of one model for the shape that it meets first.

    Other shapes, and passes that are differentiated, run as they are. The pass is traced into one
    graph, whatever modules and modes it goes through. Compiling takes 10 to 60 s; on a CPU a pass
    is then a tenth to a fifth faster.

    Args:
        rounding: How far compiled outputs may differ, relative to the largest of them.
    """

    def __init__(self, rounding: float) -> None:
        self._rounding = rounding
        self._key: tuple[object, ...] | None = None
        self._function: FreeForward | None = None
        #: Whether the loss was seen to be the same after a compiled pass.
        self.checked = False

    def check_loss(self, loss_fn: Loss, compiled: Forward, plain: Forward, batch: Batch) -> None:
        """Raise ``InputError`` if the loss needs what a compiled pass does not leave behind.

        Hooks do not run in it, and attributes are not set.

        Args:
            loss_fn: The loss.
            compiled: The compiled forward pass.
            plain: The same as it stands.
            batch: Examples.
        """
        outputs = plain(batch.inputs)
        expected = loss_fn(outputs, batch.targets)
        plain(batch.inputs[:1].expand_as(batch.inputs))  # leaves something else behind
        compiled(batch.inputs)
        if not nearly_equal(loss_fn(outputs, batch.targets), expected, self._rounding):
            raise InputError(
                "compile=true: the loss reads attributes that the forward pass stores in the "
                "model, and a compiled forward pass stores none. Leave compile out."
            )
        self.checked = True

    def bind(self, free: FreeForward, plain: Forward, tensors: Mapping[str, Tensor]) -> Forward:
        """Give a function that computes what ``plain`` does.

        Args:
            free: The forward pass as a function of its tensors too.
            plain: The same with ``tensors``.
            tensors: Parameters and buffers by name.

        Raises:
            InputError: When it is called, if the model cannot be compiled or gives something
                else then.
        """

        def run(inputs: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                return plain(inputs)
            key = (inputs.shape, inputs.stride(), inputs.dtype)
            if self._key is None:
                self._key, self._function = key, self._compile(free, plain, tensors, inputs)
            if key != self._key or self._function is None:
                return plain(inputs)
            return self._function(tensors, inputs)

        return run

    def _compile(
        self, free: FreeForward, plain: Forward, tensors: Mapping[str, Tensor], inputs: Tensor
    ) -> FreeForward:
        tensors, expected = dict(tensors), plain(inputs)
        try:
            graph = make_fx(free, tracing_mode="fake", _allow_non_fake_inputs=True)(tensors, inputs)
            compiled: FreeForward = torch.compile(graph, dynamic=False)
            found = compiled(tensors, inputs)
        except (RuntimeError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"compile=true: the model cannot be compiled: {reason}") from error
        if not nearly_equal(found, expected, self._rounding):
            raise InputError(
                "compile=true: the outputs of the compiled model differ from those of the model. "
                "Leave compile out."
            )
        log.info("Compiled the forward pass for inputs %s", tuple(inputs.shape))
        return compiled
