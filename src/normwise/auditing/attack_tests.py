"""Does the attack work? Tests with a known result, for our attacks and for any network they are used on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import ATTACKS, AutoAttack, Corner, Square
from ..config import choice
from ..data import DATA, Digits, find
from ..evaluation.evaluator import evaluate
from ..evaluation.plan import AttackPlan, check_attacks
from ..evaluation.predictor import check_network
from ..models import ResNet
from ..models.loading import Loaded, load, report_notes
from ..norms import BN
from ..records import Check, provenance, to_json, write
from ..registry import plain
from ..seeding import derive, drawing, generator
from ..threats import THREATS, Linf
from ..training.loop import fit
from ..training.recipes import Standard
from ..training.schedule import Schedule
from ..types import Attack, Batch, Data, Report, Search, ThreatModel, silent
from ..utils.batches import Rows, as_batches
from ..utils.forward import logits_of
from ..utils.model_state import device_of, moved, running, untouched
from ..utils.run import check_running, set_up_device
from ..utils.run_folder import check_folder, keep_settings
from .planted import planted_images

RECORD = "selftest.json"
PASSES = 0.95  # share of the planted images that has to be found


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """Which attack is tested, on which network.

    Options
        model       a run folder, hub:USER/NAME, or package.module:function; empty: a small network, trained on the digits in seconds
        weights     a weights file for the function
        data        the data set, by name or path
        threat      what the attacker may do
        attack      the attack that is tested
        rows        number of images
        seed        every random choice follows from it
        batch_size  images per batch
        device      "cpu", "cuda", "cuda:1", or "auto"
        threads     CPU threads; 0: torch's default
    """

    model: str = ""
    weights: str = ""
    data: Data = choice(DATA, Digits(), find)
    threat: ThreatModel = choice(THREATS, Linf(eps=0.1))
    attack: Attack = choice(ATTACKS, AutoAttack())
    rows: int = 30
    seed: int = 0
    batch_size: int = 100
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check_running(self)
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; give a whole number >= 1")
        if self.weights and not self.model:
            raise ValueError(f"weights is {self.weights!r}, but no model is named; name one, or leave weights out")


def run_selftest(settings: SelfTest, folder: Path, report: Report) -> list[Check]:
    """Test the attack, and write `selftest.json` and `config.yaml`.

    Raises ValueError as `selftest` does, and for a folder that another run filled.
    """
    check_folder(settings, folder)
    device, loaded = set_up_device(settings), list[Loaded]()
    x, y, ids = settings.data.test(batch_size=settings.rows)[0]
    batch = Batch(x.to(device), y.to(device), ids)
    check_attacks([settings.attack], settings.threat, batch)
    if settings.model:
        loaded.append(load(settings.model, settings.weights))
        model = moved(loaded[0].model, device)
    else:
        digits = Digits()
        with drawing(derive(settings.seed, "weights")):
            model = ResNet(depth=8)(BN(), classes=digits.classes, mean=digits.mean, std=digits.std).to(device)
        model, _ = fit(model, digits, Standard(), settings.threat, Schedule(epochs=1), seed=settings.seed)
    check_network(model, batch)
    said = report_notes(loaded, report)
    keep_settings(settings, folder)
    checks = selftest(model, batch, settings.threat, settings.attack, seed=settings.seed, report=report)
    write(
        folder / RECORD,
        to_json({**provenance(), **said, "settings": plain(settings), "checks": plain(tuple(checks))}),
    )
    return checks


def selftest(
    model: nn.Module,
    batch: Rows,
    threat: ThreatModel,
    attack: Attack,
    *,
    seed: int = 0,
    report: Report = silent,
) -> list[Check]:
    """Test an attack on a network, in evaluation mode, on the images of one batch, the first of those given: five checks, "pass", "warn" or "fail".

    linear optimum          every registered attack breaks a linear model at 1.05 times the exact distance
    planted image           the attack finds an image that was planted (`planted_images`)
    radius one              in linf at eps 1, where every image is allowed, nothing is left, or the output does not depend on x
    monotone                robust accuracy does not rise with the radius or with the steps
    white box, black box    the attack leaves no more images correct than a random search without gradients

    Raises ValueError as `evaluate` does.
    """
    batch = as_batches(batch)[0]
    tests: list[Callable[[], Check]] = [
        lambda: _linear_optimum(seed),
        lambda: _planted(model, batch, threat, attack, seed),
        lambda: _radius_one(model, batch, attack, seed),
        lambda: _monotone(model, batch, threat, attack, seed),
        lambda: _white_and_black(model, batch, threat, attack, seed),
    ]
    checks = []
    for number, test in enumerate(tests):
        checks.append(test())
        report(f"{checks[-1].name}: {checks[-1].status}", number + 1, len(tests))
    return checks


def _planted(model: nn.Module, batch: Batch, threat: ThreatModel, attack: Attack, seed: int) -> Check:
    x = batch.x.to(device_of(model))
    why = "an attack that misses an adversarial image that is known to exist does not show that a network is robust"
    if (kind := threat.around(x, generator=generator(seed)).kind) not in ("linf", "l2", "l1"):
        return Check(
            name="planted image", status="warn", measured=f"not measured: it needs linf, l2 or l1; got {kind}", why=why
        )
    found = tried = by_chance = 0
    label = torch.zeros(1, dtype=torch.long, device=x.device)
    with running(model, "eval"):
        for row in range(len(x)):
            made = planted_images(model, x[row : row + 1], threat, seed=seed + row)
            if made is None:
                continue
            test, one = made[0], x[row : row + 1]
            x_adv = attack(
                test, one, label, threat, generator=generator(seed, "found", row), search=Search(independent=True)
            ).x_adv
            others = threat.around(one.expand(200, *one.shape[1:]), generator=generator(seed, "chance", row)).start()
            with torch.no_grad():
                found += int(test(x_adv).argmax(1) == 1)
                by_chance += bool((test(others).argmax(1) == 1).any())
            tried += 1
    measured = (
        f"{found} of {tried} planted images found, {by_chance} by 200 random images ({len(x) - tried} images gave no test)"
    )
    status = "warn" if tried == 0 else "pass" if found >= PASSES * tried else "fail"
    return Check(name="planted image", status=status, measured=measured, why=why, n=tried)


def _robust(model: nn.Module, batch: Batch, threat: ThreatModel, attacks: Sequence[Attack], seed: int) -> float:
    return evaluate(
        model, [batch], AttackPlan(threat, attacks, seed=seed, stateful="restore")
    ).evaluation.robust_accuracy.value


def _radius_one(model: nn.Module, batch: Batch, attack: Attack, seed: int) -> Check:
    attacks = [Corner(), *([attack] if "linf" in (getattr(attack, "kinds", ()) or ("linf",)) else [])]
    left = _robust(model, batch, Linf(eps=1.0), attacks, seed)
    noise = torch.rand(batch.x.shape, generator=generator(seed, "noise"), dtype=torch.float32).to(device_of(model))
    with torch.no_grad(), running(model, "eval"), untouched(model, generator(seed, "radius one")):
        blind = bool(torch.equal(*(logits_of(model, x)[:1] for x in (batch.x.to(noise), noise))))
    depends = "the output does not depend on the input" if blind else "the output depends on the input"
    return Check(
        name="radius one",
        status="pass" if left == 0 or blind else "fail",
        measured=f"{100 * left:.1f}% left at linf eps 1; {depends}",
        why="where every image is allowed, no image can stay correct if the output depends on the input",
        n=len(batch.y),
    )


def _monotone(model: nn.Module, batch: Batch, threat: Any, attack: Any, seed: int) -> Check:
    rows, lines, rise = len(batch.y), [], 0.0
    curves: list[tuple[str, list[tuple[ThreatModel, Attack]]]] = []
    if hasattr(threat, "eps"):
        zeros = torch.zeros_like(batch.x[:1])
        diameter = float(threat.around(zeros, generator=generator(seed)).distance(torch.ones_like(zeros)))
        shares = [share for share in (0.25, 0.5, 1.0, 2.0) if threat.eps * share <= diameter]
        radii = [dataclasses.replace(threat, eps=threat.eps * share) for share in shares]
        curves.append(("eps", [(one, attack) for one in radii]))
    if hasattr(attack, "steps"):
        steps = sorted({max(1, attack.steps // 8), max(1, attack.steps // 2), attack.steps, 2 * attack.steps})
        curves.append(("steps", [(threat, dataclasses.replace(attack, steps=one)) for one in steps]))
    for over, settings in curves:
        values = [_robust(model, batch, there, [one], seed) for there, one in settings]
        lines.append(f"over {over}: {', '.join(f'{100 * value:.1f}%' for value in values)}")
        rise = max([rise, *(later - min(values[: i + 1]) for i, later in enumerate(values[1:]))])
    return Check(
        name="monotone",
        status="pass" if rise <= max(0.02, 1 / rows) else "fail",
        measured="; ".join(lines) or "nothing to vary",
        why="accuracy that rises with the radius or the steps is a sign of a failing search",
        n=rows,
    )


def _white_and_black(model: nn.Module, batch: Batch, threat: ThreatModel, attack: Attack, seed: int) -> Check:
    try:
        black = _robust(model, batch, threat, [Square(steps=500)], seed)
    except ValueError as error:
        return Check(
            name="white box, black box", status="warn", measured=f"not measured: {error}", why="a test that did not run"
        )
    white = _robust(model, batch, threat, [attack], seed)
    return Check(
        name="white box, black box",
        status="pass" if white <= black + max(0.002, 1 / len(batch.y)) else "fail",
        measured=f"{attack.name} leaves {100 * white:.1f}%, square with 500 queries {100 * black:.1f}%",
        why="gradients that find less than random search are masked",
        n=len(batch.y),
    )


class _Linear(nn.Module):
    """Two classes, logits (0, w . x): the distance of an image to the boundary is known exactly."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


