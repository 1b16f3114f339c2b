"""Weights in and out: safetensors with a JSON file (the card) beside them, or any weights-only file."""

from __future__ import annotations

import argparse
import json
import pickletools
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..limits import SETTINGS, check_tensors, from_json
from ..models import MODELS
from ..norms import NORMS
from ..records import write
from ..utils.errors import one_line
from ..utils.network_size import check_size

WEIGHTS, CARD = "model.safetensors", "model.json"


def save(model: nn.Module, folder: Path, card: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and its card, `model.json`: what is needed to build the network again."""
    from safetensors.torch import save as to_bytes

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write(folder / WEIGHTS, to_bytes(tensors))
    write(folder / CARD, json.dumps(card, indent=2) + "\n")


def card(folder: Path) -> dict[str, Any]:
    """Read the card of a run folder. Raises ValueError where there is none."""
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder} holds no {CARD}, which says what network it is; give the folder of a normwise train")
    try:
        return dict(from_json(path, SETTINGS))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no card of a network ({one_line(error)}); restore it, or train again") from None


def build(card: Mapping[str, Any], source: str) -> nn.Module:
    """Build the network that the card of `source` describes, untrained. Raises ValueError for a card that describes none."""
    try:
        norm, make = NORMS.make(card["norm"]) if card["norm"] else None, MODELS.make(card["model"])
        about: dict[str, Any] = {name: card[name] for name in ("classes", "mean", "std")}
        check_size(lambda: make(norm, **about), f"network as {source} describes")
        model: nn.Module = make(norm, **about)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the {CARD} of {source} describes no network ({one_line(error)}); restore it, or train again"
        ) from None
    return model


class Weights(NamedTuple):
    """A state dict as a file holds it, the file, and what has to be said of how it was found there."""

    state: Mapping[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()


def weights(path: Path) -> Weights:
    """Read a state dict: safetensors, or .pt/.pth/.th that holds tensors, numbers and text only (no code is ever run).

    A dict around it is opened (`state_dict`, `model`, `net`, `ema`, ..., or the only entry that holds tensors), numbers
    beside the tensors are left out, and the notes say so. Raises ValueError for a file that is missing, truncated or
    foreign, and for a pickle that wants to run code.
    """
    if not path.is_file():
        raise ValueError(f"no weights file {path}; give an existing .safetensors, .pt, .pth or .th file")
    if kind := _foreign(path):
        raise ValueError(f"{path} is {kind}, not a weights file; {_ADVICE}")
    return _opened(_read(path), str(path))


_ADVICE = "save the state dict alone: torch.save(model.state_dict(), path)"


def _foreign(path: Path) -> str:
    """What a file is that is known to hold no weights; nothing where that is not known."""
    with path.open("rb") as file:
        head = file.read(256)
    begins = {
        b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches what it points to)",
        b"\x89HDF": "an HDF5 file, of Keras perhaps",
        b"\x93NUMPY": "a numpy array",
    }
    known = next((kind for start, kind in begins.items() if head.startswith(start)), "")
    if not head:
        return "empty"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page"
    if path.suffix == ".onnx":
        return "an ONNX graph"
    if not head.startswith(b"PK"):
        return known
    try:
        with zipfile.ZipFile(path) as archive:
            held = archive.namelist()
    except Exception:  # a broken one
        return known
    inside = {
        "/constants.pkl": "a TorchScript archive",
        ".npy": "an archive of numpy arrays",
        "/archive_format": "an exported program",
        "serialized_exported_program.json": "an exported program",
    }
    return next((kind for end, kind in inside.items() if any(name.endswith(end) for name in held)), "")


def _read(path: Path) -> Any:
    """What a file of tensors holds. Raises ValueError where it holds something else."""
    with path.open("rb") as file:
        head = file.read(9)
    try:
        check_tensors(path)
        if path.suffix == ".safetensors" or head[8:] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_harmless()):  # pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked := named[1] if named else _named_by_a_pickle(path) if head.startswith(b"\x80") else "":
            raise ValueError(f"{path} was refused: {_code(path, asked)}; {_ADVICE}") from None
        if head.startswith(b"PK") or head[8:] == b"{":
            reason = f"cannot be read as weights ({one_line(error)[:120]}); it is truncated, or another kind of file: download it again"
            raise ValueError(f"{path} {reason}") from None
        raise ValueError(f"{path} is not a weights file, or a damaged one; download it again, or {_ADVICE}") from None


def _harmless() -> list[Any]:
    """What stands beside weights and runs nothing when it is read: numpy's numbers and arrays, and the options of a script."""
    numbers = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"}
    makers: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]]  # of a number, of an array
    earlier = [(one, f"numpy.core.multiarray.{one.__name__}") for one in makers]  # as numpy 1 wrote them
    return [*makers, *earlier, np.dtype, np.ndarray, *numbers, argparse.Namespace]


