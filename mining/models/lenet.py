"""LeNet-5."""

from typing import final

from torch import Tensor, nn

from mining import InputError


@final
class LeNet(nn.Module):
    """Two 5×5 convolutions of 6 and 16 channels, then 120 and 84 hidden units.

    LeCun et al. (1998), Gradient-Based Learning Applied to Document Recognition, Sec. II-B; with
    ReLU and max pooling in place of tanh and learned subsampling, and no padding, so that 28×28
    inputs leave 4×4 features where 32×32 ones leave 5×5.

    Args:
        input_shape: Shape ``(C, H, W)`` of one input, at least 16×16 pixels.
        num_classes: Number of outputs.

    Raises:
        InputError: If the inputs are too small.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        if min(height, width) < 16:
            raise InputError(
                f"input_shape must be at least 16×16 pixels for LeNet, got {height}×{width}. "
                "Use a smaller model: model=cnn"
            )
        features = 16 * _left(height) * _left(width)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(features, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.classifier(self.features(inputs))
        return logits


def _left(pixels: int) -> int:
    """Pixels that two rounds of a 5×5 convolution and a pooling leave of a side."""
    return ((pixels - 4) // 2 - 4) // 2
