"""How large the activations of a forward pass are."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mining.functional.calls import CallMode, TorchFunction
from mining.functional.fuse_batchnorm import tensors_in
from mining.functional.pytrees import num_examples, tensors_of
from mining.functional.substitution import Forward


def measure_activation(forward: Forward, inputs: Any, held: Mapping[str, Tensor]) -> int:
    """Measure the largest tensor that a forward pass makes, in bytes an example.

    Args:
        forward: Runs the model.
        inputs: Few examples.
        held: The parameters, of which views do not count.
    """
    measured = _Measuring(num_examples(inputs), [*tensors_of(inputs), *held.values()])
    with measured:
        forward(inputs)
    return measured.largest


class _Measuring(CallMode):
    """Notes the largest tensor made, in bytes an example.

    Args:
        num: Examples of the pass.
        held: Tensors that were there before; views of them do not count.
    """

    def __init__(self, num: int, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.largest: int = 0
        self._num = num
        self._held = {tensor.untyped_storage().data_ptr() for tensor in held}

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at what the function returns."""
        found = function(*args, **kwargs)
        for tensor in tensors_in([found]):
            if tensor.untyped_storage().data_ptr() not in self._held:
                self.largest = max(self.largest, tensor.nbytes // self._num)
        return found
