"""Random crops and flips of a batch, each row on its own, without a loop over rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..seeding import by_row
from ..types import Data, Images
from ..utils.per_row import over


def random_crop(x: Images, padding: int, generator: Generator) -> Images:
    """Shift each row by up to `padding` pixels up, down, left or right; zeros come in at the border.

    All frames of a clip share one shift. Draws on the CPU, works on the device of `x`, keeps its memory format.
    Raises ValueError as `check_crop` does. Source: the 4-pixel padding of He et al. 2016, arXiv:1512.03385, sec. 4.2.
    """
    check_crop(x, padding)
    down, right = by_row(lambda n: torch.randint(2 * padding + 1, (2, n), generator=generator), len(x), 1).to(x.device)
    height, width = x.shape[-2:]
    windows = F.pad(x, (padding,) * 4).unfold(-2, height, 1).unfold(-2, width, 1)  # a view: (b, ..., down, right, h, w)
    return windows.movedim((-4, -3), (1, 2))[torch.arange(len(x), device=x.device), down, right]


def check_crop(x: Images, padding: int) -> None:
    """Refuse a padding with which a crop could hold nothing of its image. Raises ValueError."""
    height, width = x.shape[-2:]
    if not 0 <= padding < min(height, width):
        raise ValueError(
            f"crop is {padding}, the pixels of padding around images of {height} by {width}; give a whole number from 0 to "
            f"{min(height, width) - 1}"
        )


def random_flip(x: Images, generator: Generator) -> Images:
    """Mirror each row left to right with probability 1/2, all frames of a clip alike; drawn on the CPU."""
    mirrored = _uniform(x, generator)[0] < 0.5
    return torch.where(over(mirrored.to(x.device), x), x.flip(-1), x)


def check_flip(data: Data) -> None:
    """Refuse to mirror rows of data in which a mirrored row may have another class (`mirrors = False`). Raises ValueError."""
    if not getattr(data, "mirrors", True):
        raise ValueError(
            f"flip mirrors rows, and a mirrored row of {data.name} may have another class; leave schedule.flip out"
        )


def colour_distortion(x: Images, generator: Generator, strength: float = 1.0, share: float = 0.5) -> Images:
    """Distort the colours of a `share` of the rows, all frames of a clip alike; the others stay. Pixels stay in [0, 1].

    With s = `strength`: brightness, contrast and saturation times 1 + 0.8 s u, and the hue turned by 0.2 s u of a full
    turn, u uniform in [-1, 1] each time, for 0.8 of those rows; then 0.2 of them lose their colours. Images that do not have
    three channels have brightness and contrast alone. Drawn on the CPU.
    Source: Chen et al. 2020, arXiv:2002.05709, app. A, as the texture-debiasing stream of Wang et al. 2022,
    arXiv:2207.01156, uses it. Differs: always in this order; the hue turns in the chroma plane of YIQ, not of HSV.
    """
    draws = _uniform(x, generator, 7).to(x)
    whole, jittered, greyed, *u = draws
    u = [2 * one - 1 for one in u]
    y = (x * over((1 + 0.8 * strength * u[0]).clamp_min(0), x)).clamp(0, 1)
    grey = _grey(y).flatten(1).mean(1)
    y = _away(y, over(grey, y), over(1 + 0.8 * strength * u[1], y))
    if x.shape[1] == 3:
        y = _away(y, _grey(y), over(1 + 0.8 * strength * u[2], y))
        y = _turned(y, 0.2 * strength * u[3])
    y = torch.where(over(jittered < 0.8, x), y, x)
    if x.shape[1] == 3:
        y = torch.where(over(greyed < 0.2, x), _grey(y).expand_as(y), y)
    return torch.where(over(whole < share, x), y, x)


def chains(x: Images, generator: Generator, width: int = 3) -> Images:
    """Mix each row with chains of distortions of itself, all frames of a clip alike. Pixels stay in [0, 1].

    m x + (1 - m) sum_i w_i chain_i(x) with m uniform and w uniform on the simplex; each of `width` chains turns by up to
    30 degrees, shears by up to 0.3, shifts by up to a third and changes the tones (posterized, inverted above a level, or
    neither). Drawn on the CPU.
    Source: after Hendrycks et al. 2020, arXiv:1912.02781 (AugMix). Differs: every chain is one affine map and one change of
    tones. In `nofrost-star` it is a stand-in for DeepAugment, which it is not.
    """
    share = _uniform(x, generator)[0].to(x)
    weights = -_uniform(x, generator, width).clamp_min(1e-9).log()
    weights = (weights / weights.sum(0)).to(x)
    mixed = sum((over(weight, x) * _tones(_moved(x, generator), generator) for weight in weights), torch.zeros_like(x))
    return (over(share, x) * x + over(1 - share, x) * mixed).clamp(0, 1)


_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def _uniform(x: Images, generator: Generator, count: int = 1) -> Tensor:
    """So many numbers from [0, 1) for each row: (count, b), on the CPU."""
    return by_row(lambda n: torch.rand(count, n, generator=generator, dtype=torch.float32), len(x), 1)


def _grey(x: Images) -> Tensor:
    """The luminance of three channels, the mean of any other number, as one channel."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return torch.einsum("c,bc...->b...", x.new_tensor(_YIQ[0]), x)[:, None]


def _away(x: Images, base: Tensor, factor: Tensor) -> Images:
    """Move away from `base` (factor above 1) or towards it."""
    return (base + factor * (x - base)).clamp(0, 1)


def _turned(x: Images, turns: Tensor) -> Images:
    """Turn the hue of each row by so many full turns, at the same luminance."""
    to = x.new_tensor(_YIQ)
    angle = 2 * torch.pi * turns
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    return torch.einsum("bij,bj...->bi...", torch.linalg.inv(to) @ turn @ to, x).clamp(0, 1)


def _moved(x: Images, generator: Generator) -> Images:
    """Turn, shear and shift each row at random; zeros come in at the border."""
    u = (2 * _uniform(x, generator, 5) - 1).to(x)
    angle, shear = torch.pi / 6 * u[0], 0.3 * u[1:3]
    top = torch.stack([angle.cos() + shear[0] * angle.sin(), shear[0] * angle.cos() - angle.sin(), 2 / 3 * u[3]], 1)
    low = torch.stack([angle.sin() + shear[1] * angle.cos(), angle.cos() - shear[1] * angle.sin(), 2 / 3 * u[4]], 1)
    planes = x.reshape(len(x), -1, *x.shape[-2:])  # the frames of a clip move as one
    grid = F.affine_grid(torch.stack([top, low], 1), list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, align_corners=False).view(x.shape)


def _tones(x: Images, generator: Generator) -> Images:
    """Posterize to 4 to 16 levels, invert above a level of at least 0.5, or leave, each row as it is drawn."""
    kind = by_row(lambda n: torch.randint(3, (n,), generator=generator), len(x)).to(x.device)
    u = _uniform(x, generator)[0].to(x)
    levels = over((4 + 12 * u).round(), x)
    posterized = (x * levels).round() / levels
    inverted = torch.where(x > over(0.5 + 0.5 * u, x), 1 - x, x)
    return torch.where(over(kind == 0, x), posterized, torch.where(over(kind == 1, x), inverted, x))
