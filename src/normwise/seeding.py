"""One seed in, named generators out: the global random state is never read and never moved."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, *names: object) -> int:
    """Derive a 63-bit seed from `seed` and any names; different names give unrelated streams."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """Return a CPU generator of its own for a purpose, e.g. `generator(0, "attack", "pgd", batch)`.

    Draws are made on the CPU and then moved, so that every device sees the same numbers.
    """
    return torch.Generator().manual_seed(derive(seed, *names))


@contextmanager
def drawing(seed: int, devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Let what draws from global states draw from `seed`: Python's, numpy's, and torch's of the CPU and of these CUDA devices.

    Afterwards all are as they were. Other devices than CUDA's have no state of their own here.
    """
    others = random.getstate(), np.random.get_state()  # noqa: NPY002
    indices = {torch.cuda.current_device() if one.index is None else one.index for one in devices if one.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(indices)):
        torch.default_generator.manual_seed(seed)
        for index in indices:  # torch.manual_seed would seed every device there is, and leave it so
            torch.cuda.default_generators[index].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])  # noqa: NPY002


def draw(generator: torch.Generator) -> int:
    """Draw a seed from a generator, to start another stream."""
    return int(torch.randint(2**62, (), generator=generator))


class Slice(NamedTuple):
    """Which rows of a batch a process has: `rows` of them, from `first` on, of `whole` in all."""

    first: int
    rows: int
    whole: int


_SLICE: ContextVar[Slice | None] = ContextVar("slice", default=None)


@contextmanager
def sharing(own: Slice) -> Iterator[None]:
    """Let `by_row` draw for the whole batch, and keep what falls on this part, so that processes draw as one would."""
    token = _SLICE.set(own)
    try:
        yield
    finally:
        _SLICE.reset(token)


def by_row(draw: Callable[[int], Tensor], rows: int, axis: int = 0) -> Tensor:
    """What `draw` draws for so many rows, which lie along an axis; of a shared batch the numbers that belong to its own rows."""
    own = _SLICE.get()
    return draw(rows) if own is None or rows != own.rows else draw(own.whole).narrow(axis, own.first, rows)


def rows_in_all(rows: int) -> int:
    """How many rows a batch has over all processes, if it is shared; else as many as here."""
    own = _SLICE.get()
    return rows if own is None else own.whole
