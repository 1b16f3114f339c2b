"""An evaluation is a value; running it attacks a network, on one device or several, and resumes where it was stopped."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ..attacks import ATTACKS, FGSM, PGD
from ..config import choice, choices
from ..data import DATA, Digits, find
from ..evaluation import curves, sanity_checks
from ..evaluation.acceleration import Speed
from ..evaluation.evaluator import evaluate
from ..evaluation.forecast import report_expected_time
from ..evaluation.plan import AttackPlan, Stateful, check_attacks, settle_strongest
from ..evaluation.predictor import check_network
from ..evaluation.sanity_checks import ROWS
from ..evaluation.store import PARTS, Shard
from ..evaluation.verdict import Verdict
from ..models.abnn import detached
from ..models.loading import Loaded, check_named, load, report_notes
from ..records import Result, read_result, to_json, write
from ..registry import plain
from ..threats import THREATS, Linf
from ..types import Attack, Batch, Data, Goal, Report, ThreatModel, silent
from ..utils.forward import until
from ..utils.model_state import device_of, digest, moved
from ..utils.run import RESULT, check_running, set_up_device
from ..utils.run_folder import check_folder, keep_settings
from ..utils.workers import check_devices, for_process, helped
from .columns import Columns, by_group, check_columns, completed, evaluate_columns, share
from .experiment import labelled
from .patterns import with_patterns


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Which network is evaluated, on which data, under which attacks.

    Options
        model           a run folder, a weights file beside its model.json, hub:USER/NAME, or package.module:function
        weights         a weights file for the function: safetensors, or .pt/.pth/.th that holds tensors only
        craft_on        attack this network instead (a surrogate, a straight-through copy); success is checked on `model`
        through_substitute  of an ABNN; false: a weaker attacker without the gradient through the substitute, not its robustness
        data            the data set, by name or path
        threat          what the attacker may do
        attacks         the attacks (the protocol)
        strongest       further attacks, on the images that `attacks` leave correct; []: none, null: those that suit the threat model
        columns         further attackers, scaled to the data and to the radius of `threat`, each with a figure of its own
        goal            "misclassified": any wrong class counts; "targeted": only the class after the label counts
        stateful        for a network that a forward pass changes: "refuse" it, "restore" it after each pass, or check the batches
                        in order, each in the state that the one before left ("sequence")
        speed           what makes the search faster
        eps_curve       also measure robust accuracy at these radii, e.g. [1/255, 2/255, 4/255]
        step_curve      also measure robust accuracy at these numbers of steps
        seed            every random choice follows from it
        batch_size      images per batch
        device          "cpu", "cuda", "cuda:1", or "auto"
        devices         processes that share the batches, each on a CUDA device of its own, or all on the CPU
        threads         CPU threads; 0: torch's default
        budget          minutes; then it stops between two passes, and the same command with more of them goes on; 0: no limit
    """

    model: str = ""
    weights: str = ""
    craft_on: str = ""
    through_substitute: bool = True
    data: Data = choice(DATA, Digits(), find)
    threat: ThreatModel = choice(THREATS, Linf())
    attacks: tuple[Attack, ...] = choices(ATTACKS, (FGSM(), PGD()))
    strongest: tuple[Attack, ...] | None = choices(ATTACKS, None)
    columns: Columns = Columns()
    goal: Goal = "misclassified"
    stateful: Stateful = "refuse"
    speed: Speed = Speed()
    eps_curve: tuple[float, ...] = ()
    step_curve: tuple[int, ...] = ()
    seed: int = 0
    batch_size: int = 100
    device: str = "auto"
    devices: int = 1
    threads: int = 0
    budget: float = 0.0

    free: ClassVar = ("budget",)  # no figure hangs on it

    def __post_init__(self) -> None:
        settle_strongest(self)
        check_running(self)
        check_devices(self.devices, self.device)
        if not 0 <= self.budget < math.inf:
            raise ValueError(f"budget is {self.budget}; give minutes, or 0 for no limit")
        if self.craft_on and not self.through_substitute:
            raise ValueError("craft_on and through_substitute: false both say what to attack; give one of them")
        check_columns(self.columns, self.threat)
        plan = plan_of(self)
        if self.stateful == "sequence" and self.devices > 1:
            raise ValueError(f"devices is {self.devices}, and batches in sequence cannot be shared; leave devices at 1")
        for radius in self.eps_curve:
            curves.at(plan, "eps", radius)
        for steps in self.step_curve:
            curves.at(plan, "steps", steps)
        check_named(self.model, "evaluate")


