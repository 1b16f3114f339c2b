"""Vision transformers for small and large images, with the norm as an argument.

Modules are named as timm's `vit_*` (patch_embed.proj, blocks.0.norm1, ..., norm, head), so that published weights load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..norms import LN2D, complete
from ..registry import check_words
from ..types import Norm, Site
from .resnet import DEEPEST, check_width
from .standardize import Standardize

Stem = Literal["patch", "conv"]


class Attention(nn.Module):
    """Self-attention of several heads over tokens (b, n, c)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        q, k, v = self.qkv(x).view(rows, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(rows, tokens, width))


class MLP(nn.Module):
    """Two linear layers with GELU between them, on tokens (b, n, c)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), on tokens (b, n, c)."""

    def __init__(self, width: int, heads: int, norm: Norm) -> None:
        super().__init__()
        self.norm1, self.attn = norm(Site(width, axis=-1)), Attention(width, heads)
        self.norm2, self.mlp = norm(Site(width, axis=-1)), MLP(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def conv_stem(channels: int, width: int, patch: int, norm: Norm) -> nn.Sequential:
    """3 x 3 convolutions of stride 2 that double their channels, each with norm and GELU, up to `width`; then 1 x 1."""
    halvings = patch.bit_length() - 1
    layers, inputs = list[nn.Module](), channels
    for left in range(halvings - 1, -1, -1):
        outputs = width >> left
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), norm(Site(outputs)), nn.GELU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Conv2d(inputs, width, 1))


class PatchEmbed(nn.Module):
    """Pictures (b, channels, h, w) to tokens: (b, width, h / patch, w / patch)."""

    def __init__(self, channels: int, width: int, patch: int, stem: Stem, norm: Norm) -> None:
        super().__init__()
        self.proj: nn.Module = (
            nn.Conv2d(channels, width, patch, patch) if stem == "patch" else conv_stem(channels, width, patch, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class VisionTransformer(nn.Module):
    """Patches with a class token and learned positions, blocks, norm, and a linear layer on the class token.

    Reads pixels in [0, 1] of shape (b, channels, h, w); gives logits (b, classes). Where h and w are not those it was made
    for, its positions are interpolated.
    """

    def __init__(
        self,
        norm: Norm,
        *,
        side: int,
        patch: int,
        stem: Stem,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.grid = side // patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + self.grid**2, width))
        self.patch_embed = PatchEmbed(len(mean), width, patch, stem, norm)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, norm) for _ in range(depth)))
        self.norm, self.head = norm(Site(width, axis=-1)), nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        complete(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(self.standardize(x))
        positions = F.interpolate(self._grid(), tokens.shape[2:], mode="bicubic", antialias=True)
        tokens = (tokens + positions).flatten(2).transpose(1, 2)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        return self.head(self.norm(self.blocks(torch.cat([first, tokens], 1)))[:, 0])

    def _grid(self) -> Tensor:
        """The positions of patches as a picture (1, width, grid, grid)."""
        return self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))


@dataclass(frozen=True, kw_only=True)
class ViT:
    """Vision transformer with a class token, learned positions and the norm before each branch.

    Options
        side    of the square images it is made for; positions are interpolated for others
        patch   side of a patch, in pixels
        stem    "patch" (one convolution of the patch's size), or "conv" (3 x 3 convolutions of stride 2; patch is a power of 2)
        width   channels of a token, a multiple of `heads`
        depth   blocks
        heads   of attention

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, sec. 3.1; convolutional stem: Singh et al. 2023, arXiv:2303.01870.
    Differs: the stem's last 3 x 3 convolution has the width of a token. Weights and keys are timm's (vit_tiny_patch16_224:
    side 224, patch 16, width 192, depth 12, heads 3).
    """

    name: ClassVar[str] = "vit"

    side: int = 32
    patch: int = 4
    stem: Stem = "patch"
    width: int = 64
    depth: int = 4
    heads: int = 2

    def __post_init__(self) -> None:
        check_width("vit", width=self.width)
        check_words(self)
        if self.depth > DEEPEST:
            raise ValueError(f"depth of vit is {self.depth}; give at most {DEEPEST}")
        if min(self.patch, self.depth, self.heads) < 1 or self.side < self.patch or self.side % self.patch:
            raise ValueError(
                f"side of vit is {self.side}, patch {self.patch}, depth {self.depth} and heads {self.heads}; give whole numbers "
                ">= 1, side a multiple of patch"
            )
        if self.width % self.heads:
            raise ValueError(f"width of vit is {self.width} for {self.heads} heads; give a multiple of heads")
        if self.stem == "conv" and (self.patch < 2 or self.patch & (self.patch - 1) or self.width % (self.patch // 2)):
            raise ValueError(
                f"a conv stem of vit halves the image; got patch {self.patch}; give 2, 4, 8 or 16, which divide width"
            )

    def __call__(self, norm: Norm | None = None, *, classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        sizes = {"side": self.side, "patch": self.patch, "width": self.width, "depth": self.depth, "heads": self.heads}
        return VisionTransformer(norm or LN2D(), **sizes, stem=self.stem, classes=classes, mean=mean, std=std)
