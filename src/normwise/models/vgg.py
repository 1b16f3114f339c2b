"""VGG for small images, with the norm as an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..norms import BN, complete
from ..types import Norm, Site
from .resnet import conv
from .standardize import Standardize

# Convolutions per stage of widths 64, 128, 256, 512, 512: columns A and D of table 1.
STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


class VGGNetwork(nn.Module):
    """Stages of conv, norm, ReLU, each halved by max pooling while the picture is larger than one pixel; linear head.

    Reads pixels in [0, 1] of shape (b, channels, h, w); gives logits (b, classes).
    """

    def __init__(self, norm: Norm, *, depth: int, classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        inputs, layers = len(mean), []
        for width, count in zip((64, 128, 256, 512, 512), STAGES[depth], strict=True):
            for _ in range(count):
                layers += [conv(inputs, width), norm(Site(width)), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        complete(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(self.standardize(x)).mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class VGG:
    """VGG-11 or VGG-16 for small images.

    Options
        depth   11 or 16

    Source: Simonyan and Zisserman 2015, arXiv:1409.1556, table 1, columns A and D. Differs: global average and one linear
    layer instead of three; no convolution bias, since every site has a shift.
    """

    name: ClassVar[str] = "vgg"

    depth: int = 16

    def __post_init__(self) -> None:
        if self.depth not in STAGES:
            raise ValueError(f"depth of vgg is {self.depth}; give one of {', '.join(map(str, STAGES))}")

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        return VGGNetwork(norm or BN(), depth=self.depth, classes=classes, mean=mean, std=std)
