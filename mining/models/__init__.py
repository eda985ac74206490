"""Architectures, and reading checkpoints."""

from mining.models.cifar_resnet import CifarResNet
from mining.models.cnn import CNN
from mining.models.lenet import LeNet
from mining.models.mlp import MLP
from mining.models.torchvision_models import torchvision_model
from mining.models.vgg import VGG

__all__ = [
    "CNN",
    "MLP",
    "VGG",
    "CifarResNet",
    "LeNet",
    "torchvision_model",
]