def _named_by_a_pickle(path: Path) -> str:
    """The first function or class that a pickle of Python's own names, without running anything; nothing if it is no pickle."""
    texts: list[str] = []
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as held, suppress(ValueError):
        for opcode, argument, _ in pickletools.genops(held):  # type: ignore[arg-type]  # a file makes room for what it says
            if opcode.name in ("GLOBAL", "STACK_GLOBAL"):
                named = ".".join(str(argument).split() if opcode.name == "GLOBAL" else texts[-2:])
                return "".join(c if c.isprintable() else "?" for c in named[:100])
            if isinstance(argument, str):
                texts.append(argument)
    return ""


def _code(path: Path, asked: str) -> str:
    """Say what a pickle is that names more than tensors: a whole model, or something else that would be run."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of the old format
        names = [asked]
    if any(name.startswith("torch.nn.modules.") for name in (asked, *names)):
        return f"it is a whole pickled model, and reading it runs its code ({asked})"
    return f"it wants to run code ({asked})"


_OPENED = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "params",
    "weights",
)  # rather than others beside them
_PASSED = ("optim", "sched", "scaler")  # what holds tensors of training, not of a network


def _opened(held: Any, source: str) -> Weights:
    """Find the state dict in what a file holds. Raises ValueError where there is none, or none is meant."""
    notes = []
    while inside := _states(held):
        key = next((key for key in _OPENED if key in inside), inside[0])
        if len(inside) > 1 and key not in _OPENED:
            raise ValueError(
                f"{source} holds several state dicts ({_some(inside)}), and it is not clear which to read; save one alone"
            )
        others = [one for one in inside if one != key]
        notes.append(f"{source}: its entry {key} was read" + (f", and not {_some(others)}" if others else ""))
        held = held[key]
    if not _holds(held):
        contents = f", but {_some(list(map(str, held)))}" if isinstance(held, Mapping) and held else ""
        raise ValueError(f"{source} holds no state dict (a dict of tensors){contents}; {_ADVICE}")
    if others := [key for key, value in held.items() if not isinstance(value, Tensor)]:
        notes.append(f"{source}: {_some(others)} beside the tensors was left out")
    return Weights({key: value for key, value in held.items() if isinstance(value, Tensor)}, source, tuple(notes))


def _states(held: Any) -> list[str]:
    """The entries that hold a state dict, at whatever depth."""
    entries = held.items() if isinstance(held, Mapping) else ()
    return [
        key
        for key, value in entries
        if isinstance(key, str) and not key.lower().startswith(_PASSED) and (_holds(value) or _states(value))
    ]


def _holds(held: Any) -> bool:
    """Whether it is a dict of tensors, with numbers among them perhaps."""
    named = isinstance(held, Mapping) and all(isinstance(key, str) for key in held)
    return named and any(isinstance(value, Tensor) for value in held.values())


def load_into(model: nn.Module, found: Weights) -> tuple[str, ...]:
    """Load a state dict into the model, every key and shape matching; returns what has to be said of how it was found.

    A prefix that is around the network's own keys (`module.`, `model.`, `_orig_mod.`, several of them) is taken off, or put
    before them where the network itself is wrapped so; what stands beside the prefix is left out. Raises ValueError saying
    what does not match.
    """
    own = {_plain(key): key for key in model.state_dict()}
    while own and all(key.startswith("module.") for key in own):
        own = {key.removeprefix("module."): kept for key, kept in own.items()}
    given = {_plain(key): key for key in found.state}
    prefix = _prefix(own, given)
    mine = {key: kept for key, kept in given.items() if key.startswith(prefix)}
    state = {own.get(short := key[len(prefix) :], short): found.state[kept] for key, kept in mine.items()}
    shapes = {key: value.shape for key, value in model.state_dict().items() if not is_lazy(value)}
    wrong = [
        f"{key} {tuple(value.shape)} for {tuple(shapes[key])}"
        for key, value in state.items()
        if key in shapes and shapes[key] != value.shape
    ]
    problems = [f"has other shapes: {_some(wrong)}"] if wrong else []
    if not wrong:
        missing, unexpected = model.load_state_dict(state, strict=False)
        problems = ([f"lacks {_some(missing)}"] if missing else []) + (
            [f"has unknown {_some(unexpected)}"] if unexpected else []
        )
    if problems:
        raise ValueError(
            f"{found.source} does not fit {type(model).__name__}: it {' and '.join(problems)}; its own keys are "
            f"{_some(list(found.state))}; give the weights of this network"
        )
    first = next(iter(mine), "")
    around = given[first].removesuffix(first[len(prefix) :]) if first else ""
    notes = [f"{found.source}: the prefix {around} was taken off its keys"] if around else []
    if left := [kept for key, kept in given.items() if key not in mine]:
        notes.append(f"{found.source}: {_some(left)} beside {prefix} was left out")
    return (*found.notes, *notes)


def _plain(key: str) -> str:
    """A key without what torch.compile puts into it."""
    return key.replace("_orig_mod.", "")


def _prefix(own: Mapping[str, str], given: Mapping[str, str]) -> str:
    """What stands before most of the network's keys in a file; of equals the first."""
    counts = Counter[str]()
    for key in given:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return max(counts, key=lambda prefix: counts[prefix], default="")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
