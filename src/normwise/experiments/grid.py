"""The main job: a grid of norms and recipes on one data set, trained and evaluated cell by cell."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..attacks import ATTACKS, FGSM, PGD
from ..config import build, choice, choices, merge
from ..data import DATA, Digits, find
from ..evaluation.plan import settle_strongest
from ..models import MODELS, ResNet
from ..norms import BN, GN, NORMS, RN, RNT, BNwoT, NoNorm
from ..records import Result, read_result
from ..registry import plain
from ..threats import THREATS, Linf
from ..training.recipes import RECIPES, Adversarial, Standard
from ..training.schedule import Schedule
from ..types import Attack, Data, Norm, Recipe, Report, ThreatModel
from ..utils.run import RESULT, check_running
from ..utils.run_folder import PRETRAINED, check_folder, keep_settings
from .backends import BACKENDS, Backend, Processes
from .columns import Columns
from .experiment import Experiment, finished, prepared, run
from .launch import Job, Workers, launch
from .presets import DIGITS, DOMAINS, EPS

APART = 10_000  # between the seeds of pretrained networks and of the rows


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A grid of every norm with every recipe, and methods beside it; each with every seed.

    A bench with more norms, recipes, methods or seeds goes on in the same folder, and trains the new cells alone.

    Options
        data            the data set, by name or path
        model           the network
        norms           the rows of the grid
        recipes         the columns of the grid
        methods         rows beside the grid, as a YAML list: each has a `name`, and the settings of `normwise train` that differ
                        from the shared ones (norm, recipe, start, substitute, model, ...)
        pretrained      networks that are trained first and are no rows, listed like `methods`, whose start or substitute may be
                        one of these names; each with seeds of its own, so that none begins as a row does
        threat          what the attacker may do, in training and evaluation
        attacks         the attacks of the evaluation (the protocol)
        strongest       further attacks, on the images that `attacks` leave correct; []: none, null: those that suit the threat model
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
    pretrained: tuple[Mapping[str, Any], ...] = ()
    threat: ThreatModel = choice(THREATS, Linf(eps=EPS["digits"]))
    attacks: tuple[Attack, ...] = choices(ATTACKS, (FGSM(), PGD()))
    strongest: tuple[Attack, ...] | None = choices(ATTACKS, None)
    domain: str = ""
    columns: Columns = Columns()
    schedule: Schedule = DIGITS
    seeds: int = 1
    batch_size: int = 25
    jobs: int = 2
    backend: Backend = choice(BACKENDS, Processes())
    device: str = "auto"
    threads: int = 1

    marked: ClassVar = ("test", "training")
    grows: ClassVar = ("norms", "recipes", "methods", "pretrained", "seeds")  # more of them change no cell

    def __post_init__(self) -> None:
        settle_strongest(self)
        check_running(self)
        if self.seeds < 1 or self.jobs < 1:
            raise ValueError(f"seeds is {self.seeds} and jobs {self.jobs}; give whole numbers >= 1")
        if not ((self.norms and self.recipes) or self.methods):
            raise ValueError("a bench needs at least one norm and one recipe, or one method; give some")
        if self.domain not in ("", *DOMAINS):
            raise ValueError(f"domain is {self.domain!r}; give {' or '.join(DOMAINS)}")
        first = {_named(one) for one in self.pretrained}
        for one in self.pretrained:
            if found := first & set(_begins(one).values()):
                raise ValueError(
                    f"the pretrained network {_named(one)} begins with {min(found)}, which is trained at the same time; name a run folder"
                )
        twice = pretrained(self).keys() & cells(self, Path()).keys()  # these refuse methods that cannot be
        if twice:
            raise ValueError(f"a row of the bench is called {min(twice)}, as a pretrained network is; give it another name")


class Finished(NamedTuple):
    """What a bench returns: the results of finished cells, and why the others failed."""

    results: list[Result]
    failures: dict[str, str]


def cells(bench: Bench, folder: Path) -> dict[str, Experiment]:
    """The experiments, by name, the grid first; equal norms with other options get a number.

    Raises ValueError for a method without a name of its own, and for settings that no experiment has.
    """
    found: dict[str, Experiment] = {}
    for seed in range(bench.seeds):
        shared = _shared(bench, seed)
        for recipe in bench.recipes:
            for norm in bench.norms:
                name = _of_seed(f"{norm.name}-{recipe.name}", seed)
                same = sum(other.split("~")[0] == name for other in found)
                found[name + (f"~{same + 1}" if same else "")] = dataclasses.replace(shared, norm=norm, recipe=recipe)
        names = [_named(one) for one in bench.pretrained]
        places = {name: str(folder / PRETRAINED / _of_seed(name, seed)) for name in names}
        for method in bench.methods:
            name = _of_seed(_named(method), seed)
            own = {key: places[named] for key, named in _begins(method).items() if named in places}
            _add(found, name, _experiment({**method, **own}, shared))
    return found


def pretrained(bench: Bench) -> dict[str, Experiment]:
    """The networks that are trained before the rows that name them, by name; each is asked for its clean accuracy. Raises ValueError as `cells` does."""
    found: dict[str, Experiment] = {}
    for seed in range(bench.seeds):
        quick = dataclasses.replace(_shared(bench, seed + APART), attacks=bench.attacks[:1], strongest=(), columns=Columns())
        for one in bench.pretrained:
            if any(_named(one) in _begins(method).values() for method in bench.methods):
                _add(found, _of_seed(_named(one), seed), _experiment(one, quick))
    return found


def _begins(method: Mapping[str, Any]) -> dict[str, str]:
    """What a method's network begins with and listens to, where it names any."""
    return {key: method[key] for key in ("start", "substitute") if isinstance(method.get(key), str)}


