"""The files of a run, and what killed processes leave among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def below(folder: Path) -> Iterator[Path]:
    """The files below a folder. Who works there may take folders away meanwhile, at which `Path.rglob` of Python 3.11 stumbles."""
    return (Path(place) / name for place, _, names in os.walk(folder) for name in names)


def sweep(folder: Path) -> None:
    """Delete what processes of this machine that were killed in the middle of `records.write` have left below a folder."""
    for path in below(folder):
        process = path.name.rpartition("-")[2]
        if path.match(f".*.{WRITER}-*") and process.isdecimal() and not alive(int(process)):
            path.unlink(missing_ok=True)
