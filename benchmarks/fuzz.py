"""Feeds broken files to every reader of normwise: each is read, or refused with a ValueError of one line; nothing else may happen.

    python benchmarks/fuzz.py OUT [--seconds 120] [--readers idx,npz,...]   # needs atheris; every reader in a process of its own

Code of normwise is instrumented: inputs that reach new lines are kept and changed again.

`READERS` and `broken` serve the tests too (tests/contracts/test_fuzz.py), with hypothesis.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from normwise.config import read_yaml
from normwise.data.arrays import ArrayFile
from normwise.data.cifar import Cifar10
from normwise.data.folder import ImageFolder
from normwise.data.idx import read_idx
from normwise.data.svhn import read_mat
from normwise.models import checkpoints
from normwise.records import commit, provenance, read_results, to_json, write
from normwise.report import audit, robustbench

KEPT = Path(__file__).parents[1] / "results"


class Reader(NamedTuple):
    """A reader, the name of the file that it reads, and sound files to break."""

    file: str
    read: Callable[[Path], object]
    sound: Callable[[], list[bytes]]


def _card(path: Path) -> object:
    return checkpoints.build(checkpoints.card(path.parent), "it")


def _weights(path: Path) -> object:
    return checkpoints.weights(path)


def _cifar(path: Path) -> object:
    return Cifar10()._python(path)


def _saved(write_to: Callable[[io.BytesIO], object]) -> bytes:
    held = io.BytesIO()
    write_to(held)
    return held.getvalue()


def _pictures(*kinds: str) -> list[bytes]:
    from PIL import Image

    return [_saved(lambda held, kind=kind: Image.new("RGB", (5, 4), (9, 99, 199)).save(held, kind)) for kind in kinds]  # type: ignore[misc]


def _mat() -> bytes:
    from scipy.io import savemat

    held = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)}
    return _saved(lambda file: savemat(file, held, do_compression=True))


def _tensors() -> bytes:
    from safetensors.torch import save

    return save({"conv.weight": torch.zeros(2, 3), "bias": torch.ones(2)})


def _batch() -> list[bytes]:
    whole = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
    return [pickle.dumps(whole, protocol) for protocol in (2, 4)]


def _archive() -> bytes:
    arrays = {"x": np.zeros((3, 1, 5, 5), np.uint8), "y": np.arange(3)}
    return _saved(lambda file: np.savez_compressed(file, **arrays))


CARD = {
    "start": "",
    "model": {"name": "resnet", "depth": 8, "width": 4},
    "norm": {"name": "bn"},
    "classes": 3,
    "mean": [0.5],
    "std": [0.5],
}
ENTRY = robustbench.Entry(name="a", dataset="cifar10", clean_acc="90.1", autoattack_acc="50.2").to_json()
YAML = b"data: {name: digits, train_limit: 40}\nthreat: {name: linf, eps: 8/255}\nattacks: [fgsm, {name: pgd, steps: 3}]\nseed: 0\n"
READERS: dict[str, Reader] = {
    "card": Reader("model.json", _card, lambda: [json.dumps(CARD).encode()]),
    "yaml": Reader("config.yaml", read_yaml, lambda: [YAML]),
    "result": Reader("result.json", read_results, lambda: [_smallest("result.json")]),
    "audit": Reader("audit.json", audit.read, lambda: [_smallest("audit.json")]),
    "robustbench": Reader("entry.json", robustbench.read, lambda: [ENTRY.encode()]),
    "idx": Reader("idx", lambda path: read_idx(path, (4, 4)), lambda: [struct.pack(">4I", 0x803, 2, 4, 4) + bytes(32)]),
    "npz": Reader("a.npz", lambda path: ArrayFile(path=str(path)).arrays(), lambda: [_archive()]),
    "cifar": Reader("data_batch_1", _cifar, _batch),
    "svhn": Reader("train_32x32.mat", read_mat, lambda: [_mat()]),
    "image": Reader("a.png", ImageFolder()._image, lambda: _pictures("PNG", "JPEG", "BMP", "WEBP", "PPM")),
    "safetensors": Reader("a.safetensors", _weights, lambda: [_tensors()]),
    "torch": Reader("a.pt", _weights, lambda: [_saved(lambda file: torch.save({"w": torch.zeros(2, 3)}, file))]),
}


def _smallest(name: str) -> bytes:
    return min((path.read_bytes() for path in KEPT.rglob(name)), key=len)


def asked(reader: Reader, folder: Path, held: bytes) -> bool:
    """Whether a file was read; refused, it is in one line. Any other end is an error of the reader's."""
    path = folder / reader.file
    path.write_bytes(held)
    try:
        reader.read(path)
    except ValueError as error:
        message = str(error).strip()
    else:
        return True
    if "\n" in message:
        raise RuntimeError(f"not one line: {message}")
    return False


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**12,
    1e999,
    "",
    "x" * 50,
    "<b>",
    [],
    {},
    [[]],
    {"name": "bn"},
    [1] * 9,
    float("nan"),
    "../../x",
]


