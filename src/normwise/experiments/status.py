"""How far a run is, read from its folder: what is done, what is under way, what is left, and for how long."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..auditing.auditor import Audit
from ..config import build, read_yaml
from ..evaluation.store import PARTS
from ..limits import from_json, text
from ..records import read_result
from ..report import audit
from ..training.loop import LOG
from ..types import silent
from ..utils.claims import Claims
from ..utils.leftovers import below
from ..utils.run import RESULT
from ..utils.run_folder import CONFIG, PRETRAINED
from . import audits, improve
from .evaluation_run import Evaluate
from .experiment import Experiment
from .grid import Bench, cells, pretrained
from .improve import Improve
from .launch import LOCKS
from .papers.cell_store import CellStore
from .papers.papers import CELLS
from .papers.run import Reproduce, planned

State = Literal["done", "under way", "waiting", "failed"]
LATER = {"goal", "backend", "budget", "pretrained"}  # settings that folders of earlier versions may lack
RECENT = 120  # seconds since the last file was written, within which work counts as going on


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a run: a cell, a training, or an evaluation. `share` of it is done, in `seconds` of work so far."""

    name: str
    state: State
    share: float
    seconds: float
    says: str = ""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run is.

    verb          which verb made the folder
    parts         its pieces, in order
    seconds_left  of work, for one process, by what the finished pieces took; None: nothing is known yet
    written       seconds since anything in the folder was written
    """

    verb: str
    parts: tuple[Part, ...]
    seconds_left: float | None
    written: float

    @property
    def done(self) -> int:
        """Number of finished pieces."""
        return sum(part.state == "done" for part in self.parts)

    @property
    def running(self) -> bool:
        """Whether something was written a moment ago, and something is left."""
        return self.done < len(self.parts) and self.written < RECENT


def status(folder: Path) -> Status:
    """Read how far the run in a folder is. Nothing is written, and no process is asked.

    Raises ValueError for a folder without settings, or of a verb whose work is not kept in pieces.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no run (no {CONFIG}); give the folder that was --out")
    settings = read_yaml(folder / CONFIG)
    for verb, kind, parts_of in _VERBS:
        known = {field.name for field in fields(kind)}
        if settings.keys() <= known and known - settings.keys() <= LATER:
            parts = parts_of(build(kind, settings), folder)
            return Status(verb=verb, parts=tuple(parts), seconds_left=_left(parts), written=_since(folder))
    verbs = ", ".join(dict.fromkeys(verb for verb, *_ in _VERBS))
    raise ValueError(f"{folder} is the run of a verb that is quick, or keeps no pieces; status knows {verbs}")


def _left(parts: list[Part]) -> float | None:
    """Seconds of work that are left: pieces take what the begun ones take on the mean."""
    if all(part.state == "done" for part in parts):
        return 0.0
    begun = [part for part in parts if part.share > 0]
    if not begun:
        return None
    each = sum(part.seconds for part in begun) / sum(part.share for part in begun)
    return each * sum(1 - part.share for part in parts)


def _since(folder: Path) -> float:
    return max(0.0, time.time() - max(_times(below(folder))))


