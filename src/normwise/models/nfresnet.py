"""Residual networks that normalize no activation: scaled weight standardization and a schedule of expected variances.

Modules are named as in timm's `nf_resnet26` and `nf_resnet50`, and parameters have their shapes, so that timm's state dicts
load as they are, key for key:

    stem.conv                       7x7 convolution (3x3 in the port for small images)
    stages.i.j.conv1, conv2, conv3  the residual branch of block j of stage i (no conv3 in the port)
    stages.i.j.downsample.conv      the 1x1 convolution of the shortcut, in the first block of a stage
    head.fc                         the linear layer

Every convolution has `weight`, `bias` and `gain`, of shape (channels, 1, 1, 1). What comes on top, `standardize.mean` and
`standardize.std`, may be missing from a weights file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..norms import NoNorm
from ..types import Norm
from .resnet import DEEPEST, check_width
from .standardize import Standardize

GAMMA = 1.7139588594436646  # sqrt(2 / (1 - 1/pi)): 1 / the standard deviation of relu(z), z standard normal


class ScaledStdConv2d(nn.Conv2d):
    """A convolution whose filters are standardized over their fan-in, so that variance 1 after a ReLU gives variance 1.

        w_hat = gain * gamma * (w - mean(w)) / sqrt(fan_in * (var(w) + eps))        mean and var per output channel

    `gain` (learned, one per output channel) starts at 1. Padded to keep the size, with a bias.
    Source: Brock et al. 2021, arXiv:2101.08692, eq. 2 and sec. 4.1. Differs: eps is added to the variance, as timm does.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, *, gamma: float = GAMMA, eps: float = 1e-5
    ) -> None:
        super().__init__(inputs, outputs, size, stride, size // 2)  # calls reset_parameters, which finds no gain yet
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))
        self.scale, self.eps = gamma * self.weight[0].numel() ** -0.5, eps

    def reset_parameters(self) -> None:
        """Draw the filters anew, biases 0 and gains 1."""
        super().reset_parameters()  # its draws come first, so that a seed gives the weights it always gave
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        if hasattr(self, "gain"):
            nn.init.ones_(self.gain)

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * ((var + self.eps).rsqrt() * self.gain * self.scale)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class AverageShortcut(nn.Module):
    """2x2 average (where the block strides), then a 1x1 convolution (He et al. 2019, arXiv:1812.01187, ResNet-D)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        self.conv = ScaledStdConv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


class NFBlock(nn.Module):
    """x + alpha * f(beta * relu(x)); where the shape changes, the shortcut reads beta * relu(x).

    f is conv relu conv (3x3), or conv relu conv relu conv (1x1, 3x3, 1x1: a bottleneck of a quarter of the channels). Its
    last gain starts at 0. In training, a row loses f with probability `drop`; what remains is divided by 1 - drop.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, bottleneck: bool, alpha: float, beta: float, drop: float
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.drop = alpha, beta, drop
        changes = inputs != outputs or stride != 1
        self.downsample = AverageShortcut(inputs, outputs, stride) if changes else None
        if bottleneck:
            self.conv1 = ScaledStdConv2d(inputs, outputs // 4, 1)
            self.conv2 = ScaledStdConv2d(outputs // 4, outputs // 4, 3, stride)
            self.conv3: ScaledStdConv2d | None = ScaledStdConv2d(outputs // 4, outputs, 1)
        else:
            self.conv1 = ScaledStdConv2d(inputs, outputs, 3, stride)
            self.conv2 = ScaledStdConv2d(outputs, outputs, 3)
            self.conv3 = None
        nn.init.zeros_((self.conv3 or self.conv2).gain)

    def forward(self, x: Tensor) -> Tensor:
        o = F.relu(x) * self.beta
        shortcut = x if self.downsample is None else self.downsample(o)
        return self.alpha * self._dropped(self.branch(o)) + shortcut

    def branch(self, o: Tensor) -> Tensor:
        """The residual branch f."""
        y = self.conv2(F.relu(self.conv1(o)))
        return y if self.conv3 is None else self.conv3(F.relu(y))

    def _dropped(self, y: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return y
        stays = torch.rand(len(y), 1, 1, 1, device=y.device, dtype=torch.float32) >= self.drop
        return y * (stays.to(y.dtype) / (1 - self.drop))


class NFNetwork(nn.Module):
    """Stem, stages of pre-activation blocks (the first of each but the first stage halves the picture), ReLU, average, linear.

    beta of a block is 1 / sqrt(v), v the variance expected before it: 1 before the first block of all; after the first block
    of each stage 1 + alpha^2, since its shortcut starts anew from variance 1; alpha^2 more after every further block.
    Reads pixels in [0, 1] of shape (b, channels, h, w); gives logits (b, classes). No row depends on another.
    Source: Brock et al. 2021, arXiv:2101.08692, sec. 3.
    """

    def __init__(
        self,
        *,
        large: bool,
        stem: int,
        widths: Sequence[int],
        depths: Sequence[int],
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        alpha: float,
        drop_path: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.stem = nn.Sequential(OrderedDict(conv=ScaledStdConv2d(len(mean), stem, 7 if large else 3, 2 if large else 1)))
        if large:
            self.stem.add_module("pool", nn.MaxPool2d(3, 2, 1))
        drops = iter(drop_path * block / (sum(depths) - 1) for block in range(sum(depths)))
        stages, inputs, variance = [], stem, 1.0
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                beta = variance**-0.5
                blocks.append(NFBlock(inputs, width, stride, bottleneck=large, alpha=alpha, beta=beta, drop=next(drops)))
                variance = (1.0 if index == 0 else variance) + alpha**2
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        fc = nn.Linear(inputs, classes)
        nn.init.normal_(fc.weight, std=0.01)
        nn.init.zeros_(fc.bias)
        self.head = nn.Sequential(OrderedDict(drop=nn.Dropout(dropout), fc=fc))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stages(self.stem(self.standardize(x))))
        return self.head(y.mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class NFResNet:
    """Normalizer-free ResNet of depth 6n+2 for 32-pixel images: three stages of n basic blocks, widths w, 2w, 4w.

    It normalizes nothing and takes no norm but `none` (or null).

    Options
        depth       8, 14, 20, ..., 6n+2
        width       channels of the first stage
        alpha       weight of the residual branches
        drop_path   stochastic depth in training: probability to drop the last block's branch; grows linearly from 0 at the first
        dropout     share of the features that are set to 0 before the linear layer, in training

    Source: a port of `nfresnet50` to the shape of `resnet`. Differs: 3x3 stem without pooling, basic blocks, the first stage
    keeps the size, the expected variances follow its own depths.
    """

    name: ClassVar[str] = "nfresnet"
    normalizes: ClassVar[bool] = False

    depth: int = 20
    width: int = 16
    alpha: float = 0.2
    drop_path: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 8 <= self.depth <= DEEPEST or (self.depth - 2) % 6:
            raise ValueError(
                f"depth of nfresnet is 6n+2; got {self.depth}; give 8, 14, 20, 26, 32, 44, 56, ..., at most {DEEPEST}"
            )
        _check(self)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        _refuse(self.name, norm)
        w = self.width
        return NFNetwork(
            large=False,
            stem=w,
            widths=(w, 2 * w, 4 * w),
            depths=((self.depth - 2) // 6,) * 3,
            classes=classes,
            mean=mean,
            std=std,
            alpha=self.alpha,
            drop_path=self.drop_path,
            dropout=self.dropout,
        )


@dataclass(frozen=True, kw_only=True)
class NFResNet26:
    """Normalizer-free ResNet-26 for 224-pixel images: 7x7 stem, max pooling, four stages of two bottleneck blocks.

    Options
        width       channels of the stem; the stages have 4, 8, 16 and 32 times as many
        alpha       weight of the residual branches
        drop_path   stochastic depth in training: probability to drop the last block's branch; grows linearly from 0 at the first
        dropout     share of the features that are set to 0 before the linear layer, in training

    It normalizes nothing and takes no norm but `none` (or null).
    Source: Brock et al. 2021, arXiv:2101.08692, as timm's `nf_resnet26`, whose weights load as they are.
    """

    name: ClassVar[str] = "nfresnet26"
    normalizes: ClassVar[bool] = False
    depths: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)

    width: int = 64
    alpha: float = 0.2
    drop_path: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        _refuse(self.name, norm)
        return NFNetwork(
            large=True,
            stem=self.width,
            widths=tuple(self.width * 2**k for k in (2, 3, 4, 5)),
            depths=self.depths,
            classes=classes,
            mean=mean,
            std=std,
            alpha=self.alpha,
            drop_path=self.drop_path,
            dropout=self.dropout,
        )


@dataclass(frozen=True, kw_only=True)
class NFResNet50(NFResNet26):
    """Normalizer-free ResNet-50 for 224-pixel images, the network of NoFrost: as `nfresnet26`, with 3, 4, 6 and 3 blocks.

    NoFrost trains it with drop_path 0.1 and dropout 0.25.
    Source: Brock et al. 2021, arXiv:2101.08692, as timm's `nf_resnet50`, whose weights load as they are; Wang et al. 2022,
    arXiv:2207.01156.
    """

    name: ClassVar[str] = "nfresnet50"
    depths: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)


def _check(choice: NFResNet | NFResNet26) -> None:
    check_width(choice.name, width=choice.width)
    if not 0 < choice.alpha < float("inf"):
        raise ValueError(f"alpha of {choice.name} is a weight; got {choice.alpha}; give a finite number > 0, e.g. 0.2")
    for option in ("drop_path", "dropout"):
        if not 0 <= (value := getattr(choice, option)) < 1:
            raise ValueError(f"{option} of {choice.name} is a probability; got {value}; give a number from 0 to below 1")


def _refuse(model: str, norm: Norm | None) -> None:
    if norm is not None and not isinstance(norm, NoNorm):
        raise ValueError(f"{model} normalizes nothing and has no place for norm {norm.name}; give norm none (or null)")