def _shared(bench: Bench, seed: int) -> Experiment:
    own = {one.name: getattr(bench, one.name) for one in dataclasses.fields(Experiment) if hasattr(bench, one.name)}
    return Experiment(**own, seed=seed)


def _of_seed(name: str, seed: int) -> str:
    return name + (f"-seed{seed}" if seed else "")


def _add(found: dict[str, Experiment], name: str, made: Experiment) -> None:
    if name in found:
        raise ValueError(f"two networks of the bench are called {name}; give each method a name of its own")
    found[name] = made


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

    Cells are written to `folder/cells/NAME`; a stopped bench resumes where it was, also in the middle of a cell. Who starts
    the same bench in the same folder meanwhile shares the work.
    """
    check_folder(bench, folder)
    bench.backend.check()
    if bench.domain and (len(bench.data.test(batch_size=1)[0].x.shape) == 5) != (bench.domain == "video"):
        raise ValueError(
            f"domain is {bench.domain}, and the rows of {bench.data.name} are none; name other data, or the other domain"
        )
    before, grid = pretrained(bench), cells(bench, folder)
    places = {str(folder / PRETRAINED / name): name for name in before}
    after = {name: tuple(places[one] for one in (e.start, e.substitute) if one in places) for name, e in grid.items()}
    for cell in [*before.values(), *(cell for name, cell in grid.items() if not after[name])]:
        prepared(cell, report)  # what cannot run is refused before anything is written
    keep_settings(bench, folder)
    report("", 0, len(grid))
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    costly_first = sorted(grid, key=lambda name: grid[name].recipe.robust, reverse=True)
    jobs = [_job(name, before[name], Path(place)) for place, name in places.items()]
    jobs += [_job(name, grid[name], folder / "cells" / name, after[name]) for name in costly_first]

    def say(text: str) -> None:
        report(text, sum(name in grid for name in (*results, *failures)), len(grid))

    for name, error in launch(jobs, Workers(bench.jobs, bench.backend), folder, say):
        if error is not None:
            failures[name] = str(error).split("\n")[0] or type(error).__name__
        elif name in grid:
            results[name] = read_result(folder / "cells" / name / RESULT)
        say(_summary(name, results.get(name), failures))
    return Finished([results[name] for name in grid if name in results], failures)


def _job(name: str, e: Experiment, folder: Path, after: tuple[str, ...] = ()) -> Job:
    return Job(name, partial(run, e, folder, name=name), partial(finished, e, folder), after)


def _summary(name: str, outcome: Result | None, failures: Mapping[str, str]) -> str:
    if outcome is None:
        return f"{name}: {'failed' if name in failures else 'trained'}"
    protocol, worst = outcome.evaluation.pair
    pair = f"protocol {protocol}, worst case {worst}" if outcome.evaluation.strongest else f"worst case {worst}"
    return f"{name}: clean {outcome.evaluation.clean_accuracy}, {pair}"
