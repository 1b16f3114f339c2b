"""Where cells are made: trained, measured, and recorded under the digest of their settings."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from ...attacks import PGD, AutoAttack
from ...evaluation.curves import survivors
from ...evaluation.plan import AttackPlan
from ...models import checkpoints
from ...models.abnn import detached, fixed_at
from ...norms import AdaptiveNorm, sites
from ...norms.surgery.trainable import materialized
from ...records import provenance, to_json, write
from ...registry import DIGEST_VERSION, brief, plain
from ...seeding import derive, drawing
from ...threats import Linf, Patch
from ...training.loop import Diverged, Fitted, fit
from ...training.options import FitOptions
from ...training.schedule import Schedule
from ...types import Attack, Data, Recipe, Report
from ...utils.model_state import copied, running, set_mode
from . import figures
from .cell import Cell
from .scale import OTHER, Scale, check_other, other

RECORD, WEIGHTS = "record.json", "model.safetensors"
LEGACY = (0.004, 0.008, 0.02, 0.03)  # eps in the units of RobustNorm's code
SIZES = (2, 3, 5, 7)  # of patches, in pixels
LEFT_OUT = ("system", "about", "begin", "needs", "recipe", "apart")  # of a cell: told otherwise, or no setting of its record
STICKER = tuple(PGD(steps=20 + place, relative_step=0.1) for place in range(8))  # each at places of its own


class Workshop:
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

    def place(self, name: str, seed: int) -> Path:
        """The folder of a cell: one for each of its settings, so that no record takes the place of another."""
        return self.folder / "cells" / f"{name}-seed{seed}-{self.digest(name, seed)[:8]}"

    def scale_of(self, cell: Cell) -> Scale:
        """What a cell is made with: the scale, with other data where the cell wants some."""
        return replace(self.scale, data=other(self.scale)) if cell.other else self.scale

    def digest(self, name: str, seed: int) -> str:
        """A hash of all that a cell's record follows from, by its settings: its own, the scale's, and those of what it needs."""
        cell, scale = self.cells[name], self.scale_of(self.cells[name])
        own = {key: value for key, value in brief(cell).items() if key not in LEFT_OUT}
        begin = [cell.begin.__qualname__, brief(inspect.getclosurevars(inspect.unwrap(cell.begin)).nonlocals)]
        settings = {
            "digest_version": DIGEST_VERSION,
            "cell": {**own, "begin": begin},
            "recipe": brief(cell.recipe(scale)) if cell.recipe else None,
            "scale": {**brief(scale), "seeds": None, "data": {**brief(scale.data), "root": None}},
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
                if history or (record["digest"] == self.digest(name, seed) and path == self.place(name, seed)):
                    found.setdefault(seed, {})[name] = record
        return found

    def untrained(self, name: str, seed: int) -> nn.Module:
        """The network of a cell before it trains, on the device; new weights are drawn on the CPU, the same bits each time."""
        cell = self.cells[name]
        given = [self.network(need, seed) for need in cell.needs]
        with drawing(derive(seed, "weights")):
            return cell.begin(self.scale_of(cell), *given).to(self.device)

    def network(self, name: str, seed: int) -> nn.Module:
        """The trained network of a cell, on the device. Raises ValueError if it was not made yet."""
        cell, path = self.cells[name], self.place(name, seed) / WEIGHTS
        if cell.recipe is None:
            return self.untrained(name, seed).eval()
        if not path.exists():
            raise ValueError(f"{path} is not there; make the cell {name} first, or delete its {RECORD} to make it again")
        model = materialized(cell.recipe(self.scale).prepare(self.untrained(name, seed)))
        checkpoints.give(model, checkpoints.weights(path))
        return set_mode(model, "eval")

    def make(self, name: str, seed: int) -> dict[str, Any]:
        """Train and measure a cell; a stopped one resumes. Returns its record, which is written too.

        A cell that another process makes is waited for.
        """
        with self._lock(name, seed):
            return self.record(name, seed) or self._make(name, seed)

    def free(self, name: str, seed: int) -> bool:
        """Whether no process is making a cell."""
        try:
            with self._lock(name, seed).acquire(blocking=False):
                return True
        except Timeout:
            return False

    def _lock(self, name: str, seed: int) -> FileLock:
        return FileLock(self.folder / "locks" / f"{name}-seed{seed}")  # freed when its process dies, however that was

    def _make(self, name: str, seed: int) -> dict[str, Any]:
        started, cell, folder = time.perf_counter(), self.cells[name], self.place(name, seed)
        ran = provenance()
        if cell.other:
            check_other(self.scale)
        scale = self.scale_of(cell)
        made, earlier = dict[str, Any](), 0.0
        if cell.recipe is None:
            model = self.untrained(name, seed).eval()
        else:
            fitted, made, earlier = self._train(cell, seed, folder)
            model = fitted.model
        found = self._measure(cell, model, seed)
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
            "scale": {**plain(scale), "data": plain(scale.data) | ({"root": OTHER} if cell.other else {})},
            "training": made or None,
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
        assert cell.recipe is not None
        recipe, begun, data = cell.recipe(self.scale), self.untrained(cell.name, seed), self.scale_of(cell).data
        whole = self.scale.standard if cell.clean else self.scale.robust
        schedule = replace(
            whole, epochs=max(1, round(cell.part * whole.epochs)), decay_norms=whole.decay_norms and cell.decayed
        )
        tried: dict[str, tuple[float, float]] = {}
        if cell.sweep:
            for rate in cell.rates or self.scale.rates:
                tried[f"{rate:g}"] = self._try(begun, data, recipe, schedule, rate, seed)
            schedule = replace(schedule, lr=float(max(tried, key=lambda rate: tried[rate])))
        started = time.perf_counter()
        fitted = self._fit(begun, data, recipe, schedule, seed, folder)
        earlier = max(fitted.training.seconds - (time.perf_counter() - started), 0.0)
        rates = {rate: reached for rate, (reached, _) in tried.items()}
        return fitted, {**plain(fitted.training), "lr": schedule.lr, "rates": rates}, earlier

    def _try(
        self, model: nn.Module, data: Data, recipe: Recipe, schedule: Schedule, rate: float, seed: int
    ) -> tuple[float, float]:
        """What a quarter of the schedule at this learning rate reaches: accuracy on validation rows, with the
        negative training loss to break ties. 0 if it diverges."""
        short = replace(schedule, epochs=max(1, schedule.epochs // 4), lr=rate)
        try:
            fitted = self._fit(model, data, recipe, short, seed)
        except Diverged:
            return 0.0, -math.inf
        reached = fitted.training.validation.get("robust" if recipe.robust else "clean", 0.0)
        return reached, -(fitted.training.loss or 0.0)

    def _fit(
        self, model: nn.Module, data: Data, recipe: Recipe, schedule: Schedule, seed: int, folder: Path | None = None
    ) -> Fitted:
        options = FitOptions(folder=folder, report=self.report)
        return fit(model, data, recipe, Linf(eps=self.scale.eps), schedule, seed=seed, options=options)

    def _measure(self, cell: Cell, model: nn.Module, seed: int) -> dict[str, Any]:
        scale = self.scale_of(cell)
        batches = scale.data.test(batch_size=scale.batch_size)
        found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
        if cell.under == "corruptions":
            return found | figures.corrupted(model, batches, seed)
        if cell.under == "autoattack":
            before = self.record(cell.needs[0], seed)
            assert before is not None  # its network was found
            attack = AutoAttack() if scale.evidence else AutoAttack(steps=5, queries=50)
            left = before["figures"]["rows"]["strongest"]
            return found | figures.last(model, batches, scale.eps * cell.at, attack, left, seed)
        patches, attacks = cell.under == "patch", (STICKER[:1], STICKER)
        protocol, strongest_attacks = attacks if patches else ((scale.paper,), scale.strongest)
        radii = [float(one) for one in (SIZES if patches else scale.radii)]

        def plans(attacks: Sequence[Attack]) -> list[AttackPlan]:
            threats = [Patch(size=int(one)) if patches else Linf(eps=one) for one in sorted(radii)]
            return [AttackPlan(threat, attacks, seed=seed) for threat in threats]

        first = survivors(model, batches, plans(protocol))
        paper = figures.standing(first, radii)
        strongest = figures.standing(survivors(model, batches, plans(strongest_attacks), earlier=first), radii)
        coupling = first.coupling
        found |= {
            "clean": figures.share(paper["0"]),
            "coupled": coupling.coupled,
            "paper": {radius: figures.share(bits) for radius, bits in paper.items()},
            "strongest": {radius: figures.share(bits) for radius, bits in strongest.items()},
            "rows": {"paper": paper, "strongest": strongest},
        }
        with running(copied(model), "eval") as still:
            still.requires_grad_(False)
            if "drift" in cell.extras:
                found["drift"] = figures.drift(still, batches, scale.eps, seed)
            if "smoothness" in cell.extras:
                found["smoothness"] = figures.smoothness(still, batches, scale.eps, seed)
            for name in ("detached", "fixed"):
                if name in cell.extras:
                    view = detached(still) if name == "detached" else fixed_at(still, torch.cat([b.x for b in batches]))
                    found[name] = figures.weaker(still, view, batches, scale.radii, scale.paper, seed, coupling)
            if "legacy" in cell.extras:
                found["legacy"] = figures.legacy(still, batches, LEGACY, scale.data, scale.paper, seed, coupling)
        return found


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a cell's folder; None where there is none, or none that can be read."""
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return found if {"cell", "seed", "digest", "figures"} <= found.keys() else None


def _norms(model: nn.Module) -> dict[str, str]:
    """What normalizes, by place: each layer with its options."""
    places = {path: model.get_submodule(path) for path in sites(model)}
    places |= {path: module for path, module in model.named_modules() if isinstance(module, AdaptiveNorm)}
    return {path: f"{type(module).__name__}({module.extra_repr()})" for path, module in places.items()}
