"""Networks that others published, as starts and substitutes: read from a folder, known by the SHA-256 of their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ...models import ResNet, checkpoints
from .scale import Scale

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Yerlan Idelbayev, akamaster/pytorch_resnet_cifar10: each is one training on all 50,000 training images of CIFAR-10.
FILES = {
    20: ("akamaster_resnet20_cifar10.th", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"),
    32: ("akamaster_resnet32_cifar10.th", "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850"),
    56: ("akamaster_resnet56_cifar10.th", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367"),
}


def file_of(scale: Scale, depth: int) -> Path:
    """The file of a published network. Raises ValueError where it is not there, or is another file than the one that is meant."""
    name, expected = FILES[depth]
    path = Path(scale.published) / name
    if not scale.published or not path.is_file():
        raise ValueError(f"the published ResNet-{depth} is not at {path}; give --published FOLDER, the folder of {name}")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
        raise ValueError(f"{path} has SHA-256 {found}; expected {expected}, the published file; restore it")
    return path


def published(depth: int) -> Callable[[Scale], nn.Module]:
    """The published network of this depth, with its own mean and deviation of pixels."""

    def begin(scale: Scale) -> nn.Module:
        path = file_of(scale, depth)
        model: nn.Module = ResNet(depth=depth, shortcut="pad")(None, classes=scale.data.classes, mean=MEAN, std=STD)
        checkpoints.load_into(model, checkpoints.weights(path))
        return model

    return begin
