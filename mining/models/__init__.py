"""Architectures, and reading checkpoints."""

from mining.models.cifar_resnet import CifarResNet
from mining.models.cnn import CNN
from mining.models.densenet import DenseNet
from mining.models.efficientnet_lite import efficientnet_lite0
from mining.models.lenet import LeNet
from mining.models.mlp import MLP
from mining.models.torchvision_models import torchvision_model
from mining.models.vgg import VGG
from mining.models.vit import ViT

__all__ = [
    "CNN",
    "MLP",
    "VGG",
    "CifarResNet",
    "DenseNet",
    "LeNet",
    "ViT",
    "efficientnet_lite0",
    "torchvision_model",
]