def broken(held: bytes, rng: random.Random) -> bytes:
    """A sound file with a few faults: bytes changed, cut, doubled, put in; of JSON also values of another kind."""
    if held[:1] == b"{" and rng.random() < 0.7:
        with contextlib.suppress(ValueError):
            return json.dumps(_changed(json.loads(held), rng)).encode()
    found = bytearray(held)
    for _ in range(rng.randint(1, 4)):
        place, how = rng.randrange(len(found) + 1), rng.randrange(5)
        if how == 0:
            found[place : place + 1] = bytes([rng.randrange(256)])
        elif how == 1:
            found[place : place + 8] = struct.pack(
                rng.choice("<>") + "Q", rng.choice([0, 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1])
            )
        elif how == 2:
            del found[place:]
        elif how == 3:
            found[place:place] = found[place : place + rng.randint(1, 64)]
        else:
            found[place:place] = rng.randbytes(rng.randint(1, 8))
    return bytes(found)


def _changed(tree: Any, rng: random.Random) -> Any:
    """The same data with one value changed, put in or left out."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.2:
        return rng.choice(ODD)
    found: Any = dict(tree) if isinstance(tree, dict) else dict(enumerate(tree))
    key = rng.choice(list(found))
    if rng.random() < 0.1:
        del found[key]
    else:
        found[key] = _changed(found[key], rng)
    return found if isinstance(tree, dict) else list(found.values())


START = """
import sys
import atheris
with atheris.instrument_imports(include=["normwise"]):
    import fuzz
fuzz.fuzz(*sys.argv[1:])
"""


def processor() -> float:
    """Processor seconds of the processes that have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def fuzz(name: str, kept: str, seconds: str) -> None:
    """Let atheris feed one reader; ends the process."""
    import atheris

    reader, corpus, place = READERS[name], Path(kept), tempfile.TemporaryDirectory()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, held in enumerate(reader.sound()):
        (corpus / f"sound{number}").write_bytes(held)

    def once(held: bytes) -> None:
        asked(reader, Path(place.name), held)

    def mutate(held: bytes, most: int, seed: int) -> bytes:
        if seed % 2 or not held:
            return bytes(atheris.Mutate(held, most))
        return broken(held, random.Random(seed))[:most]

    words = [
        name,
        str(corpus),
        f"-max_total_time={seconds}",
        "-rss_limit_mb=4096",
        "-malloc_limit_mb=3000",
        "-timeout=300",
    ]
    atheris.Setup([*words, "-print_final_stats=1"], once, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    """Fuzz every reader for some seconds, each in a process of its own, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--readers", default=",".join(READERS))
    given = parser.parse_args()
    commit()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in given.readers.split(","):
            corpus, before = Path(place) / name, processor()
            words = [sys.executable, "-c", START, name, str(corpus), str(given.seconds)]
            paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
            ran = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, cwd=place)
            stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", ran.stderr))
            wrong = [line for line in (ran.stdout + ran.stderr).splitlines() if re.search(r"Error|ERROR|exception", line)]
            found[name] = {
                "executions": int(stats.get("number_of_executed_units", 0)),
                "executions_per_second": int(stats.get("average_exec_per_sec", 0)),
                "processor_seconds": round(processor() - before),
                "peak_mib": int(stats.get("peak_rss_mb", 0)),
                "corpus_files": len(list(corpus.iterdir())),
                "status": ran.returncode,
                "findings": wrong[:3] if ran.returncode else [],
            }
            print(name, found[name], flush=True)
            write(given.out, to_json({**provenance(), "seconds_per_reader": given.seconds, "readers": found}))


if __name__ == "__main__":
    main()
