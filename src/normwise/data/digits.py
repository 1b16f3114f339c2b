"""The embedded digits: real, small, there without a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from .array_checks import Arrays
from .tensors import TensorData


@dataclass(frozen=True, kw_only=True)
class Digits(TensorData):
    """1,797 grey images of handwritten digits, 8 x 8, grey levels 0..16 (given as v / 16): 1,297 to train, 500 to test.

    The test images were chosen once, every class in its share, and are stored in a shuffled order. Options as in
    `TensorData`.
    Source: E. Alpaydin and C. Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    CC BY 4.0; the images and their order are those of scikit-learn's `load_digits`, that is of UCI's test file.

    >>> len(Digits().test(batch_size=100)), Digits().classes, Digits().shape
    (5, 10, (1, 8, 8))
    """

    name: ClassVar[str] = "digits"

    validation_size: int = 200

    def arrays(self) -> Arrays:
        """Read the package's own file: (n, 1, 8, 8) float32."""
        with np.load(Path(__file__).with_name("digits.npz")) as held:
            x, y, test = (torch.from_numpy(held[key]).long() for key in ("x", "y", "test"))
        x = (x.float() / 16)[:, None]
        train = torch.ones(len(y), dtype=torch.bool).index_fill_(0, test, False)
        return Arrays(x[train], y[train], x[test], y[test], tuple("0123456789"))
