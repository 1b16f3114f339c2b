"""Digests of what a run stands on: a model's settings, the rows of a batch, and files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..types import Batch


def settings_of(model: nn.Module) -> str:
    """A digest of what a model is beside its weights: its modules, as they print themselves, and their plain attributes."""
    told = [repr(model)]
    for name, module in model.named_modules():
        told += [f"{name}.{key}={value!r}" for key, value in sorted(vars(module).items()) if _plain(value)]
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", "\n".join(told))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _plain(value: Any) -> bool:
    return isinstance(value, int | float | str) or (
        isinstance(value, tuple | list) and bool(value) and all(map(_plain, value))
    )


def mark_of(batch: Batch) -> str:
    """A digest of the rows of a batch: images, labels and ids."""
    sha = hashlib.sha256()
    for tensor in batch:
        sha.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
