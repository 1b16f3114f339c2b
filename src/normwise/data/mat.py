"""Numeric arrays of MATLAB's .mat files, version 5: no further than asked, and nothing that a file can bring down.

scipy's reader ends the whole process at a number whose type it does not know (found by fuzzing, scipy 1.17).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, PACKED = 14, 15
HEAD = 512  # bytes within which flags, dimensions and name of a matrix have to end


class Matrix(NamedTuple):
    """An array of a file: its name and shape, and what reads it."""

    name: str
    shape: tuple[int, ...]
    array: Callable[[], NDArray[Any]]


class _Tag(NamedTuple):
    """What stands at a place: its kind, its bytes from `start` to `end`, and the place of the next."""

    kind: int
    start: int
    end: int
    after: int


def matrices(content: bytes) -> Iterator[Matrix]:
    """The arrays of a file, one after the other. Raises ValueError for another file, and for one that is cut."""
    if content[126:128] != b"IM":
        raise ValueError("no .mat file of version 5")
    place = 128
    while place < len(content):
        tag = _tag(content, place, padded=False)
        body = memoryview(content)[tag.start : tag.end]
        if tag.kind == PACKED:
            yield _matrix(partial(_unpacked, body))
        elif tag.kind == MATRIX:
            yield _matrix(partial(_plain, body))
        place = tag.after


def _plain(body: memoryview, count: int) -> bytes:
    """The first bytes of a matrix."""
    return bytes(body[:count])


def _unpacked(body: memoryview, count: int) -> bytes:
    """The first bytes of a matrix that is packed."""
    try:
        data = zlib.decompressobj().decompress(body, count + 8)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if _tag(data, 0, whole=False).kind != MATRIX:
        raise ValueError("what is packed is no array")
    return data[8:]


def _matrix(read: Callable[[int], bytes]) -> Matrix:
    head = read(HEAD)
    flags = _tag(head, 0)
    sizes = _tag(head, flags.after)
    called = _tag(head, sizes.after)
    shape = struct.unpack(f"<{(sizes.end - sizes.start) // 4}i", head[sizes.start : sizes.end])
    if min(shape, default=-1) < 0:
        raise ValueError(f"an array of shape {shape}")

    def array() -> NDArray[Any]:
        data = read(called.after + 16 + 8 * math.prod(shape))
        numbers = _tag(data, called.after)
        if numbers.kind not in NUMBERS:
            raise ValueError(f"numbers of kind {numbers.kind}")
        values = np.frombuffer(data[numbers.start : numbers.end], "<" + NUMBERS[numbers.kind])
        return values.reshape(shape, order="F")

    return Matrix(head[called.start : called.end].decode("latin-1"), shape, array)


def _tag(data: bytes, place: int, *, padded: bool = True, whole: bool = True) -> _Tag:
    """Read a tag; `whole`: what it says has to be there."""
    if place + 8 > len(data):
        raise ValueError("the file is cut")
    kind, size = struct.unpack_from("<II", data, place)
    if kind >> 16:  # small: its bytes lie within the tag
        kind, size = kind & 0xFFFF, kind >> 16
        tag = _Tag(kind, place + 4, place + 4 + size, place + 8)
    else:
        tag = _Tag(kind, place + 8, place + 8 + size, place + 8 + size + (-size % 8) * padded)
    if whole and tag.end > len(data):
        raise ValueError("the file is cut")
    return tag
