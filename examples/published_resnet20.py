"""A published CIFAR-10 ResNet-20 (akamaster/pytorch_resnet_cifar10: option A shortcuts) under attack:

    normwise evaluate published_resnet20:resnet20 --weights resnet20.th --data DIR --threat linf --threat.eps 8/255

A loader function for `normwise evaluate` takes nothing and returns an nn.Module that reads pixels in [0, 1].
"""

from torch import nn

from normwise.models import ResNet
from normwise.norms import BN


def resnet20() -> nn.Module:
    """The architecture, with the mean and std its training used as the first layer."""
    return ResNet(depth=20, shortcut="pad")(BN(), classes=10, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
