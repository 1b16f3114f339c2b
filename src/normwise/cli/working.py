"""What every verb that works in a folder does: show progress, and say what is kept when it is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..data.cache import reporting
from ..types import Report
from ..utils.run import RESULT
from ..utils.run_folder import PRETRAINED, nothing_left
from .progress import progress

FINISHED = (
    "last.pt",
    "parts/*",
    "parts/*/*",
    "cells/*/last.pt",
    f"{PRETRAINED}/*/last.pt",
    f"cells/*/{RESULT}",
    "cells/*/audit.json",
    "cells/*/parts/*",
    "cells/*.json",
    "cells/*/record.json",
    "tuning/*.json",
)


@contextmanager
def working(what: str, out: Path) -> Iterator[Report]:
    """Show the progress of a verb; after Ctrl-C, say whether the same command can resume finished work."""
    try:
        with nothing_left(out), progress(what) as report, reporting(report):
            yield report
    except KeyboardInterrupt:
        if any(any(out.glob(pattern)) for pattern in FINISHED):
            raise KeyboardInterrupt(out) from None
        raise
