"""Make cells one after the other, and decide the claims from what is there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..experiment import check_threads, place
from ..record import provenance, to_json, write
from ..registry import unknown
from ..report.claims import Network, to_html, to_markdown
from ..training import Report
from .cell import Workshop
from .claims import CLAIMS
from .decide import decide
from .papers import CELLS, SYSTEMS
from .scale import SCALES
from .tables import beside


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Which part of which paper, at which size.

    Options
        system          robustnorm, nofrost, fragile-features, abnn, or all
        preset          smoke (minutes, on digits; never evidence), cpu (hours, on CIFAR-10), gpu (PreActResNet-18), or
                        gpu-resnet18, gpu-resnet26
        only            cells to make, with all that they need; empty: those of the system that need no other data than the
                        preset's (abnn-other does)
        seeds           number of seeds; 0: the preset's. Cells that no claim needs are made with the first alone, unless
                        they are named
        first_seed      the seed to begin with
        max_minutes     begin no cell after so many minutes; 0: make all
        device          "cpu", "cuda", "cuda:1", or "auto"
        threads         CPU threads; 0 leaves torch's choice
    """

    system: str = "all"
    preset: str = "smoke"
    only: tuple[str, ...] = ()
    seeds: int = 0
    first_seed: int = 0
    max_minutes: float = 0.0
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.system not in (*SYSTEMS, "all"):
            raise unknown("system", self.system, [*SYSTEMS, "all"])
        if self.preset not in SCALES:
            raise unknown("preset", self.preset, list(SCALES))
        for cell in self.only:
            if cell not in CELLS:
                raise unknown("cell", cell, list(CELLS))
        if min(self.seeds, self.first_seed, self.max_minutes) < 0:
            raise ValueError("seeds, first_seed and max_minutes are numbers >= 0")
        check_threads(self.threads)


def wanted(settings: Reproduce) -> list[str]:
    """The cells to make, each after those it needs."""
    asked = settings.only or tuple(
        name
        for name, cell in CELLS.items()
        if not _on_other_data(name)
        and (
            settings.system in ("all", cell.system)
            or any(name in claim.cells for claim in CLAIMS if claim.system == settings.system)
        )
    )
    order: list[str] = []

    def visit(name: str) -> None:
        for need in CELLS[name].needs:
            visit(need)
        if name not in order:
            order.append(name)

    for name in asked:
        visit(name)
    return order


def _on_other_data(name: str) -> bool:
    """Whether a cell, or one that it needs, is trained on other data, which need not be there."""
    return CELLS[name].other or any(map(_on_other_data, CELLS[name].needs))


def planned(settings: Reproduce) -> list[tuple[str, int]]:
    """The cells to make, with their seeds: all seeds of what claims need or the user names, the first seed of other controls."""
    names, decisive = wanted(settings), wanted(Reproduce(only=tuple(cell for claim in CLAIMS for cell in claim.cells)))
    first = settings.first_seed
    seeds = range(first, first + (settings.seeds or SCALES[settings.preset]().seeds))
    return [(name, seed) for seed in seeds for name in names if settings.only or seed == first or name in decisive]


def reproduce(settings: Reproduce, folder: Path, report: Report) -> list[dict[str, Any]]:
    """Make what is wanted and not there yet, then write and return the claims table.

    Records are `folder/cells/NAME-seedN/record.json`; a record whose settings are these is not made again, and what was
    stopped goes on. The tables are made of all records in the folder, whoever made them. Raises ValueError for a device that is
    not there.
    """
    device = place(settings)
    scale, started = SCALES[settings.preset](), time.monotonic()
    work = planned(settings)
    for done, (name, seed) in enumerate(work):

        def told(text: str, step: int, steps: int, name: str = name, done: int = done) -> None:
            report(f"{name} {text.replace(': ', ' ')}", done, len(work))

        shop = Workshop(CELLS, scale, folder, told, device)
        if (
            shop.record(name, seed) is None
            and settings.max_minutes
            and time.monotonic() - started > 60 * settings.max_minutes
        ):
            report(f"stopped after {settings.max_minutes:g} minutes: {len(work) - done} cells left", done, len(work))
            break
        record = shop.make(name, seed)
        report(f"{name} seed {seed}: {_sentence(record)}", done + 1, len(work))
    return decided(folder, settings.preset)


def decided(folder: Path, preset: str) -> list[dict[str, Any]]:
    """Decide every claim from the records in a folder, and write `claims.json`, `claims.md` and `claims.html` there."""
    scale = SCALES[preset]()
    shop = Workshop(CELLS, scale, folder, lambda text, done, total: None)
    seeds: dict[int, dict[str, Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("cells/*/record.json")):
        name, _, seed = path.parent.name.rpartition("-seed")
        if name in CELLS and seed.isdigit() and (record := shop.record(name, int(seed))) is not None:
            seeds.setdefault(int(seed), {})[name] = record
    table = [decide(claim, [seeds[seed] for seed in sorted(seeds)], scale.evidence) for claim in CLAIMS]
    write(folder / "claims.json", to_json(table))
    networks, columns = _networks(seeds)
    more = beside({name: [one[name] for one in seeds.values() if name in one] for name in CELLS})
    write(folder / "claims.md", to_markdown(table, networks, columns, more, preset))
    write(folder / "claims.html", to_html(table, networks, columns, more, preset, provenance()["command"]))
    return table


def _sentence(record: Mapping[str, Any]) -> str:
    f = record["figures"]
    if "corruptions" in f:
        kept = [share for severities in f["corruptions"].values() for share in severities.values()]
        return (
            f"clean {100 * f['clean']:.1f}%, {100 * sum(kept) / len(kept):.1f}% over corruptions, {record['seconds']:.0f} s"
        )
    worst = max(f["strongest"], key=float)
    return (
        f"clean {100 * f['clean']:.1f}%, {100 * f['strongest'][worst]:.1f}% at {float(worst):.3g}, {record['seconds']:.0f} s"
    )


def _networks(seeds: Mapping[int, Mapping[str, Any]]) -> tuple[list[Network], list[str]]:
    """The headline table and its columns: every network that was judged, the clean accuracy and then each radius."""
    found, columns = [], list[str]()
    for name, cell in CELLS.items():
        if cell.under != "linf":
            continue
        figures = [records[name]["figures"] for records in seeds.values() if name in records]
        if figures:
            radii = list(figures[0]["paper"])
            columns = ["clean" if radius == "0" else f"{255 * float(radius):.3g}/255" for radius in radii]
            means = {
                side: [sum(f[side][r] for f in figures) / len(figures) for r in radii] for side in ("paper", "strongest")
            }
            pairs = list(zip(means["paper"], means["strongest"], strict=True))
            found.append(Network(name, cell.about, figures[0]["coupled"], len(figures), pairs))
    return found, columns
