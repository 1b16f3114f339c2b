"""An experiment is a value; running it is a straight line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ..attacks import ATTACKS, FGSM, PGD
from ..config import choice, choices
from ..data import DATA, Digits, find
from ..data.augment import check_crop, check_flip
from ..evaluation import sanity_checks
from ..evaluation.evaluator import evaluate
from ..evaluation.plan import AttackPlan, check_attacks, settle_strongest
from ..evaluation.predictor import check_network
from ..evaluation.verdict import Verdict
from ..models import MODELS, ResNet, loading
from ..models.abnn import Adaptive, abnn
from ..norms import BN, NORMS
from ..norms.surgery.conversion import converted, with_known_statistics
from ..records import Evaluation, Result, read_result, to_json, write
from ..registry import plain
from ..seeding import derive, drawing, generator
from ..threats import THREATS, Linf
from ..training.loop import Fitted, fit
from ..training.options import FitOptions
from ..training.recipes import RECIPES, Standard
from ..training.schedule import Schedule, autocast
from ..types import Attack, Data, Norm, Recipe, Report, ThreatModel, silent
from ..utils.model_state import moved
from ..utils.network_size import check_size
from ..utils.run import RESULT, check_running, set_up_device
from ..utils.run_folder import check_folder, keep_settings, same_settings
from ..utils.workers import check_devices, current_rank
from . import substitutes
from .cards import card
from .columns import Columns, by_group, check_columns, completed, evaluate_columns
from .patterns import with_patterns
from .together import joined


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One network, trained in one way and evaluated under one threat model.

    Options
        data            the data set, by name or path
        model           the network
        norm            the normalization layer used throughout the network; null: none, or those that `start` has
        recipe          what training minimizes
        threat          what the attacker may do, in training and evaluation
        train_eps       radius in training, if it differs from the threat's
        attacks         the attacks of the evaluation (the protocol)
        strongest       further attacks, on the images that `attacks` leave correct; []: none, null: those that suit the threat model
        columns         further attackers, scaled to the data and to the radius of `threat`, each with a figure of its own
        schedule        how training proceeds
        start           train from this model: a run folder, hub:USER/NAME, or package.module:function; `model` is then not used
        weights         a weights file for `start`
        substitute      make the network an ABNN with this substitute: a run folder, a weights file beside its model.json,
                        hub:USER/NAME, or package.module:function; it may be trained on any data, with any classes
        substitute_weights  a weights file for `substitute`
        adaptive        what the substitute delivers, and where (recipe abnn trains it)
        seed            every random choice follows from it
        batch_size      images per batch in the evaluation
        device          "cpu", "cuda", "cuda:1", or "auto"
        devices         processes that train together, each on a CUDA device of its own, or all on the CPU; batches stay as large
        threads         CPU threads; 0: torch's default
        tensorboard     write every epoch for TensorBoard too (needs the extra tensorboard)
    """

    data: Data = choice(DATA, Digits(), find)
    model: Any = choice(MODELS, ResNet(depth=8))
    norm: Norm | None = choice(NORMS, BN())
    recipe: Recipe = choice(RECIPES, Standard())
    threat: ThreatModel = choice(THREATS, Linf())
    train_eps: float | None = None
    attacks: tuple[Attack, ...] = choices(ATTACKS, (FGSM(), PGD()))
    strongest: tuple[Attack, ...] | None = choices(ATTACKS, None)
    columns: Columns = Columns()
    schedule: Schedule = Schedule()
    start: str = ""
    weights: str = ""
    substitute: str = ""
    substitute_weights: str = ""
    adaptive: Adaptive = Adaptive()
    seed: int = 0
    batch_size: int = 100
    device: str = "auto"
    devices: int = 1
    threads: int = 0
    tensorboard: bool = False

    marked: ClassVar = ("test", "training")

    @property
    def files(self) -> dict[str, Path]:
        """What makes the network that training begins with, and the substitute."""
        return loading.network_files(start=(self.start, self.weights), substitute=(self.substitute, self.substitute_weights))

    def __post_init__(self) -> None:
        settle_strongest(self)
        check_running(self)
        check_devices(self.devices, self.device)
        check_columns(self.columns, self.threat)
        _ = self.training_threat  # refuses a radius that cannot be
        for option, file, of in (
            ("weights", self.weights, "start"),
            ("substitute_weights", self.substitute_weights, "substitute"),
        ):
            if file and not getattr(self, of):
                raise ValueError(f"{option} is {file!r}, but no model is named; name one as {of}, or leave {option} out")
        if self.adaptive != Adaptive() and not self.adapted:
            raise ValueError(
                f"adaptive is set (source {self.adaptive.source}), but no substitute; name a run folder as substitute"
            )
        if self.adaptive.source == "plain" and self.substitute:
            raise ValueError(
                f"substitute is {self.substitute!r}, which adaptive source plain does not use; leave one of them out"
            )
        if self.train_eps is not None and not self.recipe.robust:
            raise ValueError(
                f"train_eps is {self.train_eps:g}, and recipe {self.recipe.name} attacks nothing in training; leave it out"
            )
        if self.start and self.model != type(self).model:
            raise ValueError(
                f"model is set ({self.model.name}), and training starts from {self.start}, which has its own; leave one out"
            )
        if self.norm is None and not self.start and getattr(self.model, "normalizes", True):
            raise ValueError(
                "norm is null, which keeps the norms of a model to start from; name a norm (`none` is no normalization)"
            )

    @property
    def adapted(self) -> bool:
        """Whether the network gets adaptive layers; plain ones need no substitute."""
        return bool(self.substitute) or self.adaptive.source == "plain"

    @property
    def training_threat(self) -> ThreatModel:
        """What the attacker may do in training."""
        return self.threat if self.train_eps is None else dataclasses.replace(self.threat, eps=self.train_eps)  # type: ignore[type-var]


