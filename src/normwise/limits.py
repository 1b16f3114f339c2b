"""How large a file that is read may be, and what it says it holds: checked before memory of that size is taken."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

MIB = 2**20
CHUNK = 16 * MIB
SETTINGS, TEXT, DATA = (
    MIB,
    64 * MIB,
    1024 * MIB,
)  # bytes of a YAML file or a card, of a record, of a file of a known data set
HEADER = 16 * MIB  # bytes of the header of a safetensors file
DEEPEST = 100  # levels of a YAML file
ITEMS = 100_000  # of a YAML file, with all that its aliases stand for


def content(path: Path, most: int) -> bytes:
    """Read a file, a .gz unpacked. Raises ValueError where that is more than `most` bytes; no more are ever read."""
    parts, left = list[bytes](), most + 1
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while part := file.read(min(left, CHUNK)):  # a read takes memory for all that it may return
            parts.append(part)
            left -= len(part)
    found = b"".join(parts)
    if len(found) > most:
        raise ValueError(f"{path} holds more than the {most / MIB:,.0f} MiB that are read of such a file")
    return found


def text(path: Path, most: int = TEXT) -> str:
    """Read a text. Raises ValueError where it is larger, or no UTF-8."""
    return content(path, most).decode()


def from_json(path: Path, most: int = TEXT) -> Any:
    """Read JSON. Raises ValueError where it is larger, none, or nested too deeply."""
    try:
        return json.loads(text(path, most))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


def check_depth(words: str) -> None:
    """Refuse YAML that is nested too deeply, before it is parsed: brackets that stay open, lists in lists. Raises ValueError."""
    depth = 0
    for sign in re.findall(r"[\[{}\]]", words):
        depth += 1 if sign in "[{" else -1
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
    if re.search(rf"(?:[-?:]\s){{{DEEPEST}}}", words):
        raise ValueError("it is nested too deeply")


def check_items(found: Any) -> None:
    """Refuse data of too many items, counted as often as they occur: aliases of YAML are kept once, and written out each time."""
    left, count = [found], 0
    while left:
        one = left.pop()
        inside = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
        count += len(inside)
        if count > ITEMS:
            raise ValueError(f"it holds more than {ITEMS:,} items")
        left.extend(inside)


def check_tensors(path: Path) -> None:
    """Refuse a safetensors file whose header, or a zip archive whose content, is larger than the file can hold. Raises ValueError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(b"PK"):
        check_zip(path, 2 * size + MIB)
    elif head[8:] == b"{" and (header := struct.unpack("<Q", head[:8])[0]) > min(size, HEADER):
        raise ValueError(f"its header says that it has {header:,} bytes, of a file of {size:,}")


def check_zip(path: Path | Any, most: int) -> None:
    """Refuse a zip archive (a path, or a file that is open) that unpacks to more bytes. Raises ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(one.file_size for one in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ValueError(f"it is no zip archive ({error})") from None
    if whole > most:
        raise ValueError(f"it unpacks to {whole / MIB:,.0f} MiB, and at most {most / MIB:,.0f} are read")


def memory() -> int:
    """Bytes of memory of this machine; where it does not say, 16 GiB."""
    if not hasattr(os, "sysconf"):
        return 16 * 1024 * MIB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
