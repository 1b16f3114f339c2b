"""Whether a network fits into this machine, said before any memory is taken."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ..limits import memory
from ..seeding import drawing

COPIES = 4  # of the weights that training holds: themselves, gradients, and two of the optimizer's or the average's


def check_size(make: Callable[[], nn.Module], called: str) -> None:
    """Refuse a network that this machine has no memory to train, counted on a device without memory. Raises ValueError."""
    has = memory()
    try:
        with drawing(0), torch.device("meta"):
            model = make()
        needs: float = COPIES * sum(p.numel() * p.element_size() for p in model.parameters())
    except RuntimeError:  # more than can be counted
        needs = math.inf
    if needs > has:
        raise ValueError(
            f"a {called} of this size takes {needs / 2**30:.3g} GiB to train, and this machine has {has / 2**30:.3g}; "
            "give a smaller width or depth"
        )
