"""Residual networks for small images, with the norm as an argument.

Modules are named as in the common CIFAR implementations (conv1, bn1, layer1.0.conv1, ..., linear), whatever the norm, so
that published weights load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ..norms import BN, complete
from ..registry import check_words
from ..types import Norm, Site
from .standardize import Standardize

Shortcut = Literal["projection", "pad"]
DEEPEST = 1202  # of He et al. 2016


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded to keep the size, initialized after He et al. 2015 (fan out)."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Pad(nn.Module):
    """Parameter-free shortcut: every second pixel (and frame), and zero channels on both sides (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        before, inner = self.extra // 2, x.ndim - 2
        for axis in range(2, x.ndim):
            x = x[(slice(None),) * axis + (slice(None, None, self.stride),)]
        return F.pad(x, (0, 0) * inner + (before, self.extra - before))


class Block(nn.Module):
    """relu(f(x) + shortcut(x)), f = conv norm relu conv norm."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), norm(Site(outputs))
        self.conv2, self.bn2 = conv(outputs, outputs), norm(Site(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                Pad(inputs, outputs, stride)
                if shortcut == "pad"
                else nn.Sequential(conv(inputs, outputs, 1, stride), norm(Site(outputs)))
            )
        start_at_zero(self.bn2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """f(x) + shortcut, f = norm relu conv norm relu conv; a projection reads the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, shortcut: Shortcut) -> None:
        super().__init__()
        self.bn1, self.conv1 = norm(Site(inputs)), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = norm(Site(outputs)), conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + skip


class Network(nn.Module):
    """Stem, stages of residual blocks (all but the first halve the picture), global average, linear.

    Reads pixels in [0, 1] of shape (b, channels, h, w); gives logits (b, classes).
    """

    def __init__(
        self,
        norm: Norm,
        *,
        block: type[Block] | type[PreActBlock],
        stem: int,
        widths: Sequence[int],
        depth: int,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        shortcut: Shortcut = "projection",
    ) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.conv1 = conv(len(mean), stem)
        self.preact = block is PreActBlock
        self.bn1 = norm(Site(widths[-1] if self.preact else stem))
        inputs = stem
        for stage, width in enumerate(widths, 1):
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if stage > 1 and index == 0 else 1, norm, shortcut))
                inputs = width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.stages = len(widths)
        self.linear = nn.Linear(inputs, classes)
        complete(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.standardize(x))
        if not self.preact:
            y = F.relu(self.bn1(y))
        for stage in range(1, self.stages + 1):
            y = self.get_submodule(f"layer{stage}")(y)
        if self.preact:
            y = F.relu(self.bn1(y))
        return self.linear(y.mean((2, 3)))


def start_at_zero(norm: nn.Module) -> None:
    """Start a residual branch at 0, so that deep networks train whatever the norm, none included (De and Smith 2020)."""
    if isinstance(weight := getattr(norm, "weight", None), Tensor):
        nn.init.zeros_(weight)


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """CIFAR ResNet of depth 6n+2 (8, 20, 32, 56): three stages of n basic blocks, widths w, 2w, 4w.

    Options
        depth       8, 14, 20, ..., 6n+2
        width       channels of the first stage
        shortcut    where the size changes: "projection" (1x1 convolution) or "pad" (parameter-free, option A)

    Source: He et al. 2016, arXiv:1512.03385, sec. 4.2. Differs: the last norm of each residual branch starts at scale 0
    (De and Smith 2020, arXiv:2002.10444), for every norm alike.
    """

    name: ClassVar[str] = "resnet"

    depth: int = 20
    width: int = 16
    shortcut: Shortcut = "projection"

    def __post_init__(self) -> None:
        if not 8 <= self.depth <= DEEPEST or (self.depth - 2) % 6:
            raise ValueError(
                f"depth of resnet is 6n+2; got {self.depth}; give 8, 14, 20, 26, 32, 44, 56, ..., at most {DEEPEST}"
            )
        check_width("resnet", width=self.width)
        check_words(self)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        return Network(
            norm or BN(),
            block=Block,
            stem=self.width,
            widths=(self.width, 2 * self.width, 4 * self.width),
            depth=(self.depth - 2) // 6,
            classes=classes,
            mean=mean,
            std=std,
            shortcut=self.shortcut,
        )


@dataclass(frozen=True, kw_only=True)
class ResNet18:
    """ResNet-18 for 32-pixel images: a 3x3 stem without pooling, four stages of two basic blocks.

    Options
        width   channels of the first stage (64 in the paper)

    Source: He et al. 2016, arXiv:1512.03385, table 1, with the usual CIFAR stem. Differs: as `resnet`.
    """

    name: ClassVar[str] = "resnet18"

    width: int = 64

    def __post_init__(self) -> None:
        check_width(self.name, width=self.width)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        widths = tuple(self.width * 2**stage for stage in range(4))
        return Network(
            norm or BN(), block=Block, stem=self.width, widths=widths, depth=2, classes=classes, mean=mean, std=std
        )


@dataclass(frozen=True, kw_only=True)
class PreActResNet18:
    """Pre-activation ResNet-18 for 32-pixel images: norm and ReLU come before each convolution.

    Options
        width   channels of the first stage (64 in the paper)

    Source: He et al. 2016, arXiv:1603.05027; a norm and ReLU end the network, as there.
    """

    name: ClassVar[str] = "preactresnet18"

    width: int = 64

    def __post_init__(self) -> None:
        check_width(self.name, width=self.width)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        widths = tuple(self.width * 2**stage for stage in range(4))
        return Network(
            norm or BN(),
            block=PreActBlock,
            stem=self.width,
            widths=widths,
            depth=2,
            classes=classes,
            mean=mean,
            std=std,
        )


@dataclass(frozen=True, kw_only=True)
class WideResNet:
    """Wide ResNet of depth 6n+4: three stages of n pre-activation blocks, widths 16k, 32k, 64k. Default WRN-28-10.

    Options
        depth   10, 16, 22, 28, 34, ..., 6n+4
        widen   k, the factor on the widths

    Source: Zagoruyko and Komodakis 2016, arXiv:1605.07146, table 1.
    """

    name: ClassVar[str] = "wrn"

    depth: int = 28
    widen: int = 10

    def __post_init__(self) -> None:
        if not 10 <= self.depth <= DEEPEST or (self.depth - 4) % 6:
            raise ValueError(f"depth of wrn is 6n+4; got {self.depth}; give 10, 16, 22, 28, 34, ..., at most {DEEPEST}")
        check_width("wrn", widen=self.widen)

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        return Network(
            norm or BN(),
            block=PreActBlock,
            stem=16,
            widths=(16 * self.widen, 32 * self.widen, 64 * self.widen),
            depth=(self.depth - 4) // 6,
            classes=classes,
            mean=mean,
            std=std,
        )


def check_width(model: str, **options: int) -> None:
    """Refuse counts of channels below 1. Raises ValueError."""
    for option, value in options.items():
        if value < 1:
            raise ValueError(f"{option} of {model} counts channels; got {value}; give a whole number >= 1")
