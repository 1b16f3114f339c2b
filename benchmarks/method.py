"""The tables of docs/laboratory/method.md: what each claim asks and what can be detected, and what each cell costs.

python benchmarks/method.py effects                 (variances from results/reproduce/cpu, where that has the cells)
python benchmarks/method.py budget s|m|l            (counted passes, and hours at --seconds a pass)
python benchmarks/method.py budget s|m|l --time     (one batch of each kind is timed on this machine, which should be quiet)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.claims_large import claims_of
from normwise.experiments.papers.decide import Claim
from normwise.experiments.papers.inference import detectable, estimate, spent
from normwise.experiments.papers.judging import PATCHED
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.run import Reproduce, planned
from normwise.experiments.papers.scale import HISTORY, SCALES, Scale
from normwise.models import ResNet
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.types import Batch, silent

ROOT = Path(__file__).parents[1]
ASSUMED = 0.015, 0.5  # deviations of one seed's and one row's paired difference in accuracy, where no record tells
STAND_INS = {"abnn-foreign": "abnn", "abnn-foreign-patch": "abnn-patch", "bn-foreign": "bn-standard"}  # for variances alone
SECONDS = 2.9e-4  # a pass of ResNet-8 in results/reproduce/cpu: affine-fragile, seed 0, on one core of a shared machine
CLIP = 8e-4  # a pass of 3D ResNet-10, width 4, on a moving digit: measured on one core of a busy machine
FLOOR = 0.01  # of a seed's: three seeds may be alike by chance


def effects() -> Iterator[str]:
    """Each claim with its effect and the smallest one that each size detects with 80%, at Holm's last and first step."""
    seeds = CellStore(CELLS, HISTORY["cpu"](), ROOT / "results/reproduce/cpu", silent).records()
    seeds = {seed: {name: one[old] for name, old in STAND_INS.items() if old in one} | one for seed, one in seeds.items()}
    sizes = [("S", SCALES["s"]()), ("M", SCALES["m"]())]
    looks = [(name, look, scale) for name, scale in sizes for look in scale.looks]
    family = sum(claim.measure is not None for claim in claims_of("s"))
    yield (
        "| # | cells | premise | sizes | effect asked | deviations (seed, row) | "
        + " | ".join(f"{n}, {look} seeds" for n, look, _ in looks)
        + " |"
    )
    yield "|---|" + "---|" * (5 + len(looks))
    for claim in claims_of("s"):
        if claim.measure is None:
            continue
        sd, noise = _deviations(claim, seeds)
        found = []
        for _, look, scale in looks:
            level = spent(scale.looks, look)
            rows = 1 if sd[1] == 0 else _rows(claim, scale)
            found.append(" to ".join(f"{detectable(sd, look, rows, one):.3g}" for one in (level, level / family)))
        cells = ", ".join(f"`{cell}`" for cell in claim.cells)
        premise = "; ".join(one.name for one in claim.premises) or "none"
        at = ", ".join(_sizes(claim))
        yield f"| {claim.number} | {cells} | {premise} | {at} | {claim.effect:.3g} | {noise} | {' | '.join(found)} |"


def _rows(claim: Claim, scale: Scale) -> int:
    """The rows on which seeds that decide are compared; coupled networks, of which that is not known beforehand, on fewer."""
    cells = [CELLS[cell] for cell in claim.cells]
    if any(cell.clips for cell in cells):
        return SCALES["s"]().clips.curve
    return PATCHED if any(cell.under == "patch" for cell in cells) else scale.data.test_limit


def _sizes(claim: Claim) -> Iterator[str]:
    """At which sizes a claim is looked at."""
    yield "S"
    if {*claim.cells} <= {*SCALES["m"]().cells}:
        yield "M"
    if any(one.number.startswith(f"{claim.number}-") for one in claims_of("l")):
        yield "L"


