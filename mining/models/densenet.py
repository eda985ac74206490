"""Densely connected networks for images of 32×32 pixels."""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from mining import InputError


@final
class DenseNet(nn.Module):
    """A 3×3 stem and three dense blocks, each layer of which sees all outputs before it.

    Huang et al. (2017), Densely Connected Convolutional Networks, Sec. 3, without bottlenecks and
    without compression.

    Args:
        input_shape: Shape ``(C, H, W)`` of one input, at least 4×4 pixels.
        num_classes: Number of outputs.
        depth: Layers with weights, ``3n + 4`` for ``n`` layers per block: 7, 10, …, 22, 40.
        growth: Channels that each layer adds.

    Raises:
        InputError: If ``depth`` is not ``3n + 4``, ``growth`` not positive, or the inputs too
            small.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        depth: int = 40,
        growth: int = 12,
    ) -> None:
        super().__init__()
        if depth < 7 or depth % 3 != 1:
            raise InputError(f"depth must be 3n + 4 (7, 10, 13, 22, 40, 100 …), got {depth}.")
        if growth < 1:
            raise InputError(f"growth must be positive, got {growth}.")
        if min(input_shape[1:]) < 4:
            raise InputError(f"input_shape must be at least 4×4 pixels, got {input_shape}.")
        channels = 16  # of the stem, as in the paper
        self.stem = nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for number in range(3):
            if number:
                blocks.append(_Transition(channels))
            for _ in range((depth - 4) // 3):
                blocks.append(_Layer(channels, growth))
                channels += growth
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        features = functional.relu(self.norm(self.blocks(self.stem(inputs))))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


@final
class _Layer(nn.Module):
    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, self.conv(functional.relu(self.norm(inputs)))], 1)


@final
class _Transition(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(inputs))), 2)