@functools.cache
def _linear_optimum(seed: int) -> Check:
    """Where the box does not interfere, the distance is |w . x| over the dual norm of w."""
    rng = generator(seed, "linear")
    w = torch.randn(2, 4, 4, generator=rng, dtype=torch.float32)
    x = 0.5 + 0.1 * torch.rand(8, 2, 4, 4, generator=rng, dtype=torch.float32)
    dual = {"linf": w.abs().sum(), "l2": w.norm(), "l1": w.abs().max()}
    model, failed, tested = _Linear(w).eval(), [], 0
    with torch.no_grad():
        y, score = model(x).argmax(1), model(x)[:, 1].abs()
    for kind in sorted(dual.keys() & THREATS.keys()):
        far = 1.05 * float((score / dual[kind]).max())
        for name, make in ATTACKS.items():
            attack = make()
            if name in WEAK or (attack.kinds and kind not in attack.kinds):
                continue
            tested += 1
            threat = THREATS[kind](eps=far)
            x_adv = attack(model, x, y, threat, generator=generator(seed, name), search=Search(independent=True)).x_adv
            if (model(x_adv).argmax(1) == y).any():
                failed.append(f"{name} in {kind}")
    return Check(
        name="linear optimum",
        status="fail" if failed else "pass",
        measured=f"{tested} attacks and norms of the radius tried; {', '.join(failed) or 'none'} failed",
        why="at 1.05 times the exact distance of a linear model, every attack has to succeed",
        n=len(x),
    )


WEAK = ("square", "autoattack", "corner")  # a random search, an ensemble that would hide its parts, and a sanity check