def build(e: Experiment) -> nn.Module:
    """Make the network of an experiment, untrained or from `start`; its initial weights follow from the seed."""
    return _built(e)[0]


def _built(e: Experiment) -> tuple[nn.Module, list[loading.Loaded]]:
    """The network of an experiment, and those that were loaded for it."""
    loaded = []
    about: dict[str, Any] = {} if e.start else {"classes": e.data.classes, "mean": e.data.mean, "std": e.data.std}
    if not e.start:
        check_size(lambda: e.model(e.norm, **about), e.model.name)
    with drawing(derive(e.seed, "weights")):
        if e.start:
            loaded.append(loading.load(e.start, e.weights, getattr(e.data, "views", 1)))
            model = converted(loaded[0].model, e.norm) if e.norm else loaded[0].model
            rows = e.data.train(batch_size=e.schedule.batch_size, generator=generator(e.seed, "statistics"))
            model = with_known_statistics(model, rows)
        else:
            model = e.model(e.norm, **about)
        if not e.adapted:
            return model, loaded
        substitutes.check(substitutes.card(e.start, e.weights), substitutes.card(e.substitute, e.substitute_weights))
        if e.substitute:
            loaded.append(loading.load(e.substitute, e.substitute_weights, getattr(e.data, "views", 1)))
        return abnn(model, loaded[-1].model if e.substitute else None, e.adaptive, shape=_shape(e)), loaded


def _shape(e: Experiment) -> tuple[int, ...]:
    return tuple(e.data.test(batch_size=2)[0].x.shape[1:])


def prepared(e: Experiment, report: Report = silent) -> tuple[nn.Module, dict[str, str]]:
    """Build the network on its device and try it on the data; returns what has to be said of weights too.

    Raises ValueError for whatever training would stumble over.
    """
    device = set_up_device(e)
    _check_kind(e)
    model, loaded = _built(e)
    moved(model, device)
    ready = e.recipe.prepare(model)
    for rows in (2, e.schedule.batch_size):
        batch = e.data.test(batch_size=rows)[0]
        ends = (torch.arange(len(batch.y)) == 0) * (e.data.classes - 1)  # of the labels that training will meet
        check_network(ready, batch._replace(y=ends), "train")
    check_attacks(_plan(e).every, e.threat, batch)
    e.columns.plans(_plan(e), batch.x.shape[1:])
    e.data.train_batches(e.schedule.batch_size)
    check_crop(batch.x, e.schedule.crop)
    if e.schedule.flip:
        check_flip(e.data)
    autocast(e.schedule, device)
    return model, loading.report_notes(loaded, report)


