"""Residual networks for clips, and a control that does not see the order of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ..norms import BN, complete
from ..registry import check_words
from ..types import Norm, Site
from .resnet import Block, Network, Pad, Shortcut, check_width, start_at_zero
from .standardize import Standardize
from .views import OverViews

Shape = tuple[int, int, int]  # in time, height and width
Stem = Literal["small", "large"]


def conv3d(inputs: int, outputs: int, size: Shape, stride: Shape, groups: int = 1) -> nn.Conv3d:
    """A convolution over time, height and width without bias, padded to keep the size, initialized after He et al. 2015 (fan out)."""
    padding = size[0] // 2, size[1] // 2, size[2] // 2
    layer = nn.Conv3d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _whole(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """3 x 3 x 3."""
    return conv3d(inputs, outputs, (3, 3, 3), (stride, stride, stride))


def _factored(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """1 x 3 x 3, norm, ReLU, 3 x 1 x 1, with about as many parameters as 3 x 3 x 3 (Tran et al. 2018, sec. 3.5)."""
    between = max(8, 8 * round(27 * inputs * outputs / (9 * inputs + 3 * outputs) / 8))  # eights, for group norms
    space = conv3d(inputs, between, (1, 3, 3), (1, stride, stride))
    return nn.Sequential(space, norm(Site(between)), nn.ReLU(), conv3d(between, outputs, (3, 1, 1), (stride, 1, 1)))


CONVOLUTIONS = {"3d": _whole, "(2+1)d": _factored}


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm, kind: Shortcut = "projection") -> nn.Module:
    """Nothing, or where the size changes a 1 x 1 x 1 convolution and a norm, or no parameters."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return Pad(inputs, outputs, stride)
    return nn.Sequential(conv3d(inputs, outputs, (1, 1, 1), (stride, stride, stride)), norm(Site(outputs)))


class ClipBlock(nn.Module):
    """relu(f(x) + shortcut(x)), f = conv norm relu conv norm, for clips."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, kind: str, shortcut: Shortcut) -> None:
        super().__init__()
        conv = CONVOLUTIONS[kind]
        self.conv1, self.bn1 = conv(inputs, outputs, stride, norm), norm(Site(outputs))
        self.conv2, self.bn2 = conv(outputs, outputs, 1, norm), norm(Site(outputs))
        self.shortcut = _shortcut(inputs, outputs, stride, norm, shortcut)
        start_at_zero(self.bn2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class GroupedBlock(nn.Module):
    """relu(f(x) + shortcut(x)), f = 1 x 1 x 1 to half as many channels, 3 x 3 x 3 in 32 groups, 1 x 1 x 1, each with its norm."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, kind: str, shortcut: Shortcut) -> None:
        super().__init__()
        inner = outputs // 2
        self.conv1, self.bn1 = conv3d(inputs, inner, (1, 1, 1), (1, 1, 1)), norm(Site(inner))
        self.conv2 = conv3d(inner, inner, (3, 3, 3), (stride, stride, stride), GROUPS)
        self.bn2 = norm(Site(inner))
        self.conv3, self.bn3 = conv3d(inner, outputs, (1, 1, 1), (1, 1, 1)), norm(Site(outputs))
        self.shortcut = _shortcut(inputs, outputs, stride, norm, shortcut)
        start_at_zero(self.bn3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


GROUPS = 32
CIFAR = {20: (3, 3, 3), 32: (5, 5, 5), 56: (9, 9, 9)}  # the depths of `resnet`
DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 101: (3, 4, 23, 3)} | CIFAR  # blocks of each stage


