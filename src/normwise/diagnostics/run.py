"""Diagnose several networks side by side, and keep the tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..config import choice, choices
from ..data import DATA, Digits, find
from ..diagnostics import DIAGNOSES
from ..evaluation.coupling import coupling_in
from ..evaluation.predictor import check_images, check_network, check_weights
from ..evaluation.preflight import check_trained
from ..models.loading import check_models, is_function, load, report_notes
from ..norms import norm_reads
from ..records import provenance, to_json, write
from ..registry import plain
from ..seeding import generator
from ..threats import THREATS, Linf
from ..types import Batch, Data, Report, ThreatModel, silent
from ..utils.batches import Rows, as_batches
from ..utils.model_state import device_of, digest, moved, refuse_lazy, running
from ..utils.per_row import first_rows
from ..utils.run import check_running, set_up_device
from ..utils.run_folder import check_folder, keep_settings
from .table import Diagnosis, Table

RECORD, SCHEMA = "diagnose.json", 1
EVERY: tuple[Diagnosis, ...] = tuple(kind() for kind in DIAGNOSES.values())


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """Which networks are compared, and how.

    Options
        models      run folders, weights files beside their model.json, hub:USER/NAME, or package.module:function
        weights     a weights file for the function
        data        the data set, by name or path
        threat      what the attacker may do
        only        the diagnoses to make
        rows        number of test images
        seed        every random choice follows from it
        batch_size  images per batch
        device      "cpu", "cuda", "cuda:1", or "auto"
        threads     CPU threads; 0: torch's default
    """

    models: tuple[str, ...] = ()
    weights: str = ""
    data: Data = choice(DATA, Digits(), find)
    threat: ThreatModel = choice(THREATS, Linf())
    only: tuple[Diagnosis, ...] = choices(DIAGNOSES, EVERY)
    rows: int = 200
    seed: int = 0
    batch_size: int = 50
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check_running(self)
        check_models(self, "diagnose")
        if not self.only:
            raise ValueError(f"only names no diagnosis; give some of {', '.join(DIAGNOSES)}, or leave it out")


@dataclass(frozen=True, kw_only=True)
class NetworkDiagnosis:
    """One network: what it is, its tables by diagnosis, and the seconds that each took."""

    model: str
    digest: str
    norm_reads: dict[str, int]
    coupled: bool
    tables: dict[str, Table]
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Diagnosed:
    """The record of a diagnosis. `n` is the number of test images, the same for each network."""

    n: int
    threat: dict[str, Any]
    models: tuple[NetworkDiagnosis, ...]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    schema: int = SCHEMA


def run_diagnose(settings: Diagnose, folder: Path, report: Report) -> Diagnosed:
    """Diagnose networks and write `diagnose.json` and `config.yaml`.

    Raises ValueError for a network or data that cannot be used, and for a folder that another run filled.
    """
    check_folder(settings, folder)
    device = set_up_device(settings)
    views = getattr(settings.data, "views", 1)
    loaded = {name: load(name, settings.weights if is_function(name) else "", views) for name in settings.models}
    models = {name: moved(one.model, device) for name, one in loaded.items()}
    batches = first_rows(settings.data.test(batch_size=settings.batch_size), settings.rows)
    for name, model in models.items():
        _check_all(name, model, batches)
    said = report_notes(loaded.values(), report)
    keep_settings(settings, folder)
    each = diagnose(models, batches, settings.threat, settings.only, seed=settings.seed, report=report)
    found = Diagnosed(
        n=sum(len(batch.y) for batch in batches),
        threat=plain(settings.threat),
        models=tuple(each),
        settings=plain(settings),
        provenance=provenance() | said,
    )
    write(folder / RECORD, to_json(found))
    return found


def diagnose(
    models: Mapping[str, nn.Module] | nn.Module,
    batches: Rows,
    threat: ThreatModel,
    diagnoses: Sequence[Diagnosis] = EVERY,
    *,
    seed: int = 0,
    report: Report = silent,
) -> list[NetworkDiagnosis]:
    """Make every diagnosis of every network, all with the same images and the same draws.

    `models` are networks by the names they get in the record; a network alone is called by its class. A diagnosis that
    cannot be made says why in its table's note, and the others go on. The networks are left as they were. Raises ValueError
    for no batches, for a network, images in [0, 1] and labels that do not go together, for norms that were converted to
    another function and not trained since, and for a lazy layer that has seen no batch.
    """
    batches = as_batches(batches)
    if isinstance(models, nn.Module):
        models = {type(models).__name__: models}
    for name, model in models.items():
        refuse_lazy(model)
        _check_all(name, model, batches)
    each, total, done = [], len(models) * len(diagnoses), 0
    for name, model in models.items():
        tables, seconds = dict[str, Table](), dict[str, float]()
        for diagnosis in diagnoses:
            report(f"{diagnosis.name} of {name}", done, total)
            started = time.perf_counter()
            tables[diagnosis.name] = _made(diagnosis, model, batches, threat, seed)
            seconds[diagnosis.name] = time.perf_counter() - started
            done += 1
        report(f"{name}: {sum(seconds.values()):.0f} s", done, total)
        with running(model, "eval"):
            coupled, read = coupling_in(model, batches, seed=seed).coupled, norm_reads(model)
        each.append(
            NetworkDiagnosis(
                model=name, digest=digest(model), norm_reads=read, coupled=coupled, tables=tables, seconds=seconds
            )
        )
    return each


def _check_all(name: str, model: nn.Module, batches: Sequence[Batch]) -> None:
    """Refuse a network, images and labels that do not go together. Raises ValueError that names the network."""
    device = device_of(model)
    try:
        if not batches:
            raise ValueError("got no batch of images; give at least one")
        check_weights(model)
        check_trained(model)
        classes = check_network(model, Batch(batches[0].x.to(device), batches[0].y.to(device), batches[0].ids))
        for batch in batches[1:]:
            check_images(batch, classes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _made(diagnosis: Diagnosis, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, seed: int) -> Table:
    try:
        return diagnosis(model, batches, threat, generator=generator(seed, "diagnose", diagnosis.name))
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return diagnosis.table((), f"could not be measured: {reason}")
