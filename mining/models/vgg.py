"""VGG for images of 32×32 pixels."""

from typing import final

from torch import Tensor, nn

from mining import InputError

# Channels of the convolutions before each of the five poolings.
_STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


@final
class VGG(nn.Module):
    """3×3 convolutions with five poolings, then one linear layer on 512 features.

    Simonyan and Zisserman (2015), Very Deep Convolutional Networks, configurations A, B and D, with
    the single linear layer that is usual on CIFAR. What inputs larger than 32×32 leave of the image
    after five poolings is averaged.

    Args:
        input_shape: Shape ``(C, H, W)`` of one input, at least 32×32 pixels.
        num_classes: Number of outputs.
        depth: Layers with weights in the published network: 11, 13 or 16.
        batch_norm: Whether batch norm follows each convolution.

    Raises:
        InputError: If ``depth`` is another or the inputs are too small.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        depth: int = 16,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if depth not in _STAGES:
            raise InputError(f"depth must be one of {', '.join(map(str, _STAGES))}, got {depth}.")
        in_channels, height, width = input_shape
        if min(height, width) < 32:
            raise InputError(
                f"input_shape must be at least 32×32 pixels for VGG, got {height}×{width}. "
                "Take a smaller model: model=cnn"
            )
        layers: list[nn.Module] = []
        for stage in _STAGES[depth]:
            for channels in stage:
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
                layers += [nn.BatchNorm2d(channels)] if batch_norm else []
                layers.append(nn.ReLU())
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(in_channels, num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                # The default, made for linear units, lets 13 ReLU layers without batch norm fade.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.classifier(self.features(inputs).mean((2, 3)))
        return logits
