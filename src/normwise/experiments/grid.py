"""The main job: a grid of norms and recipes on one data set, trained and evaluated cell by cell."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..attacks import ATTACKS, FGSM, PGD, STRONGEST
from ..config import build, choice, choices, merge
from ..data import DATA, Digits, find
from ..models import MODELS, ResNet
from ..norms import BN, GN, NORMS, RN, RNT, BNwoT, NoNorm
from ..records import Result, read_result
from ..registry import plain
from ..threats import THREATS, Linf
from ..training.recipes import RECIPES, Adversarial, Standard
from ..training.schedule import Schedule
from ..types import Attack, Data, Norm, Recipe, Report, ThreatModel
from ..utils.run import RESULT, check_running
from ..utils.run_folder import check_folder, keep_settings
from .backends import BACKENDS, Backend, Processes
from .columns import Columns
from .experiment import Experiment, finished, prepared, run
from .launch import Crew, Job, launch
from .presets import DIGITS, DOMAINS, EPS


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A grid of every norm with every recipe, and methods beside it; each with every seed.

    Options
        data            the data set, by name or path
        model           the network
        norms           the rows of the grid
        recipes         the columns of the grid
        methods         rows beside the grid, as a YAML list: each has a `name`, and the settings of `normwise train` that differ
                        from the shared ones (norm, recipe, start, substitute, model, ...)
        threat          what the attacker may do, in training and evaluation
        attacks         the attacks of the evaluation (the protocol)
        strongest       further attacks, on the images that `attacks` leave correct; []: none
        domain          "image" or "video": fill all columns, on the digits or on moving digits if no data are named; empty: as given
        columns         further attackers, scaled to the data and to the radius of `threat`, each with a figure of its own
        schedule        the training schedule, the same for every cell
        seeds           number of seeds, starting at 0
        batch_size      images per batch in the evaluation
        jobs            cells (one network each) that run in parallel, each by a worker
        backend         where the workers run
        device          "cpu", "cuda", "cuda:1", or "auto"
        threads         CPU threads per cell; 0: torch's default
    """

    data: Data = choice(DATA, Digits(), find)
    model: Any = choice(MODELS, ResNet(depth=8))
    norms: tuple[Norm, ...] = choices(NORMS, (BN(), BNwoT(), RNT(), RN(), GN(), NoNorm()))
    recipes: tuple[Recipe, ...] = choices(RECIPES, (Standard(), Adversarial()))
    methods: tuple[Mapping[str, Any], ...] = ()
    threat: ThreatModel = choice(THREATS, Linf(eps=EPS["digits"]))
    attacks: tuple[Attack, ...] = choices(ATTACKS, (FGSM(), PGD()))
    strongest: tuple[Attack, ...] = choices(ATTACKS, STRONGEST)
    domain: str = ""
    columns: Columns = Columns()
    schedule: Schedule = DIGITS
    seeds: int = 1
    batch_size: int = 25
    jobs: int = 2
    backend: Backend = choice(BACKENDS, Processes())
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        check_running(self)
        if self.seeds < 1 or self.jobs < 1:
            raise ValueError(f"seeds is {self.seeds} and jobs {self.jobs}; give whole numbers >= 1")
        if not ((self.norms and self.recipes) or self.methods):
            raise ValueError("a bench needs at least one norm and one recipe, or one method; give some")
        if self.domain not in ("", *DOMAINS):
            raise ValueError(f"domain is {self.domain!r}; give {' or '.join(DOMAINS)}")
        cells(self)  # refuses methods that cannot be


class Finished(NamedTuple):
    """What a bench returns: the results of finished cells, and why the others failed."""

    results: list[Result]
    failures: dict[str, str]


def cells(bench: Bench) -> dict[str, Experiment]:
    """The experiments, by name, the grid first; equal norms with other options are told apart by a number.

    Raises ValueError for a method without a name of its own, and for settings that no experiment has.
    """
    shared = {
        field.name: getattr(bench, field.name) for field in dataclasses.fields(Experiment) if hasattr(bench, field.name)
    }
    found: dict[str, Experiment] = {}
    for seed in range(bench.seeds):
        for recipe in bench.recipes:
            for norm in bench.norms:
                name = f"{norm.name}-{recipe.name}" + (f"-seed{seed}" if bench.seeds > 1 else "")
                same = sum(other.split("~")[0] == name for other in found)
                found[name + (f"~{same + 1}" if same else "")] = Experiment(**shared, norm=norm, recipe=recipe, seed=seed)
        for method in bench.methods:
            name = _named(method) + (f"-seed{seed}" if bench.seeds > 1 else "")
            if name in found:
                raise ValueError(f"two rows of the bench are called {name}; give each method a name of its own")
            found[name] = _experiment(method, Experiment(**shared, seed=seed))
    return found


def _named(method: Mapping[str, Any]) -> str:
    """The name of a method, which is that of its folder too. Raises ValueError where it has none."""
    name = method.get("name") if isinstance(method, Mapping) else None
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"a method of a bench is {{name: WORD, setting: value, ...}}; got {method!r}")
    if "seed" in method:
        raise ValueError(f"method {name} sets seed, which all rows share; give the bench's seeds instead")
    return name


def _experiment(method: Mapping[str, Any], shared: Experiment) -> Experiment:
    """What all share, with a method's own settings. A network to start from keeps its norms, if no others are named."""
    own = {key: value for key, value in method.items() if key != "name"}
    kept = {"norm": None, "model": plain(Experiment.model)} if own.get("start") else {}
    try:
        return build(Experiment, merge(Experiment, plain(shared), kept, own))
    except ValueError as error:
        raise ValueError(f"method {method['name']}: {error}") from None


def run_bench(bench: Bench, folder: Path, report: Report) -> Finished:
    """Run every cell that has no result yet; a cell that fails is named, and the others continue.

    Cells are written to `folder/cells/NAME`; a stopped bench resumes where it was, also in the middle of a cell. Who starts the same
    bench in the same folder meanwhile shares the work.
    """
    check_folder(bench, folder)
    bench.backend.check()
    if bench.domain and (len(bench.data.test(batch_size=1)[0].x.shape) == 5) != (bench.domain == "video"):
        raise ValueError(
            f"domain is {bench.domain}, and the rows of {bench.data.name} are none; name other data, or the other domain"
        )
    grid = cells(bench)
    for cell in grid.values():
        prepared(cell, report)  # what cannot run is refused before anything is written
    keep_settings(bench, folder)
    report("", 0, len(grid))
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    costly_first = sorted(grid, key=lambda name: grid[name].recipe.robust, reverse=True)
    jobs = [_job(name, grid[name], folder / "cells" / name) for name in costly_first]

    def say(text: str) -> None:
        report(text, len(results) + len(failures), len(grid))

    for name, error in launch(jobs, Crew(bench.jobs, bench.backend), folder, say):
        if error is None:
            results[name] = read_result(folder / "cells" / name / RESULT)
        else:
            failures[name] = str(error).split("\n")[0] or type(error).__name__
        say(_told(name, results.get(name)))
    return Finished([results[name] for name in grid if name in results], failures)


def _job(name: str, e: Experiment, folder: Path) -> Job:
    return Job(name, partial(run, e, folder, name=name), partial(finished, e, folder))


def _told(name: str, outcome: Result | None) -> str:
    if outcome is None:
        return f"{name}: failed"
    protocol, worst = outcome.evaluation.pair
    pair = f"protocol {protocol}, worst case {worst}" if outcome.evaluation.strongest else f"worst case {worst}"
    return f"{name}: clean {outcome.evaluation.clean_accuracy}, {pair}"
