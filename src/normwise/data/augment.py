"""Random crops and flips of a batch, each row on its own, without a loop over rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator

from ..rows import over
from ..types import Images


def random_crop(x: Images, padding: int, generator: Generator) -> Images:
    """Shift each row by up to `padding` pixels up, down, left or right; zeros come in at the border.

    All frames of a clip share one shift. Draws on the CPU, works on the device of `x`, keeps its memory format.
    Source: the 4-pixel padding of He et al. 2016, arXiv:1512.03385, sec. 4.2.
    """
    down, right = torch.randint(2 * padding + 1, (2, len(x)), generator=generator).to(x.device)
    height, width = x.shape[-2:]
    windows = F.pad(x, (padding,) * 4).unfold(-2, height, 1).unfold(-2, width, 1)  # a view: (b, ..., down, right, h, w)
    return windows.movedim((-4, -3), (1, 2))[torch.arange(len(x), device=x.device), down, right]


def random_flip(x: Images, generator: Generator) -> Images:
    """Mirror each row left to right with probability 1/2, all frames of a clip alike; drawn on the CPU."""
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(over(mirrored.to(x.device), x), x.flip(-1), x)
