"""What makes a network more robust, and at what price: several ways are tried, one is chosen on validation images."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ..attacks import ATTACKS, FGSM, PGD
from ..auditing.auditor import Audit, run_audit
from ..config import choice, choices
from ..data import DATA, Digits, find
from ..evaluation import dead
from ..evaluation.evaluator import evaluate
from ..evaluation.plan import AttackPlan, settle_strongest
from ..models.checkpoints import WEIGHTS
from ..models.loading import check_named, is_function, load, network_files, report_notes
from ..records import Result, Training, provenance, to_json, write
from ..registry import plain, unknown
from ..threats import THREATS, Linf
from ..training.loop import Diverged, fit
from ..training.schedule import Schedule
from ..types import Attack, Data, Report, ThreatModel, silent
from ..utils.model_state import moved
from ..utils.per_row import first_rows
from ..utils.run import RESULT, check_running, set_up_device
from ..utils.run_folder import CONFIG, check_folder, keep_settings, same_settings
from .evaluation_run import clear
from .experiment import Experiment, evaluated, labelled, prepared, run
from .patterns import with_patterns
from .tuning import Search, Try, Tuning, search
from .unseen import ROWS, unseen, with_validation
from .ways import WAYS, Way, against, choose, fitted, near, sentences, verdict, why_not

RECORD, GIVEN = "improve.json", "as given"
AFTERWARDS = ("ways", "lose", "budget", "rows")  # no training depends on these: with others, finished ones are used again
AUDITS = (0.15, 0.25)  # of the budget: for the network as it is given, and for the one chosen


@dataclass(frozen=True, kw_only=True)
class Improve:
    """Which network is to become more robust, and how much may be spent on it.

    Options
        model       a run folder, a weights file beside its model.json, hub:USER/NAME, or package.module:function
        weights     a weights file for the function
        data        the data set, by name or path: its training images train, its validation images choose, its test images report.
                    Without validation images, a tenth of the training images are taken, 1,000 at most
        threat      what the attacker may do, in training and evaluation
        ways        what is tried, in this order: some of pgd-at, mixed, norms-alone, robustnorm, groupnorm
        attacks     the attacks of the evaluation (the protocol)
        strongest   further attacks, on the images that `attacks` leave correct; []: none, null: those that suit the threat model
        schedule    how every way trains, its learning rate apart
        rates       learning rates from which every way chooses, by trainings a third as long. While the best is the first or last
                    one, up to two beyond are tried too; a single rate is taken as it is
        lose        share of clean accuracy that the chosen network may lose, on validation images
        budget      minutes, two fifths of them for audits. No way is begun that would end too late, by what the ways before took. The first
                    is always tried
        rows        test images of each audit
        seed        every random choice follows from it
        batch_size  images per batch in the evaluation
        device      "cpu", "cuda", "cuda:1", or "auto"
        threads     CPU threads; 0: torch's default
    """

    model: str = ""
    weights: str = ""
    data: Data = choice(DATA, Digits(), find)
    threat: ThreatModel = choice(THREATS, Linf())
    ways: tuple[str, ...] = tuple(WAYS)
    attacks: tuple[Attack, ...] = choices(ATTACKS, (FGSM(), PGD()))
    strongest: tuple[Attack, ...] | None = choices(ATTACKS, None)
    schedule: Schedule = Schedule(epochs=10, optimizer="adamw", lr=1e-3, decay="onecycle", validate_every=5)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    lose: float = 0.2
    budget: float = 60.0
    rows: int = 200
    seed: int = 0
    batch_size: int = 100
    device: str = "auto"
    threads: int = 0

    marked: ClassVar = ("test", "training")

    @property
    def files(self) -> dict[str, Path]:
        """What makes the network."""
        return network_files(model=(self.model, self.weights))

    def __post_init__(self) -> None:
        settle_strongest(self)
        check_running(self)
        check_named(self.model, "improve")
        if not self.ways or not self.rates:
            given = f"ways is {list(self.ways)} and rates {list(self.rates)}"
            raise ValueError(f"{given}; give at least one of each, such as pgd-at and 0.001")
        for rate in self.rates:
            replace(self.schedule, lr=rate)  # refuses a rate that cannot be
        for way in self.ways:
            if way not in WAYS:
                raise unknown("way", way, list(WAYS))
        if not 0 <= self.lose <= 1 or not self.budget > 0 or self.rows < 1:
            raise ValueError(
                f"lose is {self.lose}, budget {self.budget} and rows {self.rows}; give a share from 0 to 1, and numbers above 0"
            )


def run_improve(s: Improve, folder: Path, report: Report) -> dict[str, Any]:
    """Try the ways, choose one, audit it, and write `improve.json`; returns that record.

    The record's `network` is what every verb takes as its model: the run folder `cells/WAY`, or the function and its weights; `again`
    has the command that repeats its training. A stopped run resumes where it was, and so does one with other `ways`, `lose`, `budget`
    or `rows`. Raises ValueError for a network or data that cannot be used, and for a folder that another run filled.
    """
    check_folder(s, folder, agree=[one.name for one in fields(s) if one.name not in AFTERWARDS])
    asked = s
    loaded = load(s.model, s.weights)
    start = moved(loaded.model, set_up_device(s))
    s = replace(s, data=with_validation(s.data))
    ways = [fitted(WAYS[name], start) for name in dict.fromkeys(s.ways)]
    for way in ways:
        if not why_not(way, start):
            prepared(experiment_of(s, way, s.rates[0]), report)  # what cannot run is refused before anything is written
    said = report_notes([loaded], report)
    data, validation = unseen(s.data, start, s.threat, s.batch_size)
    s = replace(s, data=data)
    keep_settings(asked, folder)
    pieces = len(ways) + 3
    if validation["sentence"]:
        report(f"validation images: {validation['sentence']}", 0, pieces)
    report("the network as it is given", 0, pieces)
    before = _before(s, folder, start, report)
    tried = list[dict[str, Any]]()
    for number, way in enumerate(ways, 1):
        why = "" if (folder / f"{way.name}.json").exists() else why_not(way, start) or _too_late(s, [before, *tried])
        report(f"{way.name}: {'was not tried' if why else way.says}", number, pieces)
        tried.append(_tried(s, way, folder, why))
    count = sum(one["state"] == "tried" for one in tried)
    tried = [one | ({"against": against(before, one, s.lose, count)} if one["state"] == "tried" else {}) for one in tried]
    chosen = choose(tried)
    report("audit of the network as it is given", pieces - 2, pieces)
    left = AUDITS[0] if chosen else sum(AUDITS)
    audits = {"before": _audited(s, folder / "audit-before", {"model": s.model, "weights": s.weights}, left)}
    if not chosen:
        shutil.rmtree(folder / "audit-after", ignore_errors=True)  # of a way that was chosen under other settings
    else:
        report(f"audit of {chosen['name']}", pieces - 1, pieces)
        model, weights = made(s, chosen["name"], folder)
        claim = {"claim": str(folder / "cells" / chosen["name"] / RESULT), "twin": "none" if s.weights else s.model}
        audits["after"] = _audited(s, folder / "audit-after", {"model": model, "weights": weights, **claim}, AUDITS[1])
    first, *others = sentences(before, tried, chosen, audits)
    record = {
        "settings": plain(s),
        "validation": validation,
        "before": before,
        "ways": tried,
        "chosen": chosen["name"] if chosen else "",
        "near": near(chosen, tried) if chosen else [],
        "network": " --weights ".join(filter(None, made(s, chosen["name"], folder))) if chosen else "",
        "again": _again(s, chosen, folder) if chosen else None,
        "sentences": [first, *filter(None, [validation["sentence"]]), *others],
        "audits": {when: {"verdict": one["verdict"], "sentence": verdict(one)} for when, one in audits.items()},
        "provenance": provenance() | said,
    }
    write(folder / RECORD, to_json(record))
    report("done", pieces, pieces)
    return record


def experiment_of(s: Improve, way: Way, rate: float) -> Experiment:
    """A way as an experiment that starts from the network."""
    shared = ("data", "weights", "threat", "attacks", "strongest", "seed", "batch_size", "device", "threads")
    own: dict[str, Any] = {name: getattr(s, name) for name in shared}
    return Experiment(**own, start=s.model, norm=way.norm, recipe=way.recipe, schedule=replace(s.schedule, lr=rate))


def made(s: Improve, way: str, folder: Path) -> tuple[str, str]:
    """How the network of a way is named, and its weights file: a run folder, or the function that makes it and what it learned."""
    cell = folder / "cells" / way
    return (s.model, str(cell / WEIGHTS)) if is_function(s.model) else (str(cell), "")


def _again(s: Improve, chosen: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The command that trains a way once more, behind which settings can be changed, and how it was trained."""
    config = shlex.quote(str(folder / "cells" / chosen["name"] / CONFIG))
    how = f"{s.schedule.optimizer}, learning rate {chosen['search']['rate']:.3g}, epochs {s.schedule.epochs}"
    return {"command": f"normwise train --config {config} --out runs/train", "how": how}


