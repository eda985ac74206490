"""The classifiers of torchvision, pre-trained or not, with a head of any size."""

import difflib
import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from mining import InputError
from mining.storage.checkpoints import load_state_dict, load_weights

_logger = logging.getLogger(__name__)


def torchvision_model(
    architecture: str,
    num_classes: int,
    weights: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> nn.Module:
    """Build a classifier of torchvision.

    If the weights were trained for another number of classes, a new head replaces the last layer.
    GoogLeNet and Inception come without their auxiliary heads, so that they return logits in train
    mode as well.

    Args:
        architecture: The name that ``torchvision.models`` gives it, such as ``mobilenet_v2``.
        num_classes: Number of outputs.
        weights: Published weights by name, such as ``IMAGENET1K_V1`` or ``DEFAULT``, downloaded
            once; or a checkpoint file; None = random.
        input_shape: Shape ``(C, H, W)`` of one input, if it should be checked.

    Returns:
        The model, on the CPU and in train mode.

    Raises:
        InputError: If there is no such architecture, no such weights, ``C`` is not 3, or a file
            does not fit the architecture.
        ConnectionError: If the download fails.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if architecture not in known:
        close = difflib.get_close_matches(architecture, known) or known
        raise InputError(
            "architecture must be a classifier of torchvision.models, "
            f"got {architecture!r}. Did you mean {', '.join(close)}?"
        )
    if input_shape is not None and input_shape[0] != 3:
        raise InputError(
            f"input_shape must have 3 channels for {architecture}, got {input_shape[0]}."
        )
    if weights is None:
        return _build(architecture, num_classes=num_classes)
    published = models.get_model_weights(architecture)
    if weights in published.__members__:
        model = _published(architecture, published[weights])
    elif Path(weights).exists():
        model = _from_file(architecture, weights)
    else:
        raise InputError(
            f"weights must be one of {', '.join(published.__members__)} for {architecture}, "
            f"a file or null, got {weights!r}."
        )
    _resize_head(model, num_classes)
    return model


def _build(architecture: str, **options: Any) -> nn.Module:
    from torchvision import models

    if architecture in ("googlenet", "inception_v3"):
        # An auxiliary head makes the output in train mode a tuple, which no loss takes.
        options |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = models.get_model(architecture, **options)
    return model


def _published(architecture: str, weights: Any) -> nn.Module:
    from torchvision import models

    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    if not file.exists():
        _logger.info("Downloading %s to %s", weights.url, file)
    try:
        model: nn.Module = models.get_model(architecture, weights=weights)
    except (OSError, RuntimeError) as error:  # no connection, or a file of another checksum
        raise ConnectionError(
            f"cannot download {weights.url}: {error}. Fetch it elsewhere: model.weights=FILE"
        ) from error
    if isinstance(model, models.Inception3):  # torchvision insists on building it with the head
        model.aux_logits, model.AuxLogits = False, None
    return model


def _from_file(architecture: str, path: str) -> nn.Module:
    state = load_state_dict(path)
    model = _build(architecture)
    name, _ = _head(model)
    if f"{name}.weight" in state:
        _resize_head(model, len(state[f"{name}.weight"]))
    try:
        load_weights(model, state)
    except ValueError as error:
        raise InputError(f"weights {path} for {architecture}: {error}") from error
    return model


def _head(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and module of the last linear layer, or of SqueezeNet's last convolution."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    return layers[-1]


def _resize_head(model: nn.Module, num_classes: int) -> None:
    """Replace the head by a random one if it has another number of outputs."""
    name, head = _head(model)
    bias = head.bias is not None
    if isinstance(head, nn.Linear):
        if head.out_features != num_classes:
            model.set_submodule(name, nn.Linear(head.in_features, num_classes, bias=bias))
    elif head.out_channels != num_classes:
        model.set_submodule(name, nn.Conv2d(head.in_channels, num_classes, 1, bias=bias))
