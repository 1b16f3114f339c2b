"""An experiment is a value; running it is a straight line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import checks, loading
from .attacks import ATTACKS, FGSM, PGD
from .config import choice, choices, to_yaml
from .data import DATA, Digits, find
from .verdict import Verdict, evaluate
from .training import Fitted, fit
from .models import MODELS, ResNet
from .norms import BN, NORMS
from .recipes import RECIPES, Standard
from .record import Result, provenance, read_result, to_json, write
from .registry import plain
from .schedule import Schedule
from .seeding import derive
from .surgery import convert
from .threats import THREATS, Linf
from .types import Attack, Data, Norm, Recipe, ThreatModel

CONFIG, RESULT = "config.yaml", "result.json"
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One network, trained in one way and judged under one threat model.

    Options
        data            the data set, by name or path
        model           the network
        norm            what normalizes at every site of the network
        recipe          what training minimizes
        threat          what the attacker may do, in training and in the verdict
        train_eps       radius in training, if another than the threat's
        attacks         how the attacker searches when the network is judged
        schedule        how training proceeds
        start           train from this model: a run folder or package.module:function; `model` is then not used
        weights         a weights file for `start`
        seed            every random choice follows from it
        batch_size      rows per batch when the network is judged
        device          "cpu", "cuda", "cuda:1", or "auto"
        threads         CPU threads; 0 leaves torch's choice
    """

    data: Data = choice(DATA, Digits(), find)
    model: Any = choice(MODELS, ResNet(depth=8))
    norm: Norm | None = choice(NORMS, BN())
    recipe: Recipe = choice(RECIPES, Standard())
    threat: ThreatModel = choice(THREATS, Linf())
    train_eps: float | None = None
    attacks: tuple[Attack, ...] = choices(ATTACKS, (FGSM(), PGD()))
    schedule: Schedule = Schedule()
    start: str = ""
    weights: str = ""
    seed: int = 0
    batch_size: int = 100
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check_running(self)


def check_running(settings: Any) -> None:
    """Refuse what no run can be made with. Raises ValueError."""
    if settings.batch_size < 1:
        raise ValueError(f"batch_size is {settings.batch_size}; give a whole number >= 1")
    if settings.threads < 0:
        raise ValueError(f"threads is {settings.threads}; give a whole number >= 0 (0: torch's choice)")


def place(settings: Any) -> torch.device:
    """Set the number of threads and find the device. Raises ValueError for a device that is not there."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); give cpu, cuda, cuda:1 or auto") from None
    return device


def build(e: Experiment) -> nn.Module:
    """Make the network of an experiment, untrained or from `start`; its initial weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(e.seed, "weights"))
        if not e.start:
            return e.model(e.norm, classes=e.data.classes, mean=e.data.mean, std=e.data.std)
        model = loading.load(e.start, e.weights).model
    return convert(model, e.norm) if e.norm else model


def train(e: Experiment, folder: Path, report: Report) -> Fitted:
    """Build and fit; every epoch is kept in the folder, and a stopped run goes on from there."""
    keep_settings(e, folder)
    card = {
        "model": plain(e.model),
        "norm": plain(e.norm),
        "start": e.start,
        "classes": e.data.classes,
        "mean": e.data.mean,
        "std": e.data.std,
        "data": plain(e.data),
    }
    threat = e.threat if e.train_eps is None else dataclasses.replace(e.threat, eps=e.train_eps)  # type: ignore[type-var]
    return fit(
        build(e), e.data, e.recipe, threat, e.schedule, seed=e.seed, device=place(e), folder=folder, card=card, report=report
    )


def judge(e: Any, model: nn.Module, report: Report, name: str = "") -> Verdict:
    """Evaluate on the test rows of `e.data` with the threat model, attacks, seed and batch size of `e`; attach the checks."""
    batches = e.data.test(batch_size=e.batch_size)
    verdict = evaluate(model, batches, e.threat, e.attacks, seed=e.seed, model_name=name, data=plain(e.data), report=report)
    checked = checks.annotate(verdict.evaluation, model, batches[0])
    return verdict._replace(evaluation=dataclasses.replace(checked, provenance=provenance()))


def run(e: Experiment, folder: Path, *, name: str = "", report: Report = lambda text, done, total: None) -> Result:
    """Train, judge, and write `result.json`; a folder that holds the result of these very settings is read instead."""
    path = folder / RESULT
    if path.exists() and same_settings(e, folder):
        return read_result(path)
    fitted = train(e, folder, report)
    verdict = judge(e, fitted.model, report, name)
    result = Result(
        name=name or folder.name, experiment=labelled(e), training=fitted.training, evaluation=verdict.evaluation
    )
    write(path, to_json(result))
    return result


def labelled(e: Any) -> dict[str, Any]:
    """Settings as plain data for a record, with the label by which tables call each choice."""
    data: dict[str, Any] = plain(e)
    for key in ("norm", "recipe"):
        label = getattr(getattr(e, key, None), "label", None)
        if label:
            data[key]["label"] = label
    return data


def same_settings(e: Any, folder: Path) -> bool:
    """Whether the folder was made with these settings."""
    return (folder / CONFIG).exists() and (folder / CONFIG).read_text() == to_yaml(e)


def keep_settings(e: Any, folder: Path) -> None:
    """Write `config.yaml`. Raises ValueError for a folder that cannot be written or belongs to another run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CONFIG).exists() and not same_settings(e, folder):
            raise ValueError(f"{folder} holds a run of other settings (see its {CONFIG}); give another --out, or delete it")
        write(folder / CONFIG, to_yaml(e))
    except OSError as error:
        raise ValueError(f"cannot write in {folder}: {error.strerror}; give another --out") from None
