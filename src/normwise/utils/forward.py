"""Passes through a network: the one way to ask it for logits; and passes that fit into memory, by parts, and into the time there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

T = TypeVar("T", bound="tuple[Tensor, ...]")
_DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)  # on the monotonic clock
_FITTING: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # rows that a network was found to take at once


class NoLogits(ValueError):
    """A model answers something that holds no logits."""


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Ask the model about the images x (b, c, ...): its logits (b, classes), in its own dtype.

    It gets a copy of x, for some networks write into their input. Of a model that answers more than a tensor the logits are
    what it calls `logits` (a key, or an attribute), or the only entry that is (b, classes).
    Raises NoLogits, a ValueError, for an answer that holds none.
    """
    answer = model(x.clone())
    if isinstance(answer, fx.Proxy):  # while a network is traced, `fold` does so, it stands for a tensor
        return answer  # type: ignore[return-value]
    return logits_in(answer, len(x))


def logits_in(answer: Any, rows: int) -> Tensor:
    """The logits in what a model answered to so many rows. Raises NoLogits where there are none, or several that may be meant."""
    found = answer if isinstance(answer, Tensor) else _named(answer, rows)
    if found.ndim != 2 or len(found) != rows or found.shape[1] < 2 or not found.is_floating_point():
        raise NoLogits(
            f"the model answers {tuple(found.shape)} ({found.dtype}) to {rows} images; expected logits of shape (b, classes), "
            "two classes or more"
        )
    return found


def _named(answer: Any, rows: int) -> Tensor:
    """The tensor that a dict, an object or a tuple calls `logits`, or its only one with a row for each image."""
    named = answer if isinstance(answer, Mapping) else getattr(answer, "__dict__", {})
    found = named.get("logits", getattr(answer, "logits", None))
    if isinstance(found, Tensor):
        return found
    entries = answer if isinstance(answer, tuple | list) else named.values()
    fitting = [one for one in entries if _holds(one, rows)]
    if len(fitting) != 1 or not isinstance(
        fitting[0], Tensor
    ):  # features beside logits, say: the wrong one would be a wrong figure
        hint = f", {len(fitting)} of whose entries may be them" if fitting else ""
        raise NoLogits(
            f"the model answers a {type(answer).__name__}, which names no logits{hint}; "
            "return logits of shape (b, classes), alone or as `logits`"
        )
    return fitting[0]


def _holds(entry: Any, rows: int) -> bool:
    """Whether an entry of an answer may be the logits, or is a list or a dict with one that may be."""
    if isinstance(entry, Tensor):
        return entry.ndim == 2 and len(entry) == rows
    inner = entry.values() if isinstance(entry, Mapping) else entry if isinstance(entry, tuple | list) else ()
    return any(_holds(one, rows) for one in inner)


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Let searches and checks that run meanwhile raise TimeoutError from this moment (of `time.monotonic`) on."""
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def in_time() -> None:
    """Raise TimeoutError if the time is over that `until` gives."""
    if time.monotonic() > _DEADLINE.get():
        raise TimeoutError("the time it was given is over")


def time_left() -> float | None:
    """Seconds until `until` ends them; None where it does not."""
    deadline = _DEADLINE.get()
    return None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())


def in_parts(model: nn.Module, work: Callable[..., T], *tensors: Tensor) -> T:
    """Do `work(*tensors)`, a pass through `model` whose results have a value per row, by parts that suit the memory.

    On a CPU a part has some 2 ** 19 pixels, elsewhere as much as fits: parts are halved until they do, and the size that
    fits is remembered for the network. Only for independent rows. Raises OutOfMemoryError where a single row does not fit.
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