def _deviations(claim: Claim, seeds: dict) -> tuple[tuple[float, float], str]:
    """Deviations of a claim's difference over seeds and rows, and where they are from."""
    full = [one for _, one in sorted(seeds.items()) if all(cell in one for cell in claim.cells)]
    sample = claim.measure(full, "strongest") if len(full) > 1 and claim.measure else None
    if sample is None:
        return ASSUMED, f"assumed {ASSUMED[0]:g}, {ASSUMED[1]:g}"
    found = estimate(sample)
    own = found.spread * np.sqrt(found.seeds), float(found.draws.std() * np.sqrt(found.rows))
    if found.rows > 1:
        own = max(own[0], FLOOR), own[1]
    return own, f"{own[0]:.3g}, {own[1]:.2g} ({found.seeds} seeds)"


def budget(preset: str, timed: bool, seconds: float) -> Iterator[str]:
    """Every cell that trains with its seeds, counted passes (forward, and backward as two each), and hours of one core."""
    settings = Reproduce(preset=preset, published="." if preset == "l" else "")
    scale, jobs = settings.scale, [job for job in planned(settings) if CELLS[job[0]].recipe]
    yield "| cell | seeds | training a seed, million passes | search, million passes | core hours in all |"
    yield "|---|---|---|---|---|"
    passes = total = 0.0
    for name in dict.fromkeys(name for name, _ in jobs):
        count = sum(one == name for one, _ in jobs)
        epochs, tries = _epochs(name, scale)
        clips = CELLS[name].clips
        own, whole = (scale.clips, 1_297) if clips else (scale, 50_000)
        images = own.data.train_limit or whole - own.data.validation_size
        a_pass, took = _cost(name, scale, timed and not clips)
        training, search = epochs * images * a_pass / 1e6, tries * images * a_pass / 1e6
        hours = (count * training + search) * 1e6 * (took if timed else CLIP if clips else seconds) / 3600
        passes, total = passes + count * training + search, total + hours
        yield f"| `{name}` | {count} | {training:.2f} | {search:.2f} | {hours:.2f} |"
    yield f"| in all | {len(jobs)} | {passes:.0f}, search included | | {total:.1f} |"


def _epochs(name: str, scale: Scale) -> tuple[int, int]:
    """Epochs of a training, and of the search: every rate of the list, and one beyond."""
    store = CellStore(CELLS, scale, Path(), silent)
    whole = store.schedule(CELLS[name]).epochs
    return whole, (len(scale.rates) + 1) * scale.tuning.epochs(whole) if scale.tuning else 0


def _cost(name: str, scale: Scale, timed: bool) -> tuple[float, float]:
    """Passes per image, and seconds of one."""
    batch = 128 if timed else 4
    small = replace(scale, data=Pretended())
    recipe = CELLS[name].recipe(small)
    model = recipe.prepare(_begin(name, small)).train()
    rng = generator(0, "budget")
    x, y, _ = next(small.data.train(batch_size=batch, generator=rng))
    if timed:
        recipe.loss(model, x, y, Linf(eps=scale.eps), generator=rng).loss.backward()
    started = time.perf_counter()
    cost = recipe.loss(model, x, y, Linf(eps=scale.eps), generator=rng)
    cost.loss.backward()
    passes = cost.forwards + 2 * cost.backwards
    return passes / batch, (time.perf_counter() - started) / passes


@dataclass(frozen=True)
class Pretended:
    """Noise of CIFAR-10's shape: what a batch costs does not depend on what it shows."""

    classes: int = 10
    shape: tuple[int, ...] = (3, 32, 32)
    mean: tuple[float, ...] = (0.5,) * 3
    std: tuple[float, ...] = (0.25,) * 3

    def train(self, *, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """One batch."""
        x = torch.rand(batch_size, *self.shape, generator=generator)
        yield Batch(x, torch.randint(10, (batch_size,), generator=generator), torch.arange(batch_size))


def _begin(name: str, scale: Scale) -> torch.nn.Module:
    if depth := CELLS[name].published:  # its weights cost nothing to draw
        return ResNet(depth=depth, shortcut="pad")(None, classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
    return CELLS[name].begin(scale, *(_begin(need, scale) for need in CELLS[name].needs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("effects", "budget"))
    parser.add_argument("preset", nargs="?", choices=("s", "m", "l"), default="s")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for line in effects() if given.table == "effects" else budget(given.preset, given.time, given.seconds):
        print(line)
