"""Residual networks for images of 32×32 pixels, with and without shortcuts."""

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from mining import InputError


@final
class CifarResNet(nn.Module):
    """A 3×3 stem and three stages of basic blocks, with parameter-free shortcuts.

    He et al. (2016), Deep Residual Learning for Image Recognition, Sec. 4.2, shortcuts of option A.
    Parameters have the names used in published CIFAR ResNets. Without shortcuts it is the
    ``NS`` network of Li et al. (2018), with the same parameters.

    Args:
        input_shape: Shape ``(C, H, W)`` of one input.
        num_classes: Number of outputs.
        depth: Number of layers with weights, ``6n + 2`` for ``n`` blocks per stage: 8, 14, 20, …
        width: Channels of the first stage; the next two have twice and four times as many.
        skip_connections: Whether a block adds its input to its output.

    Raises:
        InputError: If ``depth`` is not ``6n + 2`` or ``width`` not positive.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        depth: int = 20,
        width: int = 16,
        skip_connections: bool = True,
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"depth must be 6n + 2 (8, 14, 20, 32, 56, 110 …), got {depth}.")
        if width < 1:
            raise InputError(f"width must be positive, got {width}.")

        def stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            first = _Block(in_channels, out_channels, stride, skip_connections)
            rest = (
                _Block(out_channels, out_channels, 1, skip_connections)
                for _ in range((depth - 2) // 6 - 1)
            )
            return nn.Sequential(first, *rest)

        self.conv1 = _conv3x3(input_shape[0], width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, stride=1)
        self.layer2 = stage(width, 2 * width, stride=2)
        self.layer3 = stage(2 * width, 4 * width, stride=2)
        self.linear = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        features = functional.relu(self.bn1(self.conv1(inputs)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


@final
class _Block(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, stride: int, skip_connection: bool
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.skip_connection = skip_connection

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = functional.relu(self.bn1(self.conv1(inputs)))
        outputs = self.bn2(self.conv2(outputs))
        if self.skip_connection:
            outputs = outputs + shortcut(inputs, outputs.shape[1], self.stride)
        return functional.relu(outputs)


def shortcut(inputs: Tensor, out_channels: int, stride: int) -> Tensor:
    """Keep every ``stride``-th pixel and pad with zero channels, half of them on either side.

    Args:
        inputs: Shape ``(B, C, H, W)``.
        out_channels: Channels to pad to, at least ``C``.
        stride: Distance between the kept pixels.

    Returns:
        Shape ``(B, out_channels, ceil(H / stride), ceil(W / stride))``.
    """
    padding = out_channels - inputs.shape[1]
    kept = inputs[:, :, ::stride, ::stride]
    return functional.pad(kept, (0, 0, 0, 0, padding // 2, padding - padding // 2))


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
