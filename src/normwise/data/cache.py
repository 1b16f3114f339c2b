"""Decoded images or clips as bytes on disk: `clips.u8`, mapped into memory, and `clips.json`, which says what they are.

The two files are a data set by themselves: a folder that holds clips can be the `root` of `VideoFolder`. Images are in
`images.u8` and `images.json`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..records import write
from ..types import Report, silent
from ..utils.errors import one_line
from .array_checks import need

Kind = Literal["clips", "images"]
DIMENSIONS: dict[Kind, int] = {"clips": 5, "images": 4}  # (n, c, t, h, w) and (n, c, h, w)
LONGEST = 2**28  # bytes of the listing that are read
_REPORT: ContextVar[Report] = ContextVar("report", default=silent)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a data set, sorted: their names below its root, their labels, and the sides on which their folders put them.

    A side is "train", "test", or "" where the folders do not say. `skipped` are files that are not among them, and why.
    """

    files: Sequence[str]
    labels: Sequence[int]
    sides: Sequence[str]
    names: Sequence[str]
    skipped: Mapping[str, str] = field(default_factory=dict)


def format_of(kind: Kind) -> str:
    """The format of the two files, by name and version."""
    return f"normwise {kind} 1"


def holds(kind: Kind, folder: Path) -> bool:
    """Whether a folder holds images or clips in this format."""
    return (folder / f"{kind}.json").is_file()


def cache_folder(kind: Kind, parent: Path, root: Path, listing: Listing, decoding: str) -> Path:
    """The folder below `parent` for what is decoded: another one where a file, or how it is decoded, is another."""
    paths = [root / file for file in listing.files]  # a link may lead nowhere, which decoding tells
    stats = [(path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None for path in paths]
    key = [format_of(kind), decoding, listing.files, listing.sides, stats]
    return parent / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def keep(
    kind: Kind,
    folder: Path,
    listing: Listing,
    shape: Sequence[int],
    decode: Callable[[str], NDArray[np.uint8]],
    *,
    skip: bool = False,
) -> None:
    """Write what is decoded of a listing, file after file: `decode(file)` is (c, h, w) or (c, t, h, w), of this `shape`.

    One process does so at a time; others wait, and then find it there. A file for which `decode` raises ValueError ends
    this, or is left out and named in the listing if `skip` is set. Raises ValueError too for a folder that cannot be
    written, or that has too little room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not holds(kind, folder):
                _write(kind, folder, listing, shape, decode, skip)
    except OSError as error:
        raise ValueError(f"cannot write {kind} in {folder}: {error.strerror or error}; name another cache") from None


def _write(
    kind: Kind,
    folder: Path,
    listing: Listing,
    shape: Sequence[int],
    decode: Callable[[str], NDArray[np.uint8]],
    skip: bool,
) -> None:
    unfinished, sha, skipped = folder / f".{kind}.{os.getpid()}", hashlib.sha256(), dict[str, str]()
    needed, free = math.prod(shape) * len(listing.files), shutil.disk_usage(folder).free
    asked = f"the {kind} need {needed / 1e9:.1f} GB in {folder}"
    need(needed < free, asked, f"{free / 1e9:.1f} GB", "make room, take fewer or smaller ones, or name another cache")
    try:
        with unfinished.open("wb") as held:
            for number, file in enumerate(listing.files):
                _REPORT.get()(f"decoding {kind}", number, len(listing.files))
                try:
                    pixels = decode(file)
                except ValueError as error:
                    if not skip:
                        raise
                    skipped[file] = str(error)
                    continue
                content = np.ascontiguousarray(pixels, np.uint8).tobytes()
                sha.update(content)
                held.write(content)
        kept = [row for row, file in enumerate(listing.files) if file not in skipped]
        need(kept, f"{folder} needs {kind}", "none that could be decoded", "look at the files")
        unfinished.replace(folder / f"{kind}.u8")
        about = {
            "format": format_of(kind),
            "sha256": sha.hexdigest(),
            "shape": [len(kept), *shape],
            "names": list(listing.names),
        }
        about |= {name: [getattr(listing, name)[row] for row in kept] for name in ("files", "labels", "sides")}
        write(folder / f"{kind}.json", json.dumps(about | {"skipped": {**listing.skipped, **skipped}}, indent=1) + "\n")
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Let `keep` report how many files are decoded."""
    token = _REPORT.set(report)
    try:
        yield
    finally:
        _REPORT.reset(token)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process has this folder, and hold it; it is free again when its process ends, however that does."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _REPORT.get()("another process decodes these files", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read(kind: Kind, folder: Path) -> tuple[Listing, Tensor]:
    """Read a listing, and map its images (n, c, h, w) or clips (n, c, t, h, w) uint8 into memory: only what is looked at is there.

    Raises ValueError, one line, for files that are damaged, by their checksum too, or that are something else.
    """
    about, pixels = folder / f"{kind}.json", folder / f"{kind}.u8"
    try:
        if about.stat().st_size > LONGEST:
            raise ValueError(f"{about.stat().st_size:,} bytes")
        held = json.loads(about.read_text())
        if held["format"] != format_of(kind):
            raise ValueError(f"the format {held['format']!r}")
        listing = Listing(**{name: held[name] for name in ("files", "labels", "sides", "names", "skipped")})
        shape, rows = [int(side) for side in held["shape"]], len(listing.files)
        if (
            len(shape) != DIMENSIONS[kind]
            or min(shape) < 1
            or not rows == shape[0] == len(listing.labels) == len(listing.sides)
        ):
            raise ValueError(f"the shape {shape} with {rows} names")
        if math.prod(shape) != pixels.stat().st_size:
            raise ValueError(f"{pixels.stat().st_size:,} bytes in {pixels.name}, not {math.prod(shape):,}")
        with pixels.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != held["sha256"]:
                raise ValueError(f"{pixels.name} with another checksum")
    except Exception as error:
        raise ValueError(
            f"{folder} must hold {kind} ({format_of(kind)}); got {one_line(error)}; delete it, and make it again"
        ) from None
    return listing, torch.from_file(str(pixels), shared=False, size=math.prod(shape), dtype=torch.uint8).view(shape)