class ClipNetwork(nn.Module):
    """Stem, three or four stages of residual blocks (all but the first halve time, height and width), global average, linear.

    Reads pixels in [0, 1] of shape (b, channels, t, h, w); gives logits (b, classes).
    """

    def __init__(
        self,
        norm: Norm,
        kind: str,
        width: int,
        depth: int,
        data: tuple[int, Sequence[float], Sequence[float]],
        stem: Stem = "small",
        shortcut: Shortcut = "projection",
    ) -> None:
        super().__init__()
        classes, mean, std = data
        self.standardize = Standardize(mean, std)
        size, stride = ((3, 3, 3), (1, 1, 1)) if stem == "small" else ((7, 7, 7), (1, 2, 2))
        self.conv1, self.bn1 = conv3d(len(mean), width, size, stride), norm(Site(width))
        self.pool = nn.Identity() if stem == "small" else nn.MaxPool3d(3, 2, 1)
        inputs, block = width, GroupedBlock if depth == 101 else ClipBlock
        for stage, count in enumerate(DEPTHS[depth], 1):
            blocks, outputs = [], width * 2 ** (stage - 1) * (4 if depth == 101 else 1)
            for index in range(count):
                blocks.append(block(inputs, outputs, 2 if stage > 1 and index == 0 else 1, norm, kind, shortcut))
                inputs = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.stages = len(DEPTHS[depth])
        self.linear = nn.Linear(inputs, classes)
        complete(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(F.relu(self.bn1(self.conv1(self.standardize(x)))))
        for stage in range(1, self.stages + 1):
            y = self.get_submodule(f"layer{stage}")(y)
        return self.linear(y.mean((2, 3, 4)))


class OverFrames(nn.Module):
    """A network of images asked about every frame of a clip (b, c, t, h, w): the mean of its logits, whatever the order."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        rows, frames = len(x), x.shape[2]
        logits: Tensor = self.network(x.transpose(1, 2).flatten(0, 1))
        return logits.view(rows, frames, -1).mean(1)


@dataclass(frozen=True, kw_only=True)
class _Clips:
    """What the networks for clips share."""

    name: ClassVar[str]
    kind: ClassVar[str]
    clips: ClassVar[bool] = True  # it reads (b, c, t, h, w)

    stem: ClassVar[Stem] = "small"
    shortcut: ClassVar[Shortcut] = "projection"
    depths: ClassVar[tuple[int, ...]] = (10, 18)

    depth: int = 18
    width: int = 64
    views: int = 1

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"views of {self.name} counts clips of a video; got {self.views}; give a whole number >= 1")
        if self.depth not in self.depths:
            *others, last = map(str, self.depths)
            raise ValueError(f"depth of {self.name} is {self.depth}; give {', '.join(others)} or {last}")
        check_width(self.name, width=self.width)
        check_words(self)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        network = ClipNetwork(
            norm or BN(), self.kind, self.width, self.depth, (classes, mean, std), self.stem, self.shortcut
        )
        return network if self.views == 1 else OverViews(network, self.views)


@dataclass(frozen=True, kw_only=True)
class ResNet3D(_Clips):
    """3D ResNet: a stem, and four stages of one (depth 10) or two (18) basic blocks; depth 101 is the 3D ResNeXt-101 of 3, 4, 23 and 3
    bottlenecks in 32 groups. Depths 20, 32 and 56 have three stages, as `resnet` has, whose published weights inflate to
    them.

    Options
        depth       10, 18, 20, 32, 56 or 101
        width       channels of the first stage (64 in the paper; 8 trains on a laptop); of depth 101 a multiple of 16
        views       clips of a video that come one after the other in each row; the answer is the mean of their logits
        stem        "small": 3 x 3 x 3, for small pictures; "large", the paper's: 7 x 7 x 7 with stride 2 in space, and max pooling
        shortcut    where the size changes: "projection" (1 x 1 x 1 convolution) or "pad" (parameter-free, as in published CIFAR networks)

    Source: Hara et al. 2018, arXiv:1711.09577, table 1. Differs: the last norm of each residual branch starts at scale 0, as
    in `resnet`; shortcuts are projections by default.
    """

    name: ClassVar[str] = "resnet3d"
    kind: ClassVar[str] = "3d"
    depths: ClassVar[tuple[int, ...]] = tuple(sorted(DEPTHS))

    stem: Stem = "small"  # type: ignore[misc]
    shortcut: Shortcut = "projection"  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth == 101 and self.width % 16:
            raise ValueError(
                f"width of {self.name} of depth 101 is {self.width}; give a multiple of 16, for {GROUPS} groups"
            )


@dataclass(frozen=True, kw_only=True)
class R2Plus1D(_Clips):
    """R(2+1)D for small clips: as `resnet3d`, each 3 x 3 x 3 convolution made of one in space, a norm, a ReLU and one in time.

    Options
        depth   10 or 18
        width   channels of the first stage
        views   as `resnet3d`

    Source: Tran et al. 2018, arXiv:1711.11248, sec. 3.5. Differs: as `resnet3d`; channels between the two are a multiple of
    8.
    """

    name: ClassVar[str] = "r2plus1d"
    kind: ClassVar[str] = "(2+1)d"


@dataclass(frozen=True, kw_only=True)
class FrameResNet:
    """A control for clips: ResNet-8 for images on every frame, and the mean of its logits. It cannot see the order of frames.

    Options
        width   channels of the first stage
    """

    name: ClassVar[str] = "frame-resnet"
    clips: ClassVar[bool] = True

    width: int = 16

    def __post_init__(self) -> None:
        check_width(self.name, width=self.width)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        widths = (self.width, 2 * self.width, 4 * self.width)
        how = partial(Network, block=Block, stem=self.width, widths=widths, depth=1)
        return OverFrames(how(norm or BN(), classes=classes, mean=mean, std=std))
