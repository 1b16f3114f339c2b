"""One seed in, named generators out: the global random state is never read and never moved."""

from __future__ import annotations

import hashlib

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


def draw(generator: torch.Generator) -> int:
    """Draw a seed from a generator, to start another stream."""
    return int(torch.randint(2**62, (), generator=generator))