def _check_kind(e: Experiment) -> None:
    """Refuse a network for images where rows are clips, or the other way round, or for other views. Raises ValueError."""
    clips, shape = getattr(e.model, "clips", False), _shape(e)
    if not e.start and clips != (len(shape) == 4):
        reads, others = ("clips", "images") if clips else ("images", "clips")
        fit = ", ".join(name for name, kind in MODELS.items() if getattr(kind, "clips", False) != clips)
        raise ValueError(
            f"model {e.model.name} reads {reads}, and the rows of {e.data.name} are {others} {shape}; give one of {fit}"
        )
    given, taken = getattr(e.data, "views", 1), getattr(e.model, "views", 1)
    if not e.start and given != taken:
        raise ValueError(
            f"data.views is {given}, and model.views {taken}; give both the same, for a network that has the option"
        )


def train(e: Experiment, folder: Path, report: Report) -> tuple[Fitted, dict[str, str]]:
    """Build and fit; every epoch is kept in the folder, and a stopped run resumes there. Returns `prepared`'s words too.

    Where torchrun has started several processes, each calls this.
    """
    first = current_rank().rank == 0
    if first:
        check_folder(e, folder)
    with joined(e, partial(train, folder=folder, report=silent)) as own:
        model, said = prepared(own, report)
        if first:
            keep_settings(e, folder)
        options = FitOptions(folder=folder, card=card(e, _shape(e)), report=report, tensorboard=e.tensorboard)
        fitted = fit(model, e.data, e.recipe, e.training_threat, e.schedule, seed=e.seed, options=options)
    return fitted, said


def evaluated(e: Experiment, model: nn.Module, report: Report, name: str = "") -> Evaluation:
    """Evaluate on the test rows of `e.data` with the threat model, attacks, seed and batch size of `e`; attach the checks."""
    verdict = _judged(e, model, report, name)
    return completed(verdict.evaluation, model, verdict.batches, e.threat, report=report)


def _judged(e: Experiment, model: nn.Module, report: Report, name: str) -> Verdict:
    made = _plan(with_patterns(e, model, report))
    verdict = evaluate(model, e.data.test(batch_size=e.batch_size), made, report=report)
    return by_group(verdict.named(name, plain(e.data)), e.data)


def _plan(e: Experiment) -> AttackPlan:
    return AttackPlan(e.threat, e.attacks, strongest=e.strongest or (), seed=e.seed)


def finished(e: Experiment, folder: Path) -> bool:
    """Whether the folder holds the result of these very settings."""
    return (folder / RESULT).exists() and same_settings(e, folder)


def run(e: Experiment, folder: Path, *, name: str = "", report: Report = silent) -> Result:
    """Train, evaluate, and write `result.json`; a folder that holds the result of these very settings is read instead."""
    if finished(e, folder):
        return read_result(folder / RESULT)
    fitted, said = train(e, folder, report)
    verdict = _judged(e, fitted.model, report, name)
    evaluation = completed(verdict.evaluation, fitted.model, verdict.batches, e.threat, report=report)
    several = evaluate_columns(e.columns, verdict, fitted.model, _plan(e), report=report)
    doubts = (*evaluation.checks, *sanity_checks.of_training(fitted.training))
    evaluation = dataclasses.replace(evaluation, checks=doubts, provenance=evaluation.provenance | said)
    heard = None
    if e.substitute and e.adaptive.source != "plain":
        batches = e.data.test(batch_size=e.batch_size)
        heard = substitutes.described(e.substitute, e.substitute_weights, e.data, batches, e.threat, set_up_device(e))
    result = Result(
        name=name or folder.name,
        experiment=labelled(e),
        training=fitted.training,
        evaluation=evaluation,
        substitute=heard,
        several=several,
    )
    write(folder / RESULT, to_json(result))
    return result


def labelled(e: Any) -> dict[str, Any]:
    """Settings as plain data for a record, with the label by which tables call each choice."""
    data: dict[str, Any] = plain(e)
    if getattr(e, "start", ""):  # its own network, which no setting names
        data["model"] = substitutes.card(e.start, e.weights).get("model")
    for key in ("norm", "recipe"):
        label = getattr(getattr(e, key, None), "label", None)
        if label:
            data[key]["label"] = label
    return data
