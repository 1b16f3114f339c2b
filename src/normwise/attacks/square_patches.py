"""Patches of random search: how large they are, and what is in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit(x: Tensor, order: int = 2) -> Tensor:
    """Scale along the last axis to length 1 (in l2; `order` 1: in l1); zeros stay zeros."""
    return x / x.norm(p=order, dim=-1, keepdim=True).clamp_min(1e-12)


def patch_sides(size: tuple[int, int, int], share: float, least: int = 1, *, odd: bool = False) -> tuple[int, int, int]:
    """The sides (frames, height, width) of the patch that covers this share of a clip: equal, but none longer than the clip's.

    >>> patch_sides((1, 32, 32), 0.8), patch_sides((16, 112, 112), 0.8), patch_sides((1, 1, 20), 0.5)
    ((1, 29, 29), (16, 100, 100), (1, 1, 10))
    """
    left, sides = share * math.prod(size), [1, 1, 1]
    for done, axis in enumerate(sorted(range(3), key=size.__getitem__)):
        side = min(size[axis], max(1.0, left ** (1 / (3 - done))))
        left /= side
        sides[axis] = round(side)
        if axis:  # frames are told apart one by one
            sides[axis] = max(sides[axis], least)
            sides[axis] = min(size[axis], sides[axis] + (odd and sides[axis] % 2 == 0))
    return sides[0], sides[1], sides[2]


def bump(sides: tuple[int, int, int], axis: int, order: int = 2) -> Tensor:
    """Two halves of opposite sign along one of the axes height and width, each highest in its middle; of length 1.

    At a distance of r pixels from its middle (in the larger of the two coordinates) a half is sum_{j > r} 1 / j^2 in l2
    (`order` 2) and sum_{j > r} 1 / j^4 in l1, up to the j that belongs to its farthest pixel; all frames are equal.
    Source: Andriushchenko et al. 2020, arXiv:1912.00049, the l2 update of sec. 4; l1: the code of arXiv:2103.01208.

    >>> bump((1, 1, 2), 2).flatten().tolist()
    [0.7071067690849304, -0.7071067690849304]
    """
    frames, *plane = sides
    if plane[axis - 1] == 1:
        axis = 3 - axis  # there is nothing to halve along this axis
    first = list(plane)
    first[axis - 1] //= 2
    second = list(plane)
    second[axis - 1] -= first[axis - 1]
    halves = torch.cat([_hill(first, 4 // order), -_hill(second, 4 // order)], dim=axis - 1)
    return (halves / (halves.norm(p=order) * frames ** (1 / order))).expand(frames, *plane)


def _hill(sides: list[int], power: int) -> Tensor:
    lines, columns = ((torch.arange(side) - side // 2).abs() for side in sides)
    rank = torch.maximum(lines[:, None], columns)
    steps = torch.arange(1, max(sides) // 2 + 2, dtype=torch.float32).reciprocal().pow(power)
    return steps.flip(0).cumsum(0).flip(0)[rank]