def run_evaluation(e: Evaluate, folder: Path, report: Report = silent) -> tuple[Result, Verdict]:
    """Evaluate, and write `config.yaml` and `result.json`; finished batches are kept in `parts` until `clear` is called.

    Raises ValueError as `evaluate` does, for a folder that holds a run of other settings, and when the budget is over: a
    figure of unfinished searches would depend on the clock.
    """
    try:
        with until(time.monotonic() + 60 * e.budget if e.budget else math.inf):
            return _evaluated(e, folder, report)
    except FileNotFoundError as gone:
        if str(folder / PARTS) not in str(gone) or not (folder / RESULT).is_file():
            raise
        clear(folder)  # the other one did so too
        raise ValueError(f"another process has made this evaluation meanwhile; its result is in {folder}") from None
    except TimeoutError:
        if not e.budget:
            raise
        made = len(list((folder / PARTS).glob("*.safetensors")))
        advice = (
            "give a larger --budget, and the same command goes on" if made else "give a larger --budget, or smaller batches"
        )
        raise ValueError(f"the budget of {e.budget:g} minutes is over; finished batches: {made}; {advice}") from None


def _evaluated(e: Evaluate, folder: Path, report: Report) -> tuple[Result, Verdict]:
    check_folder(e, folder)
    model, crafted_on, loaded = _networks(for_process(e, 0))
    batches = e.data.test(batch_size=e.batch_size)
    first = Batch(*(tensor[:ROWS].to(device_of(model)) for tensor in batches[0]))
    check_network(model, first)
    own = plan_of(e)
    wanted: dict[curves.Over, Sequence[float]] = {"eps": e.eps_curve, "steps": e.step_curve}
    plans = [own, *e.columns.plans(own, first.x.shape[1:]).values()]
    plans += [curves.at(own, over, value) for over, values in wanted.items() for value in values]
    for its in plans:
        check_attacks(its.every, its.threat, first, e.goal)
    said = report_notes(loaded, report)
    with suppress(ValueError):
        if read_result(folder / RESULT).evaluation.digest_before != digest(model):
            report(f"result: {folder} holds that of other weights, which will be replaced", 0, 0)
    keep_settings(e, folder)
    given, e = e, with_patterns(e, crafted_on or model, report, folder / PARTS)
    every = [attack for its in plans for attack in its.every]
    report_expected_time(crafted_on or model, batches, every, e.devices, e.budget, report)
    ours, parts = plan_of(e), folder / PARTS
    shard = Shard(parts, 0, e.devices, whole=e.devices > 1)
    with helped(e, min(e.devices, len(batches)), partial(_help, folder=parts), lambda text: report(text, 0, 0)):
        neighbours = sanity_checks.beside_malicious(model, batches, e.seed)  # this process has begun before the others
        verdict = evaluate(model, batches, ours, craft_on=crafted_on, folder=shard, report=report)
        found = tuple(
            curves.curve(model, batches, ours, over, values, craft_on=crafted_on, report=report)
            for over, values in wanted.items()
            if values
        )
        verdict = verdict.named(e.model, plain(e.data))
        verdict = by_group(
            dataclasses.replace(verdict, evaluation=dataclasses.replace(verdict.evaluation, curves=found)), e.data
        )
        several = evaluate_columns(e.columns, verdict, model, ours, crafted_on, shard, report)
    whole = completed(verdict.evaluation, model, batches, e.threat, crafted_on, report, neighbours)
    doubts = whole.checks
    if crafted_on is not None:
        on = e.craft_on or "the network itself, without the gradient through its substitute"
        doubts = (sanity_checks.crafted_elsewhere(on), *doubts)
    evaluation = dataclasses.replace(whole, checks=doubts, provenance=whole.provenance | said)
    result = Result(name=folder.name, experiment=labelled(given), training=None, evaluation=evaluation, several=several)
    write(folder / RESULT, to_json(result))
    return result, dataclasses.replace(verdict, evaluation=evaluation)


def clear(folder: Path) -> None:
    """Delete the finished batches that a killed evaluation would resume from: it has ended."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)


def _networks(e: Evaluate) -> tuple[nn.Module, nn.Module | None, list[Loaded]]:
    """The network that is evaluated, the one that is attacked instead, and both as they were loaded."""
    there = set_up_device(e)
    views = getattr(e.data, "views", 1)
    loaded = [load(e.model, e.weights, views), *([load(e.craft_on, views=views)] if e.craft_on else [])]
    model, *others = [moved(one.model, there) for one in loaded]
    if not e.through_substitute:
        return model, detached(model), loaded
    return model, others[0] if others else None, loaded


def plan_of(e: Evaluate) -> AttackPlan:
    """How the network is attacked."""
    how: dict[str, Any] = {name: getattr(e, name) for name in ("strongest", "seed", "stateful", "speed", "goal")}
    return AttackPlan(e.threat, e.attacks, **how)


def _help(e: Evaluate, number: int, folder: Path) -> None:
    """Attack batches that no other process is attacking, until there are none."""
    model, crafted_on, _ = _networks(e)
    batches, shard = e.data.test(batch_size=e.batch_size), Shard(folder, number, e.devices, whole=True)
    evaluate(model, batches, plan_of(e), craft_on=crafted_on, folder=shard)
    share(e.columns, model, batches, plan_of(e), crafted_on, shard)
