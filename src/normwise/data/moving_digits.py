"""Moving digits: clips whose class is told by the order of their frames alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..seeding import generator
from .array_checks import Arrays
from .digits import Digits
from .tensors import TensorData

FRAMES, SIDE, STEP = 8, 16, 2  # a digit goes around the picture in FRAMES places that lie STEP pixels apart
STRIDES = (1, 3, 5, 7)  # places per frame: odd numbers visit each of the 8 places once; 5 and 7 are 3 and 1 backwards


@dataclass(frozen=True, kw_only=True)
class MovingDigits(TensorData):
    """1,797 clips of 8 frames, 16 x 16, grey: an embedded digit that goes around, 2 or 6 pixels per frame, right or left.

    The class is the motion: slow right, fast right, fast left, slow left. Each clip shows its digit once at each of 8 places, so
    that the frames of a clip tell nothing of its class but by their order: a network that averages over frames is at chance.
    Reversed in time, a clip is one of the class with the opposite direction. Every digit is in one clip: 1,297 to train, 500 to test,
    as in `Digits`; motion, first place and height are drawn once, from a fixed seed. Options as in `TensorData`.
    Source: the digits of `Digits`.

    >>> MovingDigits().classes, MovingDigits().shape
    (4, (1, 8, 16, 16))
    """

    name: ClassVar[str] = "moving-digits"
    mirrors: ClassVar[bool] = False

    validation_size: int = 200

    def arrays(self) -> Arrays:
        """Clips (n, 1, 8, 16, 16) float32, and their motion."""
        given = Digits().arrays()
        (train_x, train_y), (test_x, test_y) = (
            _moved(x, split) for x, split in ((given.train_x, "train"), (given.test_x, "test"))
        )
        return Arrays(train_x, train_y, test_x, test_y, ("slow right", "fast right", "fast left", "slow left"))


def _moved(digits: Tensor, split: str) -> tuple[Tensor, Tensor]:
    """Clips of these digits (n, 1, 8, 8), and the motion of each."""
    rng = generator(0, "moving digits", split)
    n, side = len(digits), digits.shape[-1]
    motion, first, top = (torch.randint(most, (n,), generator=rng) for most in (len(STRIDES), FRAMES, SIDE - side + 1))
    clips = torch.zeros(n, 1, FRAMES, SIDE, SIDE)
    for row in range(n):
        picture = torch.zeros(SIDE, SIDE)
        picture[top[row] : top[row] + side, :side] = digits[row, 0]
        for frame in range(FRAMES):
            place = (first[row] + frame * STRIDES[motion[row]]) % FRAMES
            clips[row, 0, frame] = picture.roll(int(place) * STEP, 1)
    return clips, motion
