"""Natural shifts: how much accuracy corruptions cost, and how much of it test-time BatchNorm adaptation recovers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...config import choice
from ...data import CORRUPTIONS, DATA, Cifar10, Cifar10C, Cifar101, Digits, find
from ...data.corruptions import corrupted
from ...data.corruptions.kind import SEVERITIES, check_severity
from ...data.corruptions.rows import strip
from ...limits import from_json
from ...models.loading import Loaded, check_models, check_once, is_function, load, report_notes
from ...norms.surgery.adaptation import share_of, unshared, with_share
from ...records import SCHEMA, provenance, to_json, write
from ...registry import plain, unknown
from ...seeding import generator
from ...types import Batch, Data, Report, silent
from ...utils.hashing import mark_of
from ...utils.model_state import identity, moved, set_mode
from ...utils.per_row import bits
from ...utils.run import check_running, set_up_device
from ...utils.run_folder import check_folder, keep_settings
from ..coupling import coupling_in
from ..predictor import Predictor, check_network
from . import summary
from .metrics import Answers, damage

RECORD, TABLE, CELLS, EXAMPLES = "shifts.json", "shifts.csv", "cells", "examples"
Right = dict[int, NDArray[np.bool_]]  # by severity: whether each row is right
CLEAN, OTHER = "clean", "cifar10.1"
SHOWN = 2  # images in the examples


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """Which networks are tested under which corruptions.

    Options
        models      run folders, weights files beside their model.json, hub:USER/NAME, or package.module:function
        weights     a weights file for the function
        baseline    divide the errors by those of this network (mCE); empty: mean errors only
        data        the data set, by name or path
        images      "published" reads CIFAR-10-C, "generated" makes the images here, "auto" reads the files if they are there
        kinds       the corruptions; empty: all 15
        severities  the severities, from 1 to 5
        adapt       test-time BatchNorm adaptation: shares of batch statistics that norms read; []: no adaptation
        prior       also the share n / (prior + n) for batches of n images; 0: not
        rows        number of test images; only whole batches are used
        seed        every random choice follows from it
        batch_size  images per batch
        device      "cpu", "cuda", "cuda:1", or "auto"
        threads     CPU threads; 0: torch's default
    """

    models: tuple[str, ...] = ()
    weights: str = ""
    baseline: str = ""
    data: Data = choice(DATA, Digits(), find)
    images: Literal["auto", "published", "generated"] = "auto"
    kinds: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    adapt: tuple[float, ...] = (0.0, 0.5, 1.0)
    prior: int = 0
    rows: int = 500
    seed: int = 0
    batch_size: int = 100
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check_running(self)
        check_models(self, "shifts")
        check_once("kinds", self.kinds)
        check_once("severities", self.severities)
        for kind in self.kinds:
            if kind not in CORRUPTIONS:
                raise unknown("corruption", kind, CORRUPTIONS)
        for severity in self.severities or (0,):
            check_severity(severity)
        for share in self.adapt:
            if not 0 <= share <= 1:
                raise ValueError(f"adapt holds {share:g}; give shares of the batch from 0 to 1")
        if self.prior < 0:
            raise ValueError(f"prior is {self.prior}; give a whole number >= 0")
        if self.images == "published" and not isinstance(self.data, Cifar10):
            raise ValueError(
                f"images is published, which is CIFAR-10-C; data is {self.data.name}: give images generated, or data cifar10"
            )


class _State(NamedTuple):
    """A network that reads a share of the batch; the first of a network is that as it was given."""

    alpha: float | None
    own: bool
    predictor: Predictor
    coupled: bool


def run_shifts(settings: Shifts, folder: Path, report: Report = silent) -> dict[str, Any]:
    """Measure, and write `shifts.json`, `shifts.csv`, `config.yaml` and example images; returns the record as plain data.

    Answers to each kind are kept in `cells` as soon as they are there, and a killed run resumes from them. Raises ValueError
    for networks or data that cannot be used, and for a folder that holds a run with other settings.
    """
    check_folder(settings, folder)
    device, batches = set_up_device(settings), _whole(settings)
    networks, loaded = dict[str, list[_State]](), list[Loaded]()
    for name in dict.fromkeys((*settings.models, *([settings.baseline] if settings.baseline else []))):
        loaded.append(load(name, settings.weights if is_function(name) and name in settings.models else ""))
        model = moved(loaded[-1].model, device)
        check_network(model, Batch(*(tensor.to(device) for tensor in batches[0])))
        networks[name] = _states(model, settings, batches)
    said = report_notes(loaded, report)
    deaf = [name for name, states in networks.items() if len(states) == 1 and states[0].alpha is None]
    if settings.adapt and deaf:
        said["adapt"] = (
            f"without running statistics to mix with batch statistics, tested only as they are: {', '.join(deaf)}"
        )
        report(f"adapt: {said['adapt']}", 0, 0)
    where, others = _sources(settings, len(batches[0].y))
    keep_settings(settings, folder)
    kinds = settings.kinds or tuple(CORRUPTIONS)
    asked = {CLEAN: (0,), **dict.fromkeys(kinds, settings.severities), **({OTHER: (0,)} if others else {})}
    found: dict[str, dict[str, list[Right]]] = {name: {} for name in networks}
    for done, (kind, levels) in enumerate(asked.items()):

        @cache
        def images(severity: int, kind: str = kind) -> list[Batch]:
            return others if kind == OTHER else _images(settings, where, batches, kind, severity)

        for number, (name, states) in enumerate(networks.items()):
            key = [kind, where, settings.seed, *map(mark_of, others if kind == OTHER else batches)]
            found[name][kind] = _cell(folder / CELLS / f"{number}-{kind}.json", key, states, images, levels)
        if kind in kinds and not (picture := folder / EXAMPLES / f"{kind}.png").exists():
            write(picture, strip([batches[0].x[:SHOWN], *(images(level)[0].x[:SHOWN] for level in levels)]))
        report(f"{kind}: {_so_far(found, kind)}", done + 1, len(asked))
    made = _record(settings, networks, found, where, batches)
    made["provenance"] |= said
    record: dict[str, Any] = plain(made)
    write(folder / RECORD, to_json(record))
    write(folder / TABLE, summary.table(made["networks"]))
    return record


def _whole(settings: Shifts) -> list[Batch]:
    """The clean rows in whole batches. Raises ValueError for images that cannot be corrupted."""
    size = min(settings.rows, settings.batch_size)
    batches = [batch for batch in settings.data.test(batch_size=size)[: settings.rows // size] if len(batch.y) == size]
    batches = batches or list(settings.data.test(batch_size=size)[:1])  # fewer rows than one batch
    next(iter(CORRUPTIONS.values()))(batches[0].x[:1], 1, generator=generator(0))
    return batches


def _states(model: nn.Module, settings: Shifts, batches: list[Batch]) -> list[_State]:
    """The network as it is, and with each other share that is asked for, where it has running statistics."""
    own, stay = share_of(model), unshared(model)
    if stay and (settings.adapt or settings.prior):
        raise ValueError(
            f"{type(model).__name__} cannot read a share of the batch, as adapt asks: {stay} cannot; "
            'say --adapt "[]" and no prior'
        )
    size = len(batches[0].y)
    asked = [*settings.adapt, *([size / (settings.prior + size)] if settings.prior else [])]
    shares = [share for share in dict.fromkeys(asked) if own is not None and share != own]
    alpha = None if own is None or math.isnan(own) else own
    made: list[_State] = []
    for share, network in ((alpha, model), *((share, with_share(model, share)) for share in shares)):
        made.append(_State(share, network is model, *predicting(network, batches, settings.seed)))
    return made


def predicting(model: nn.Module, batches: Sequence[Batch], seed: int) -> tuple[Predictor, bool]:
    """The predictor of a network in evaluation mode, and whether rows are coupled."""
    predictor = Predictor(set_mode(model, "eval"), seed)
    coupling = coupling_in(model, batches, seed=seed)
    predictor.adjust(coupling)
    return predictor, coupling.coupled


def _sources(settings: Shifts, size: int) -> tuple[str, list[Batch]]:
    """Where images come from, and CIFAR-10.1 in whole batches of this size, where it is there."""
    if not isinstance(settings.data, Cifar10) or settings.images == "generated":
        return "generated", []
    root, others = settings.data.root, list[Batch]()
    if (new := Cifar101(root=root)).present:
        others = [batch for batch in new.test(batch_size=size)[: settings.rows // size] if len(batch.y) == size]
    there = settings.images == "published" or Cifar10C(root=root).present
    return ("published" if there else "generated"), others


def _images(settings: Shifts, where: str, batches: list[Batch], kind: str, severity: int) -> list[Batch]:
    """The rows of the batches under one corruption, made here or read; kind `clean` as they are."""
    if kind == CLEAN:
        return batches
    if where == "generated":
        return [corrupted(batch, CORRUPTIONS[kind], severity, settings.seed) for batch in batches]
    stored = Cifar10C(kind=kind, severity=severity, root=settings.data.root)  # type: ignore[attr-defined]
    return [stored.of(batch) for batch in batches]


def _cell(
    path: Path,
    about: Sequence[Any],
    states: Sequence[_State],
    images: Callable[[int], list[Batch]],
    levels: Sequence[int],
) -> list[Right]:
    """Whether each row is right, per state and severity: read where the file is of the same, else asked and written."""
    reading = [[state.alpha, identity(state.predictor.model), state.predictor.draws] for state in states]
    key = hashlib.sha256(json.dumps([list(about), list(levels), reading]).encode()).hexdigest()
    try:
        held = from_json(path)
        right = held["right"] if held["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or torn
        right = None
    if right is None:
        right = [[answered(state.predictor, images(level)) for level in levels] for state in states]
        write(path, json.dumps({"key": key, "right": right}))
    return [{level: np.array(list(hits)) == "1" for level, hits in zip(levels, each, strict=True)} for each in right]


def answered(predictor: Predictor, batches: Sequence[Batch]) -> str:
    """Ask the network; a 1 for each row that it is right on, a 0 for each other."""
    hits = [predictor.answers(batch.x.to(predictor.device), batch.y)[0].cpu() == batch.y for batch in batches]
    return bits(torch.cat(hits))


def _so_far(found: Mapping[str, Mapping[str, list[Right]]], kind: str) -> str:
    shares = ((name, np.mean(list(each[kind][0].values()))) for name, each in found.items() if kind in each)
    return ", ".join(f"{name} {100 * share:.1f}%" for name, share in shares)


def _record(
    settings: Shifts,
    networks: Mapping[str, list[_State]],
    found: Mapping[str, Mapping[str, list[Right]]],
    where: str,
    batches: list[Batch],
) -> dict[str, Any]:
    """Everything that was measured, and on what."""
    kinds, size = settings.kinds or tuple(CORRUPTIONS), len(batches[0].y)

    def answers(name: str, number: int) -> Answers:
        each = {kind: right[number] for kind, right in found[name].items()}
        others = {OTHER: each[OTHER][0]} if OTHER in each else {}
        cells = {kind: each[kind] for kind in kinds}
        coupled = networks[name][number].coupled
        return Answers(coupled=coupled, size=size, clean=each[CLEAN][0], cells=cells, others=others)

    baseline = answers(settings.baseline, 0) if settings.baseline else None
    damages = [
        damage(name, state.alpha, answers(name, number), answers(name, 0) if number else None, baseline)
        for name, states in networks.items()
        for number, state in enumerate(states)
    ]
    side = min(batches[0].x.shape[2:])
    ce = summary.called(kinds, settings.severities)
    return {
        "schema": SCHEMA,
        "settings": settings,
        "images": where,
        "n": len(batches) * size,
        "batch_size": size,
        "kinds": summary.conditions(kinds, settings.severities, side, where == "generated"),
        "over": summary.averages(kinds, settings.severities),
        "ce": ce,
        "networks": damages,
        "sentences": summary.sentences(damages, summary.averages(kinds, settings.severities), ce, settings.baseline),
        "provenance": provenance(),
    }
