"""What killed processes leave behind."""

from __future__ import annotations

import os
from pathlib import Path

from ..records import WRITER


def alive(process: int) -> bool:
    """Whether a process of this machine lives, by its number; on Windows, which cannot be asked so, each does."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True


def sweep(folder: Path) -> None:
    """Delete what processes of this machine that were killed in the middle of `records.write` have left below a folder."""
    for path in folder.rglob(f".*.{WRITER}-*"):
        process = path.name.rpartition("-")[2]
        if process.isdecimal() and not alive(int(process)):
            path.unlink(missing_ok=True)
