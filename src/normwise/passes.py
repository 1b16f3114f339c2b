"""Passes through a network that fit: into memory, by parts, and into the time there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

T = TypeVar("T", bound="tuple[Tensor, ...]")
_DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)  # on the monotonic clock
_FITTING: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # rows that a network was found to take at once


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Let searches and judges that run meanwhile raise TimeoutError from this moment (of `time.monotonic`) on."""
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def in_time() -> None:
    """Raise TimeoutError if the time is over that `until` gives."""
    if time.monotonic() > _DEADLINE.get():
        raise TimeoutError("the time it was given is over")


def in_parts(model: nn.Module, work: Callable[..., T], *tensors: Tensor) -> T:
    """Do `work(*tensors)`, a pass through `model` whose results have a value per row, by parts that suit the memory.

    On a CPU a part has some 2 ** 19 pixels, elsewhere as much as fits: parts are halved until they do, and the size that fits is
    remembered for the network. Only for independent rows. Raises OutOfMemoryError where a single row does not fit.
    """
    rows = len(tensors[0])
    while True:
        size = max(min(rows, _FITTING.get(model) or _suited(tensors[0])), 1)
        try:
            if size >= rows:
                return work(*tensors)
            parts = [work(*part) for part in zip(*(tensor.split(size) for tensor in tensors), strict=True)]
            return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))
        except torch.OutOfMemoryError:
            if size <= 1:
                raise
        _FITTING[model] = size // 2
        torch.cuda.empty_cache()  # does nothing where there is no GPU


def _suited(x: Tensor) -> int:
    """Rows to ask about at once, a power of 2; on a CPU a tensor over 32 MiB is fetched from the system anew in every layer,
    which takes as long as the layer."""
    if x.device.type != "cpu":
        return len(x)
    most = max(2**19 // max(x[:1].numel(), 1), 8)
    return 1 << most.bit_length() - 1