def _too_late(s: Improve, made: Sequence[Mapping[str, Any]]) -> str:
    """Why no further way is begun: it would end after the budget. The first is always tried."""
    done = [one["seconds"] for one in made[1:] if one["state"] == "tried"]
    if not done:
        return ""
    spent, more = (made[0]["seconds"] + sum(done)) / 60, max(done) / 60
    needed = (spent + more) / (1 - sum(AUDITS))
    if needed <= s.budget:
        return ""
    return (
        f"{spent:.1f} minutes were spent, it would take about {more:.1f} more, and {sum(AUDITS) * s.budget:.1f} of {s.budget:g} are "
        f"kept for two audits; with --budget {ceil(10 * needed) / 10:g} and the same --out it is tried"
    )


def _before(s: Improve, folder: Path, model: nn.Module, report: Report) -> dict[str, Any]:
    """The network as it is, on the same images under the same attacks; kept, so that a stopped run does not measure it again."""
    file = folder / "before.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    e = experiment_of(s, WAYS[s.ways[0]], s.rates[0])
    found = Result(name=GIVEN, experiment=labelled(e), training=None, evaluation=evaluated(e, model, report, s.model))
    row = {"name": GIVEN, "says": "the network as it is", "state": "tried", **_figures(s, model, found, None)}
    write(file, to_json(row))
    return dict(json.loads(file.read_text()))


