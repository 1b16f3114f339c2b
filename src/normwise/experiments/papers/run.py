"""Make cells one after the other, and decide the claims from what is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...attacks import AutoAttack
from ...config import choice
from ...records import provenance, to_json, write
from ...registry import unknown
from ...report.claims import Network, to_html, to_markdown
from ...types import Report, silent
from ...utils.run import check_threads, set_up_device
from ...utils.run_folder import check_folder, keep_settings
from ..backends import BACKENDS, Backend, Processes
from ..launch import LOCKS, Job, Workers, launch
from .cell import Cell
from .cell_store import CellStore, recorded
from .claims_large import claims_of
from .decide import Claim, Size, decide
from .origins import origins
from .papers import CELLS, SYSTEMS
from .premises import not_converged
from .published import file_of
from .scale import HISTORY, SCALES, SIZES, Scale, size_of
from .tables import extra_tables

Made = tuple[str, int]  # a cell and its seed
TABLE = "claims.json"


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Which part of which paper, at which size.

    Options
        system          the paper: robustnorm, nofrost, fragile-features, abnn, or all
        preset          the size: smoke (minutes, on digits; decides nothing), s (ResNet-8, 10,000 images of CIFAR-10), m (ResNet-20,
                        all images), l (norms of published networks), gpu (PreActResNet-18), gpu-resnet18 or gpu-resnet26
        only            cells (networks) to make, with all that they need; empty: those of the paper and the preset, but not those
                        that need other data or published networks that are not there, and not affine-fragile-long, which takes longer
        seeds           number of seeds that decide; 0: the preset's. Cells that no claim needs are made with seed 0 only, unless
                        `only` names them
        first_seed      the first seed that decides; 0: the preset's. Seed 0 of what trains is always made: it tunes the others
        published       folder of published networks (preset l, and substitutes at s and m); "": none
        max_minutes     start no cell after this many minutes; 0: make all
        device          "cpu", "cuda", "cuda:1", or "auto"
        threads         CPU threads of each worker; 0: torch's default
        workers         cells made in parallel, each by a worker: on a CPU as many as cores, with one thread each
        backend         where the workers run
    """

    system: str = "all"
    preset: str = "smoke"
    only: tuple[str, ...] = ()
    seeds: int = 0
    first_seed: int = 0
    published: str = ""
    max_minutes: float = 0.0
    device: str = "auto"
    threads: int = 0
    workers: int = 1
    backend: Backend = choice(BACKENDS, Processes())

    def __post_init__(self) -> None:
        if self.system not in (*SYSTEMS, "all"):
            raise unknown("system", self.system, [*SYSTEMS, "all"])
        if self.preset not in SCALES:
            if self.preset in HISTORY:
                raise ValueError(
                    f"nothing is made at preset {self.preset} any more, its records are history; give s, m or l"
                )
            raise unknown("preset", self.preset, list(SCALES))
        if self.preset == "l" and not self.published:
            raise ValueError(
                "preset l starts from published networks; give --published FOLDER (see docs/laboratory/method.md)"
            )
        for cell in self.only:
            if cell not in CELLS:
                raise unknown("cell", cell, list(CELLS))
        if min(self.seeds, self.first_seed, self.max_minutes) < 0:
            got = f"{self.seeds}, {self.first_seed} and {self.max_minutes:g}"
            raise ValueError(f"seeds, first_seed and max_minutes are numbers >= 0; got {got}")
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; give a whole number >= 1, such as the number of cores")
        check_threads(self.threads)

    @property
    def scale(self) -> Scale:
        """What all cells of the preset share."""
        return replace(SCALES[self.preset](), published=self.published)


