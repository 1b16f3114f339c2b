"""Memory that is free, and that the system does not know to be so."""

from __future__ import annotations

import ctypes


def release_free_memory() -> None:
    """Give the pages that are free back to the system, where the C library can (glibc).

    Small tensors that stay, between large ones that come and go, leave holes that are never large enough again: an
    evaluation of 14,204 clips held 509 MiB so, and 235 MiB with this.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