def _tried(s: Improve, way: Way, folder: Path, why: str) -> dict[str, Any]:
    """Tune, train and measure a way, or say why not."""
    row = {"name": way.name, "says": way.says}
    file = folder / f"{way.name}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    if why:
        return {**row, "state": "was not tried", "why": why}
    try:
        found = _search(s, way, folder)
        result = run(experiment_of(s, way, found.rate), folder / "cells" / way.name, name=way.name)
    except Diverged as error:
        return {**row, "state": "failed", "why": str(error)}
    row |= {"state": "tried", **_figures(s, load(*made(s, way.name, folder)).model, result, found)}
    write(file, to_json(row))
    return dict(json.loads(file.read_text()))


def _search(s: Improve, way: Way, folder: Path) -> Search:
    """The learning rate of a way: the best of short trainings, by accuracy on validation images under a short PGD; one alone is taken."""
    if len(s.rates) == 1:
        return Search((), s.rates[0], False)
    rows = sum(len(batch.y) for batch in s.data.validation(batch_size=s.batch_size))
    how = Tuning(most=2, rows=rows, chance=True)

    def attempt(rate: float) -> Try:
        e = experiment_of(s, way, rate)
        short = replace(e.schedule, epochs=how.epochs(e.schedule.epochs))
        try:
            fitted = fit(prepared(e)[0], e.data, e.recipe, e.training_threat, short, seed=e.seed)
        except Diverged:
            return Try(rate, 0.0, None)
        made, rows = fitted.training, s.data.validation(batch_size=s.batch_size)
        alive = dead.asked(fitted.model, rows, s.seed).status == "pass"
        accuracy = made.validation.get("robust", 0.0) if alive else 0.0
        return Try(rate, accuracy, made.loss, made.forwards, made.backwards, made.seconds)

    return search(s.rates, attempt, folder / "tuning" / f"{way.name}.json", how)


def _figures(s: Improve, model: nn.Module, result: Result, found: Search | None) -> dict[str, Any]:
    """What a row of the record says of a network: on validation images, on test images, and what it cost."""
    rows = first_rows(s.data.validation(batch_size=s.batch_size), ROWS)
    s = with_patterns(s, moved(model, set_up_device(s)))
    plan = AttackPlan(s.threat, s.attacks, strongest=s.strongest or (), seed=s.seed)
    judged = evaluate(model, rows, plan)
    e, own, spent = result.evaluation, judged.evaluation, result.training
    search = found.to_record() if found else {"seconds": 0.0}
    return {
        "validation": {"clean": asdict(own.clean_accuracy), "worst": asdict(own.headline), "n": own.n, "rows": own.standing},
        "clean": asdict(e.clean_accuracy),
        "protocol": asdict(e.pair[0]),
        "worst": asdict(e.headline),
        "rows": e.standing,
        "coupled": e.coupled,
        "dead": any(check.name == dead.NAME and check.status != "pass" for check in own.checks),
        "training": _cost(spent) if spent else None,
        "search": search if found else None,
        "seconds": (spent.seconds if spent else 0.0) + search["seconds"] + e.seconds + own.seconds,
    }


def _cost(spent: Training) -> dict[str, Any]:
    wanted = ("seconds", "forwards", "backwards", "epochs", "parameters", "trained_parameters", "remarks")
    return {name: getattr(spent, name) for name in wanted}


def _audited(s: Improve, folder: Path, asked: Mapping[str, str], share: float) -> dict[str, Any]:
    """The audit of a network, kept in a folder of its own, from which one with other settings is taken away."""
    shared = ("data", "threat", "rows", "seed", "device", "threads")
    own: dict[str, Any] = {name: getattr(s, name) for name in shared} | {"twin": "none"} | dict(asked)
    settings = Audit(**own, batch_size=min(s.batch_size, 32), budget=share * s.budget)
    if folder.exists() and not same_settings(settings, folder):
        shutil.rmtree(folder)
    run_audit(settings, folder, silent)  # a finished one of this network is read
    clear(folder)
    return dict(json.loads((folder / "audit.json").read_text()))