def wanted(settings: Reproduce) -> list[str]:
    """The cells to make, each after those it needs."""
    scale = settings.scale
    asked = settings.only or tuple(
        name
        for name, cell in CELLS.items()
        if not cell.apart
        and (name in scale.cells or not scale.cells)
        and not _needs(name, lambda cell: (cell.other and not cell.clips) or (bool(cell.published) and not scale.published))
        and (scale.clips or not cell.clips)
        and not _known(name, scale)
        and _part_of(name, settings)
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


def _needs(name: str, what: Callable[[Cell], bool]) -> bool:
    """Whether a cell, or one that it needs, is of a kind, such as trained on data that need not be there."""
    return what(CELLS[name]) or any(_needs(need, what) for need in CELLS[name].needs)


def _known(name: str, scale: Scale) -> bool:
    """Whether a cell asks what the scale's strongest evaluation asks of every cell."""
    return CELLS[name].under == "autoattack" and any(isinstance(one, AutoAttack) for one in scale.strongest)


def _part_of(name: str, settings: Reproduce) -> bool:
    """Whether a cell belongs to a system, or a claim of it is decided by that cell."""
    claimed = any(name in _cells_of(claim) for claim in claims_of(settings.preset) if claim.system == settings.system)
    return settings.system in ("all", CELLS[name].system) or claimed


def _cells_of(claim: Claim) -> set[str]:
    """What a claim and its premises read."""
    return {*claim.cells, *(cell for premise in claim.premises for cell in premise.cells)}


def planned(settings: Reproduce) -> list[Made]:
    """The cells to make, with their seeds: seed 0 of all, which tunes, and the seeds that decide of what claims need or the user names."""
    scale, names = settings.scale, wanted(settings)
    read = [cell for claim in claims_of(settings.preset) for cell in claim.cells]
    asked = {cell for claim in claims_of(settings.preset) for premise in claim.premises for cell in premise.cells}
    decisive = wanted(replace(settings, system="all", only=tuple(read)))
    first = settings.first_seed or scale.first
    seeds = range(first, first + (settings.seeds or scale.looks[0]))
    tuned = [0] if scale.tuning else []
    return [
        (name, seed)
        for seed in dict.fromkeys([*tuned, *seeds])
        for name in names
        if (settings.only or seed == 0 or name in decisive or CELLS[name].every)
        and not (seed == 0 and settings.first_seed and CELLS[name].recipe is None and name not in asked)
    ]


def _before(job: Made, scale: Scale) -> list[Made]:
    """What has to be made before a cell: those it needs, and where it trains its own first seed, which tunes it."""
    name, seed = job
    tunes = seed != 0 and scale.tuning and CELLS[name].recipe is not None
    return [(need, seed) for need in CELLS[name].needs] + ([(name, 0)] if tunes else [])


def reproduce(settings: Reproduce, folder: Path, report: Report) -> list[dict[str, Any]]:
    """Make what is wanted and not there yet, then write and return the claims table.

    Records are `folder/cells/NAME-seedN-DIGEST/record.json`; a record with the same settings is not made again, and a
    stopped cell resumes. A cell whose weights others need and the folder has not trains again, without a new record. Several
    processes with one folder share the work: each makes what no other is making (on several machines with a backend that is
    shared). The tables are made of all records in the folder, whoever made them. Raises ValueError for a device or a
    published network that is not there, and for a folder that anything else filled, or another preset.
    """
    check_folder(settings, folder, agree=("preset",), earlier=(TABLE, LOCKS))
    settings.backend.check()
    device = set_up_device(settings)
    work = planned(settings)
    for depth in {CELLS[name].published for name, _ in work} - {0}:
        file_of(settings.scale, depth)  # is there, and the one that is meant
    store = CellStore(CELLS, settings.scale, folder, silent, device)
    new = [job for job in work if store.record(*job) is None]
    left = [*_weightless(new, store), *new]
    keep_settings(settings, folder)

    workers = Workers(settings.workers, settings.backend, 60 * settings.max_minutes or math.inf)
    jobs = {f"{name}-seed{seed}": (name, seed) for name, seed in left}

    def say(text: str) -> None:
        report(text, len(work) - len(left), len(work))

    def make(name: str, seed: int) -> dict[str, Any]:
        store.report = lambda text, step, steps: say(f"{name} {text.replace(': ', ' ')}")
        return store.make(name, seed)

    do = make if workers.here else partial(_make, settings, folder)
    asked = [
        Job(
            called,
            partial(do, *job),
            partial(recorded, store.place(*job), store.digest(*job), job not in new),
            _waits(job, left, store.scale),
        )
        for called, job in jobs.items()
    ]
    for called, error in launch(asked, workers, folder, say):
        if error:
            raise error
        left.remove(job := jobs[called])
        record = store.record(*job)
        say(f"{job[0]} seed {job[1]}" + (f": {_sentence(record)}" if record else ""))
    if left:
        say(f"stopped after {settings.max_minutes:g} minutes: {len(left)} cells left")
    return decided(folder, settings.preset, system=settings.system)


def _weightless(jobs: Sequence[Made], store: CellStore) -> list[Made]:
    """What these need, directly or through others, and what has its record without its weights; what comes first is first."""
    found: list[Made] = []
    for name, seed in jobs:
        for job in ((need, seed) for need in CELLS[name].needs):
            gone = store.record(*job) is not None and store.weightless(*job)
            if gone or CELLS[job[0]].recipe is None:
                found += [*_weightless([job], store), *[job][: int(gone)]]
    return list(dict.fromkeys(found))


def _waits(job: Made, left: Sequence[Made], scale: Scale) -> tuple[str, ...]:
    """Which of the jobs that are left have to be done before one."""
    return tuple(f"{name}-seed{seed}" for name, seed in _before(job, scale) if (name, seed) in left)


def _make(settings: Reproduce, folder: Path, name: str, seed: int) -> dict[str, Any]:
    return CellStore(CELLS, settings.scale, folder, silent, set_up_device(settings)).make(name, seed)


def decided(folder: Path, preset: str, out: Path | None = None, system: str = "all") -> list[dict[str, Any]]:
    """Decide every claim from the records in a folder, and write `claims.json`, `claims.md` and `claims.html` there, or in `out`.

    The page shows the claims of one `system`, or of all.
    """
    out = out or folder
    scale = (SCALES | HISTORY)[preset]()
    store = CellStore(CELLS, scale, folder, silent)
    seeds = store.records()
    table = decide(claims_of(preset), seeds, Size(SIZES.get(preset, preset), scale.looks, scale.first, scale.evidence))
    write(out / TABLE, to_json(table))
    networks = _networks(seeds)
    trained = next((one["bn-standard"]["training"] for one in seeds.values() if "bn-standard" in one), None) or {}
    size = size_of(scale, trained.get("trained_parameters"))
    made = [name for name, cell in CELLS.items() if not cell.apart and (scale.clips or not cell.clips)]
    missing = () if preset in HISTORY else scale.cells or made
    more = extra_tables({name: [one[name] for one in seeds.values() if name in one] for name in CELLS}, missing)
    arisen = list(origins(claims_of(preset), seeds))
    write(out / "claims.md", to_markdown(table, networks, more, arisen, (preset, size)))
    asked = [one for one in table if system in ("all", one["system"])]
    shown = [one for one in arisen if one.number in {each["number"] for each in asked}]
    page = to_html(asked, networks, more, shown, (preset, size), provenance()["command"])
    write(out / "claims.html", page)
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


def _networks(seeds: Mapping[int, Mapping[str, Any]]) -> dict[tuple[str, ...], list[Network]]:
    """The headline tables, by their columns, the clean accuracy and then each radius: every network that was scored."""
    found: dict[tuple[str, ...], list[Network]] = {}
    for name, cell in CELLS.items():
        records = {seed: one[name] for seed, one in seeds.items() if name in one}
        if records and cell.under == "linf":
            figures = [record["figures"] for record in records.values()]
            radii = list(figures[0]["paper"])
            columns = tuple("clean" if radius == "0" else f"{255 * float(radius):.3g}/255" for radius in radii)
            means = {
                side: [sum(f[side][r] for f in figures) / len(figures) for r in radii] for side in ("paper", "strongest")
            }
            pairs = list(zip(means["paper"], means["strongest"], strict=True))
            counts = sorted({len(f["rows"]["paper"]["0"]) for f in figures})
            images = " or ".join(f"{count:,}" for count in counts)
            about = cell.about + (f" ({which})" if (which := not_converged(records)) else "")
            found.setdefault(columns, []).append(Network(name, about, figures[0]["coupled"], len(figures), images, pairs))
    return found
