"""Whole batches under a corruption, row by row reproducible, and strips that show what a corruption does."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch

from ...seeding import generator
from ...types import Batch, Images
from .kind import Corruption


def corrupted(batch: Batch, corruption: Corruption, severity: int, seed: int = 0) -> Batch:
    """The batch under one corruption. The result for an image follows from the seed and its id, not from its batch.

    Raises ValueError as the corruption does.
    """
    rows = [
        corruption(x[None], severity, generator=generator(seed, corruption.name, severity, row))
        for x, row in zip(batch.x, batch.ids.tolist(), strict=True)
    ]
    return batch._replace(x=torch.cat(rows))


def strip(columns: Sequence[Images], least: int = 64) -> bytes:
    """Images beside each other as PNG bytes, a column per batch (b, c, h, w), enlarged to `least` pixels a side or more."""
    from PIL import Image

    column = [torch.cat(list(x), dim=1) for x in columns]
    pixels = torch.cat(column, dim=2)
    shown = pixels if len(pixels) == 3 else pixels.mean(0, keepdim=True).expand(3, -1, -1)
    values = (255 * shown).round().byte().movedim(0, -1).numpy()
    times = -(-least // min(columns[0].shape[2:]))
    file = io.BytesIO()
    Image.fromarray(np.repeat(np.repeat(values, times, 0), times, 1)).save(file, "PNG", optimize=True)
    return file.getvalue()
