"""Moving digits: clips whose class shows in the order of their frames alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

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

    The class is the motion: slow right, fast right, fast left, slow left. Each clip shows its digit once at each of 8
    places, so that the frames of a clip tell nothing of its class but by their order: a network that averages over frames is
    at chance. Reversed in time, a clip is one of the class with the opposite direction. Every digit is in one clip: 1,297 to
    train, 500 to test, as in `Digits`; motion, first place and distance from the edge are drawn once, from a fixed seed.
    Source: the digits of `Digits`.

    Options, beside those of `TensorData`
        axis        "horizontal"; "vertical" is other data, where digits move down or up: a substitute may be trained on it

    >>> MovingDigits().classes, MovingDigits().shape
    (4, (1, 8, 16, 16))
    """

    name: ClassVar[str] = "moving-digits"
    mirrors: ClassVar[bool] = False

    validation_size: int = 200
    axis: Literal["horizontal", "vertical"] = "horizontal"

    def arrays(self) -> Arrays:
        """Clips (n, 1, 8, 16, 16) float32, and their motion."""
        given = Digits().arrays()
        (train_x, train_y), (test_x, test_y) = (
            _moved(x, split, self.axis) for x, split in ((given.train_x, "train"), (given.test_x, "test"))
        )
        there, back = ("right", "left") if self.axis == "horizontal" else ("down", "up")
        return Arrays(train_x, train_y, test_x, test_y, (f"slow {there}", f"fast {there}", f"fast {back}", f"slow {back}"))


def _moved(digits: Tensor, split: str, axis: str) -> tuple[Tensor, Tensor]:
    """Clips of these digits (n, 1, 8, 8), and the motion of each."""
    along = 1 if axis == "horizontal" else 0
    rng = generator(0, "moving digits", split, *([] if along else [axis]))
    n, side = len(digits), digits.shape[-1]
    motion, first, aside = (torch.randint(most, (n,), generator=rng) for most in (len(STRIDES), FRAMES, SIDE - side + 1))
    clips = torch.zeros(n, 1, FRAMES, SIDE, SIDE, dtype=torch.float32)
    for row in range(n):
        picture = torch.zeros(SIDE, SIDE, dtype=torch.float32)
        picture[:side, :side] = digits[row, 0]
        picture = picture.roll(int(aside[row]), 1 - along)
        for frame in range(FRAMES):
            place = (first[row] + frame * STRIDES[motion[row]]) % FRAMES
            clips[row, 0, frame] = picture.roll(int(place) * STEP, along)
    return clips, motion
