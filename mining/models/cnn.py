"""A small convolutional network for images of any size."""

from typing import final

from torch import Tensor, nn

from mining import InputError


@final
class CNN(nn.Module):
    """Two 3×3 convolutions of 32 channels, each pooled by 2, then two hidden linear layers.

    Args:
        input_shape: Shape ``(C, H, W)`` of one input, at least 4×4 pixels.
        num_classes: Number of outputs.
        hidden: Widths of the two hidden layers, units.

    Raises:
        InputError: If the inputs are too small or a width is not positive.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden: tuple[int, int] = (128, 64),
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        if min(height, width) < 4:
            raise InputError(
                f"input_shape must be at least 4×4 pixels for CNN, got {height}×{width}."
            )
        if len(hidden) != 2 or min(hidden) < 1:
            raise InputError(f"hidden must be two positive widths, got {list(hidden)}.")
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), hidden[0]),
            nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], num_classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.classifier(self.features(inputs))
        return logits
