"""ConvNeXt for small and large images, with the norm as an argument.

Modules are named as timm's `convnext_atto` and `convnextv2_atto` (stem.0, stages.0.blocks.0.conv_dw, ..., head.norm,
head.fc), so that published weights load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..norms import LN2D, GlobalResponseNorm, complete
from ..types import Norm, Site
from .resnet import check_width
from .standardize import Standardize

DEPTHS = (2, 2, 6, 2)  # of atto and femto
GAMMA = 1e-6  # where the scale of a residual branch starts


class BlockNorm(GlobalResponseNorm):
    """The response normalization within a block of version 2: a part of the block, which `convert` leaves."""

    kept = True


class ConvMLP(nn.Module):
    """Two 1 x 1 convolutions with GELU between them, and in version 2 global response normalization behind it."""

    def __init__(self, width: int, grn: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)
        self.grn: nn.Module = BlockNorm(4 * width) if grn else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.grn(F.gelu(self.fc1(x))))


class ConvNeXtBlock(nn.Module):
    """x + gamma * MLP(norm(7 x 7 convolution of each channel)); version 2 has no gamma."""

    def __init__(self, width: int, norm: Norm, grn: bool) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.mlp = norm(Site(width)), ConvMLP(width, grn)
        self.gamma = None if grn else nn.Parameter(torch.full((width,), GAMMA))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.norm(self.conv_dw(x)))
        return x + (y if self.gamma is None else y * self.gamma.view(-1, 1, 1))


class Halving(nn.Conv2d):
    """A 2 x 2 convolution of stride 2; an odd row or column of pixels meets zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, 2)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, input.shape[3] % 2, 0, input.shape[2] % 2)))


class Stage(nn.Module):
    """Norm and a halving convolution (but for the first stage), then blocks."""

    def __init__(self, inputs: int, width: int, depth: int, norm: Norm, grn: bool) -> None:
        super().__init__()
        halve = inputs != width
        self.downsample = nn.Sequential(norm(Site(inputs)), Halving(inputs, width)) if halve else nn.Identity()
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width, norm, grn) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class ConvNeXtNetwork(nn.Module):
    """Patches, four stages of blocks (all but the first halve the picture), global average, norm, linear.

    Reads pixels in [0, 1] of shape (b, channels, h, w); gives logits (b, classes).
    """

    def __init__(
        self, norm: Norm, *, width: int, patch: int, grn: bool, classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.stem = nn.Sequential(nn.Conv2d(len(mean), width, patch, patch), norm(Site(width)))
        stages, inputs = list[nn.Module](), width
        for number, depth in enumerate(DEPTHS):
            stages.append(Stage(inputs, width << number, depth, norm, grn))
            inputs = width << number
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(OrderedDict(norm=norm(Site(inputs)), flatten=nn.Flatten(), fc=nn.Linear(inputs, classes)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        complete(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.stem(self.standardize(x)))
        return self.head(y.mean((2, 3), keepdim=True))


@dataclass(frozen=True, kw_only=True)
class ConvNeXt:
    """ConvNeXt of depths 2, 2, 6, 2 and widths w, 2w, 4w, 8w.

    Options
        width   channels of the first stage: 40 (atto), 48 (femto)
        patch   side of the stem's patches: 2 for images of 32 pixels, 4 for those of 224
        grn     version 2: global response normalization in each block, and no scale of residual branches

    Source: Liu et al. 2022, arXiv:2201.03545; version 2: Woo et al. 2023, arXiv:2301.00808, whose atto and femto these are.
    Differs: pictures of odd sides are filled up with zeros. Weights and keys are timm's (convnext_atto, convnext_femto,
    convnextv2_atto: patch 4).
    """

    name: ClassVar[str] = "convnext"

    width: int = 40
    patch: int = 2
    grn: bool = False

    def __post_init__(self) -> None:
        check_width("convnext", width=self.width)
        if self.patch < 1:
            raise ValueError(f"patch of convnext is {self.patch}; give a whole number of pixels >= 1")

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        return ConvNeXtNetwork(
            norm or LN2D(), width=self.width, patch=self.patch, grn=self.grn, classes=classes, mean=mean, std=std
        )
