"""Multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from mining import InputError


@final
class MLP(nn.Module):
    """Flatten, then linear layers with ReLU between them.

    With 3×32×32 inputs, ``hidden=(128,)`` and 10 classes it is the MLP of Xu et al. (2024), Sec. 3.

    Args:
        input_shape: Shape ``(C, H, W)`` of one input.
        num_classes: Number of outputs.
        hidden: Width of each hidden layer, units; () = a linear classifier.

    Raises:
        InputError: If a width is not positive.
    """

    def __init__(
        self, input_shape: tuple[int, int, int], num_classes: int, hidden: Sequence[int] = (128,)
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise InputError(f"hidden must be positive widths, got {list(hidden)}.")
        channels, height, width = input_shape
        sizes = [channels * height * width, *hidden, num_classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.layers(inputs)
        return logits
