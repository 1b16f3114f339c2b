"""Where cells are made: trained, measured, and recorded under the digest of their settings."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...limits import from_json
from ...models import checkpoints
from ...norms import AdaptiveNorm, sites
from ...norms.surgery.trainable import materialized
from ...records import provenance, to_json, write
from ...registry import DIGEST_VERSION, plain, without_defaults
from ...seeding import derive, drawing
from ...threats import Linf
from ...training.loop import Diverged, Fitted, fit
from ...training.options import FitOptions
from ...training.schedule import Schedule
from ...types import Report
from ...utils.model_state import set_mode
from ..tuning import Search, Try, Tuning, search
from . import figures
from .cell import Cell
from .judging import measured
from .published import FILES
from .scale import OTHER, STREAM, Scale, check_other, other

RECORD, WEIGHTS, SEARCH, AGAIN = "record.json", "model.safetensors", "search.json", "again.json"
TUNED = 0  # the seed on which every arm chooses its learning rate
LEFT_OUT = (
    "system",
    "about",
    "begin",
    "needs",
    "recipe",
    "apart",
    "every",
)  # of a cell: recorded otherwise, or no setting of its record
LEFT_OUT_OF_SCALE = {"first": None, "looks": None, "cells": None, "published": None}  # of a scale
ASKED_UNDER = {"patches": "patch", "columns": "columns"}  # settings of a scale that are those of these cells alone


class CellStore:
    """Where the cells of one scale and one folder are made, and on which device; that is no setting of theirs."""

    def __init__(
        self,
        cells: Mapping[str, Cell],
        scale: Scale,
        folder: Path,
        report: Report,
        device: torch.device | str = "cpu",
    ) -> None:
        self.cells, self.scale, self.folder, self.report, self.device = cells, scale, folder, report, device
        self._scales: dict[tuple[bool, bool, int, int], Scale] = {}

    def place(self, name: str, seed: int) -> Path:
        """The folder of a cell: one for each of its settings, so that no record takes the place of another."""
        return self.folder / "cells" / f"{name}-seed{seed}-{self.digest(name, seed)[:8]}"

    def scale_of(self, cell: Cell, seed: int = 0) -> Scale:
        """What a cell is made with: the scale with the seed's split, of other data or of clips where the cell wants some."""
        own = self._own(cell)
        scale = replace(own, data=other(own)) if cell.other else own
        return scale.of_seed(seed, cell.stream)

    def _own(self, cell: Cell) -> Scale:
        """The scale, or that of its clips. Raises ValueError where it has none."""
        if not cell.clips:
            return self.scale
        if not self.scale.clips:
            raise ValueError(f"{cell.name} is made of clips, and this size has none; take the preset smoke")
        return self.scale.clips

    def _loaded(self, cell: Cell, seed: int) -> Scale:
        """The same scale as before where it is the same, so that its data is read once."""
        key = (cell.other, cell.clips, cell.stream, seed)
        if key not in self._scales:
            self._scales = dict([*self._scales.items()][-1:]) | {key: self.scale_of(cell, seed)}
        return self._scales[key]

    def digest(self, name: str, seed: int) -> str:
        """A hash of all that a cell's record follows from, by its settings: its own, the scale's, and those of what it needs."""
        cell, scale = self.cells[name], self.scale_of(self.cells[name], seed)
        own = {key: value for key, value in without_defaults(cell).items() if key not in LEFT_OUT}
        shared = {
            key: value
            for key, value in without_defaults(replace(scale, clips=None)).items()
            if ASKED_UNDER.get(key, cell.under) == cell.under
        }
        begin = [cell.begin.__qualname__, without_defaults(inspect.getclosurevars(inspect.unwrap(cell.begin)).nonlocals)]
        settings = {
            "digest_version": DIGEST_VERSION,
            "cell": {**own, "begin": begin},
            "recipe": without_defaults(cell.recipe(scale)) if cell.recipe else None,
            "scale": {**shared, **LEFT_OUT_OF_SCALE, "data": {**without_defaults(scale.data), "root": None}},
            "published": FILES[cell.published] if cell.published else None,
            "seed": seed,
            "needs": [self.digest(need, seed) for need in cell.needs],
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def record(self, name: str, seed: int) -> dict[str, Any] | None:
        """The finished record of a cell, if there is one and it was made with these settings."""
        return found if (found := read(self.place(name, seed))) and found["digest"] == self.digest(name, seed) else None

    def records(self) -> dict[int, dict[str, dict[str, Any]]]:
        """All finished records in the folder, by seed and cell: of these settings, or history.

        History are records from before digests had a version; they are shown, and nothing is made from them.
        """
        found: dict[int, dict[str, dict[str, Any]]] = {}
        for path in sorted((self.folder / "cells").glob("*")):
            record = read(path)
            if record and (name := record["cell"]) in self.cells:
                seed, history = record["seed"], "digest_version" not in record
                record["place"] = path.name
                record["again"] = (path / AGAIN).exists() and from_json(path / AGAIN)["loss"] != record["training"]["loss"]
                if history or (record["digest"] == self.digest(name, seed) and path == self.place(name, seed)):
                    found.setdefault(seed, {})[name] = record
        return found

    def untrained(self, name: str, seed: int) -> nn.Module:
        """The network of a cell before it trains, on the device; new weights are drawn on the CPU, the same bits each time."""
        cell = self.cells[name]
        given = [self.network(need, seed) for need in cell.needs]
        with drawing(derive(seed + STREAM * cell.stream, "weights")):
            return cell.begin(self._loaded(cell, seed), *given).to(self.device)

    def network(self, name: str, seed: int) -> nn.Module:
        """The trained network of a cell, on the device. Raises ValueError if it was not made yet, or its weights are not there."""
        cell, path = self.cells[name], self.place(name, seed) / WEIGHTS
        if cell.recipe is None:
            return self.untrained(name, seed).eval()
        if not path.exists():
            raise ValueError(f"{path} is not there; make the cell {name} first")
        model = materialized(cell.recipe(self._own(cell)).prepare(self.untrained(name, seed)))
        checkpoints.load_into(model, checkpoints.weights(path))
        return set_mode(model, "eval")

    def make(self, name: str, seed: int) -> dict[str, Any]:
        """Train and measure a cell; a stopped one resumes. Returns its record, which is written too.

        A cell that has its record and not its weights trains again, and its record stays.
        """
        if not (record := self.record(name, seed)):
            return self._make(name, seed)
        if self.weightless(name, seed):
            self._train_again(name, seed, record["training"])
        return record

    def weightless(self, name: str, seed: int) -> bool:
        """Whether a cell that trains has no weights in the folder, as the records of a repository."""
        return self.cells[name].recipe is not None and not (self.place(name, seed) / WEIGHTS).exists()

    def _make(self, name: str, seed: int) -> dict[str, Any]:
        started, cell, folder = time.perf_counter(), self.cells[name], self.place(name, seed)
        ran = provenance()
        if cell.other:
            check_other(self._own(cell))
        scale = self._loaded(cell, seed)
        made, earlier = dict[str, Any](), 0.0
        if cell.recipe is None:
            model = self.untrained(name, seed).eval()
        else:
            fitted, made, earlier = self._train(cell, seed, folder)
            model = fitted.model
        before = self.record(cell.needs[0], seed) if cell.under == "autoattack" else None
        found = measured(cell, model, scale, seed, before)
        record = {
            **ran,
            "cell": name,
            "system": cell.system,
            "about": cell.about,
            "seed": seed,
            "seconds": time.perf_counter() - started + earlier,
            "digest_version": DIGEST_VERSION,
            "digest": self.digest(name, seed),
            "recipe": plain(cell.recipe(scale)) if cell.recipe else None,
            "scale": {
                **plain(scale),
                "data": plain(scale.data) | ({"root": OTHER} if cell.other and not cell.clips else {}),
            },
            "training": made or None,
            "published": FILES[cell.published] if cell.published else None,
            "norms": _norms(model),
            "needs": {need: self._clean(need, seed) for need in cell.needs},
            "figures": figures.plain_numbers(found),
        }
        write(folder / RECORD, to_json(record))
        return record

    def _clean(self, name: str, seed: int) -> float | None:
        """The clean accuracy of another cell, such as an ABNN's substitute, if it was measured."""
        record = self.record(name, seed)
        return record["figures"]["clean"] if record else None

    def _train(self, cell: Cell, seed: int, folder: Path) -> tuple[Fitted, dict[str, Any], float]:
        """The trained network, what the record says of the training, and its seconds in processes that were stopped."""
        schedule, found = self.schedule(cell), None
        if tuning := self._own(cell).tuning:
            found = self._search(cell, replace(tuning, most=tuning.most + cell.beyond))
            schedule = replace(schedule, lr=found.rate)
        started = time.perf_counter()
        fitted = self._fit(cell, seed, schedule, folder)
        earlier = max(fitted.training.seconds - (time.perf_counter() - started), 0.0)
        searched = {"seed": TUNED, **found.to_record()} if found else None
        return fitted, {**plain(fitted.training), "lr": schedule.lr, "search": searched}, earlier

    def _train_again(self, name: str, seed: int, recorded: Mapping[str, Any]) -> None:
        """The weights of a finished cell, by the rate of its record; `again.json` says whether the training gave the same loss."""
        ran, cell, folder = provenance(), self.cells[name], self.place(name, seed)
        schedule = replace(self.schedule(cell), lr=recorded["lr"])
        loss = self._fit(cell, seed, schedule, folder / "again").training.loss
        write(folder / AGAIN, to_json({**ran, "loss": loss, "recorded": recorded["loss"]}))
        (folder / "again" / WEIGHTS).replace(folder / WEIGHTS)

    def schedule(self, cell: Cell) -> Schedule:
        """How a cell trains, its learning rate apart."""
        own = self._own(cell)
        whole = own.standard if cell.clean else own.robust
        epochs = max(1, round(cell.part * whole.epochs))
        return replace(whole, epochs=epochs, decay_norms=whole.decay_norms and cell.decayed)

    def _search(self, cell: Cell, tuning: Tuning) -> Search:
        """The learning rate of an arm, searched for once, on the first seed, for all seeds; what is found is kept beside its record."""
        whole = self.schedule(cell)
        short = replace(whole, epochs=tuning.epochs(whole.epochs))
        rows = self._loaded(cell, TUNED).data.validation_size
        if rows < tuning.rows:
            raise ValueError(f"a learning rate is chosen on {tuning.rows} validation rows or more; the data has {rows}")

        def attempt(rate: float) -> Try:
            started = time.perf_counter()
            try:
                training = self._fit(cell, TUNED, replace(short, lr=rate)).training
            except Diverged:
                return Try(rate, 0.0, None, seconds=time.perf_counter() - started)
            reached = training.validation.get(
                "robust" if cell.recipe and cell.recipe(self._own(cell)).robust else "clean", 0.0
            )
            return Try(rate, reached, training.loss, training.forwards, training.backwards, training.seconds)

        return search(self._own(cell).rates, attempt, self.place(cell.name, TUNED) / SEARCH, tuning)

    def _fit(self, cell: Cell, seed: int, schedule: Schedule, folder: Path | None = None) -> Fitted:
        assert cell.recipe is not None
        scale, data, own = self._own(cell), self._loaded(cell, seed).data, seed + STREAM * cell.stream
        options, threat = FitOptions(folder=folder, report=self.report), Linf(eps=scale.eps)
        return fit(self.untrained(cell.name, seed), data, cell.recipe(scale), threat, schedule, seed=own, options=options)


class OldCellStore(CellStore):
    """Cells from before digests had a version: their networks can be loaded, from `cells/NAME-seedN`."""

    def place(self, name: str, seed: int) -> Path:
        return self.folder / "cells" / f"{name}-seed{seed}"


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a cell's folder; None where there is none, or none that can be read."""
    try:
        found: dict[str, Any] = from_json(folder / RECORD)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"cell", "seed", "digest", "figures"} <= found.keys() else None


def recorded(folder: Path, digest: str, weights: bool = False) -> bool:
    """Whether a cell's folder holds a record with this digest, and the weights where they are asked for."""
    return bool((found := read(folder)) and found["digest"] == digest) and (not weights or (folder / WEIGHTS).exists())


def _norms(model: nn.Module) -> dict[str, str]:
    """What normalizes, by place: each layer with its options."""
    places = {path: model.get_submodule(path) for path in sites(model)}
    places |= {path: module for path, module in model.named_modules() if isinstance(module, AdaptiveNorm)}
    return {path: f"{type(module).__name__}({module.extra_repr()})" for path, module in places.items()}
