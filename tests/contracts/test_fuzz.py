"""Hostile files: every reader reads a broken file or refuses it in one line, and takes no more memory than the file is worth."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import pickle
import random
import resource
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from normwise import limits

spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[2] / "benchmarks/fuzz.py")
fuzz = sys.modules["fuzz"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)
READERS = fuzz.READERS
SLOW = {"card", "result", "audit", "torch"}


@pytest.mark.filterwarnings("ignore")  # of libraries that read what is broken
@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    sound = reader.sound()
    assert all(fuzz.asked(reader, tmp_path, held) for held in sound)

    @settings(
        max_examples=10 if name in SLOW else 40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(which=st.integers(0, len(sound) - 1), seed=st.integers(0, 2**32))
    def once(which: int, seed: int) -> None:
        fuzz.asked(reader, tmp_path, fuzz.broken(sound[which], random.Random(seed)))

    once()


def zipped(**entries: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return held.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return held.getvalue()


def card(**changes: Any) -> bytes:
    return json.dumps({**fuzz.CARD, **changes}).encode()


def drawn(kind: str, side: int = 4) -> bytes:
    held = io.BytesIO()
    Image.new("L", (side, side)).convert("RGB" if kind == "EPS" else "1").save(held, kind)
    return held.getvalue()


DEEP = b"[" * 200_000
BOMBS = {
    "a batch that makes room for 4 billion objects": ("cifar", b"\x80\x02Nr\xff\xff\xff\xff.", "a pickle that keeps 4,294,967,295"),
    "labels that are a tree": ("cifar", pickle.dumps({"data": None, "labels": [[]]}, 2), "must be a python batch"),
    "a batch that runs a program": ("cifar", b"cos\nsystem\n(S'x'\ntR.", "wants to run code"),
    "an array that is larger than its file": ("npz", zipped(x=header((2**40,)), y=header((1,))), "of shape"),
    "an archive that unpacks without end": ("npz", zipped(x=header((4,)) + bytes(2**27)), "it unpacks to"),
    "a safetensors header of 2^60 bytes": ("safetensors", struct.pack("<Q", 2**60) + b"{}", "its header says"),
    "an image of 81 million pixels": ("image", b"P5 9000 9000 255 " + bytes(9), "9000 x 9000 pixels"),
    "PostScript that is called a picture": ("image", drawn("EPS"), "a format that pillow does not know"),
    "a network of 10^12 channels": ("card", card(model={"name": "resnet", "width": 10**12}), "to train, and this machine has"),
    "a network of 10^9 layers": ("card", card(model={"name": "vit", "depth": 10**9}), "give at most 1202"),
    "10^15 classes": ("card", card(classes=10**15), "to train, and this machine has"),
    "a deep card": ("card", DEEP, "nested too deeply"),
    "a deep record": ("result", DEEP, "nested too deeply"),
    "deep settings": ("yaml", b"a: " + DEEP, "nested too deeply"),
    "lists in lists": ("yaml", b"a:\n" + b"- " * 200_000, "nested too deeply"),
    "aliases of aliases": ("yaml", b"a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + b"".join(b"a%d: &a%d [%s]\n" % (k, k, b",".join([b"*a%d" % (k - 1)] * 9)) for k in range(1, 9)), "more than 100,000 items"),
    "large settings": ("yaml", b"# " + b"x" * 2**20, "more than the 1 MiB"),
    "an entry of 2 MiB": ("robustbench", b" " * 2**21, "more than the 1 MiB"),
    "settings of a question mark": ("yaml", b"?", "is not YAML"),
    "an archive that spans two disks": ("torch", b"PK" + bytes(30) + struct.pack("<4sLQL4s4H2LH", b"PK\6\7", 0, 0, 2, b"PK\5\6", *[0] * 7), "cannot be read as weights"),
    "a pickle of 2^60 bytes": ("safetensors", b"\x80\x8e" + struct.pack("<Q", 2**60) + b"8" * 9, "is not a weights file"),
    "code whose name is two lines": ("torch", b"\x80\x04\x8c\x02os\x8c\x03a\nb\x93.", "wants to run code .os.a.b"),
    "an X of other dimensions": ("svhn", None, "X of shape"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_would_take_all_memory_or_end_in_a_traceback_is_refused(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, held, reason = BOMBS[bomb]
    reader = READERS[name]
    if "without end" in bomb:
        monkeypatch.setattr("normwise.data.arrays.memory", lambda: 2**24)
    if held is None:
        from scipy.io import savemat

        savemat(file := io.BytesIO(), {"X": np.zeros((3, 32, 32, 2), np.uint8), "y": np.ones((2, 1))})
        held = file.getvalue()
    path = tmp_path / reader.file
    path.write_bytes(held)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=reason) as refused:
        reader.read(path)
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_numbers_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    """scipy's reader brings the process down there."""
    from scipy.io import savemat

    savemat(file := io.BytesIO(), {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((2, 1))})
    (path := tmp_path / "a.mat").write_bytes(
        file.getvalue().replace(struct.pack("<II", 2, 6144), struct.pack("<II", 0, 6144))
    )
    with pytest.raises(ValueError, match="got numbers of kind 0"):
        READERS["svhn"].read(path)


def test_a_packed_file_is_unpacked_no_further_than_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(2**22)))
    assert len(limits.content(path, 2**22)) == 2**22
    with pytest.raises(ValueError, match="holds more than the 1 MiB"):
        limits.content(path, 2**20)
    with pytest.raises(ValueError, match="holds more than the 1 MiB"):
        limits.content(Path("/dev/zero"), 2**20)