def _times(paths: Iterable[Path]) -> list[float]:
    """When files were written; one that is taken away meanwhile is left out."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(path.stat().st_mtime)
    return found


def _batches(folder: Path) -> list[Path]:
    """The finished batches below a folder."""
    return [path for path in below(folder / PARTS) if path.suffix == ".safetensors"]


def _trained(e: Experiment, folder: Path, name: str = "train") -> Part:
    if (folder / RESULT).is_file():
        found = read_result(folder / RESULT)
        seconds = found.evaluation.seconds + (found.training.seconds if found.training else 0.0)
        worst = found.evaluation.headline
        return Part(
            name=name,
            state="done",
            share=1.0,
            seconds=seconds,
            says=f"clean {found.evaluation.clean_accuracy}, worst {worst}",
        )
    last = _last_epoch(folder / LOG)
    if not last:
        return Part(name=name, state="waiting", share=0.0, seconds=0.0)
    says, share = (
        f"epoch {last['epoch']} of {e.schedule.epochs}",
        last["epoch"] / (e.schedule.epochs + 1),
    )  # and the evaluation
    return Part(name=name, state="under way", share=share, seconds=last["seconds"], says=says)


def _last_epoch(log: Path) -> dict[str, Any]:
    """The last line of a log that is whole; empty where there is none."""
    try:
        lines = text(log).splitlines() if log.is_file() else []
    except UnicodeDecodeError:
        lines = []
    for line in reversed(lines):
        try:
            found = dict(json.loads(line))
            epoch, seconds = int(found["epoch"]), float(found["seconds"])
            if math.isfinite(seconds):
                return {"epoch": epoch, "seconds": seconds}
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    return {}


def _training(e: Any, folder: Path) -> list[Part]:
    return [_trained(e, folder)]


def _bench(e: Any, folder: Path) -> list[Part]:
    places = {PRETRAINED: pretrained(e), "cells": cells(e, folder)}
    return [
        _claimed(_trained(one, folder / place / name, name), folder, name)
        for place, found in places.items()
        for name, one in found.items()
    ]


def _claimed(part: Part, folder: Path, name: str) -> Part:
    """A piece that workers share, with who works on it, who has died over it, or why it has failed."""
    claims = Claims(folder / LOCKS)
    if part.state == "done":
        return part
    if why := claims.failure(name):
        return replace(part, state="failed", says=why)
    if (who := claims.holder(name)) is None:
        return part
    there = f"process {who.pid} of {who.host}" + ("" if who.there else " has died; the next worker goes on")
    return replace(part, state="under way", says=", ".join(filter(None, (part.says, there))))


def _evaluation(e: Any, folder: Path) -> list[Part]:
    if (folder / RESULT).is_file():
        found = read_result(folder / RESULT).evaluation
        return [Part(name="evaluate", state="done", share=1.0, seconds=found.seconds, says=f"worst {found.headline}")]
    places = [folder / PARTS, *(folder / PARTS / kind for kind in e.columns.kinds)]
    made = _times(path for path in _batches(folder) if path.parent in places)
    batches = len(e.data.test(batch_size=e.batch_size)) * len(places)
    if not made:
        return [Part(name="evaluate", state="waiting", share=0.0, seconds=0.0, says=f"{batches} batches")]
    seconds, says = max(made) - min(_times(below(folder)), default=min(made)), f"{len(made)} of {batches} batches"
    return [Part(name="evaluate", state="under way", share=len(made) / batches, seconds=seconds, says=says)]


def _audit(e: Any, folder: Path) -> list[Part]:
    return [_audited(e, folder, "audit")]


def _audits(e: Any, folder: Path) -> list[Part]:
    return [_claimed(_audited(one, folder / "cells" / name, name), folder, name) for name, one in audits.cells(e).items()]


def _audited(e: Audit, folder: Path, name: str) -> Part:
    """An audit, whose budget is the most that it takes."""
    if (folder / audit.RECORD).is_file():
        found = audit.read(folder / audit.RECORD)
        return Part(name=name, state="done", share=1.0, seconds=found.get("seconds", 0.0), says=found["verdict"])
    if not (folder / CONFIG).is_file():
        return Part(name=name, state="waiting", share=0.0, seconds=0.0)
    made = _times(_batches(folder))
    began = (folder / CONFIG).stat().st_mtime  # its settings are written again whenever it goes on
    seconds = max(0.0, max(made, default=began) - began)
    says = f"{len(made)} batches kept, {e.budget:g} minutes at most"
    state: State = "under way" if made else "waiting"
    return Part(name=name, state=state, share=min(seconds / (60 * e.budget), 0.99), seconds=seconds, says=says)


def _improved(e: Any, folder: Path) -> list[Part]:
    """The network as it is given, every way, and the audits; what was not tried is done when all is."""
    over, found = (folder / improve.RECORD).is_file(), list[Part]()
    pieces = {"before": folder / "before.json", **{way: folder / f"{way}.json" for way in e.ways}}
    pieces |= {when: folder / when / audit.RECORD for when in ("audit-before", "audit-after")}
    for name, file in pieces.items():
        state: State = "done" if over or file.is_file() else "waiting"
        if state == "waiting" and any(place.is_dir() for place in (folder / name, folder / "cells" / name)):
            state = "under way"
        seconds = _seconds_in(file) if file.is_file() else 0.0
        says = "was not tried" if over and not file.is_file() else ""
        found.append(Part(name=name, state=state, share=float(state == "done"), seconds=seconds, says=says))
    return found


def _seconds_in(file: Path) -> float:
    """What a piece of `improve` took. Raises ValueError naming the file where it is none."""
    try:
        seconds = float(from_json(file)["seconds"])
        if 0 <= seconds < math.inf:
            return seconds
    except (ValueError, TypeError, KeyError):
        pass
    raise ValueError(f"{file} is not what improve writes; delete it, and the same command makes it again")


def _cells(e: Any, folder: Path) -> list[Part]:
    store, found = CellStore(CELLS, e.scale, folder, silent), list[Part]()
    for name, seed in planned(e):
        record, place, called = store.record(name, seed), store.place(name, seed), f"{name} seed {seed}"
        if record is not None:
            says = f"clean {100 * record['figures']['clean']:.1f}%"
            found.append(Part(name=called, state="done", share=1.0, seconds=record["seconds"], says=says))
        else:
            part = Part(name=called, state="under way" if place.is_dir() else "waiting", share=0.0, seconds=0.0)
            found.append(_claimed(part, folder, f"{name}-seed{seed}"))
    return found


_VERBS: tuple[tuple[str, Any, Callable[[Any, Path], list[Part]]], ...] = (
    ("train", Experiment, _training),
    ("bench", Bench, _bench),
    ("evaluate", Evaluate, _evaluation),
    ("audit", Audit, _audit),
    ("audit", audits.Audits, _audits),
    ("improve", Improve, _improved),
    ("reproduce", Reproduce, _cells),
)
