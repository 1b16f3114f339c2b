"""One seed in, named generators out: the global random state is never read and never moved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


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
    """Let what draws from torch's global states draw from `seed`: the CPU's, and those of these CUDA devices.

    Afterwards all are as they were. Other devices than CUDA's have no state of their own here.
    """
    indices = {torch.cuda.current_device() if one.index is None else one.index for one in devices if one.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(indices)):
        torch.default_generator.manual_seed(seed)
        for index in indices:  # torch.manual_seed would seed every device there is, and leave it so
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def draw(generator: torch.Generator) -> int:
    """Draw a seed from a generator, to start another stream."""
    return int(torch.randint(2**62, (), generator=generator))
