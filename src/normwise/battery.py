"""The audit's checks: what is known so far of one network, and the verdict that follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import intervals, losses, reach
from .attacks import APGD, FGSM, PGD, Corner, Square
from .attacks.oracle import Oracle
from .backward import straight_through
from .checks import annotate
from .coupling import Coupling, measure_coupling
from .modes import device_of, running, untouched
from .record import Check, Evaluation, Score
from .registry import plain
from .seeding import generator
from .threats import Linf
from .types import Attack, Batch, ThreatModel
from .verdict import evaluate

GAP = 0.05  # a claim that exceeds the truth by more is doubtful
STEPS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True, kw_only=True)
class Audited:
    """The record of an audit. `upper_bound` is the lowest accuracy over all attacks inside the threat model."""

    verdict: str  # "trustworthy" or "doubtful"
    claimed_accuracy: float
    upper_bound: float
    interval: tuple[float, float]
    n: int
    threat: dict[str, Any]
    coupled: bool
    found_by: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...]
    checks: tuple[Check, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        low, high = self.interval
        truth = f"{100 * self.upper_bound:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
        if self.verdict == "trustworthy":
            told = f"robust accuracy {truth}, trustworthy"
        else:
            told = f"claimed {100 * self.claimed_accuracy:.1f}%, true at most {truth}: {'; '.join(self.reasons)}"
        return told + (f" (could not run: {', '.join(self.missing)})" if self.missing else "")


class Case:
    """What is known so far of one network."""

    def __init__(
        self, model: nn.Module, batches: list[Batch], threat: ThreatModel, claim: float | None, victims: int, seed: int
    ) -> None:
        if not batches:
            raise ValueError("there is nothing to audit on: no batches; give at least one batch of images and labels")
        self.model, self.batches, self.threat, self.claim, self.victims, self.seed = (
            model,
            batches,
            threat,
            claim,
            victims,
            seed,
        )
        self.bound: tuple[Score, str] | None = None
        self.coupling: Coupling | None = None
        self.grave: list[str] = []  # violations that make any claim doubtful

    def tests(self) -> list[tuple[str, Callable[[], Check]]]:
        """The battery, cheap checks first."""
        return [
            ("repeated and lonely answers", self._answers),
            ("batch size", self._sizes),
            ("outputs", self._outputs),
            ("gradients per layer", self._gradients),
            ("one step and many", self._one_step),
            ("more steps", self._steps),
            ("other losses", self._losses),
            ("stronger search", self._stronger),
            ("radius one", self._radius_one),
            ("random search", self._black_box),
            ("straight through", self._straight),
            ("noise of its own", self._noise),
            ("one row among clean ones", self._single),
            ("malicious neighbours", self._peers),
        ]

    def robust(self, label: str, *attacks: Attack, counts: bool = True, **options: Any) -> Evaluation:
        """Evaluate, and remember the lowest accuracy inside the threat model."""
        options = {"threat": self.threat, **options}
        threat = options.pop("threat")
        found = evaluate(self.model, self.batches, threat, attacks, seed=self.seed, stateful="restore", **options).evaluation
        if counts:
            self.lower(found.robust_accuracy, label)
        return found

    def lower(self, score: Score, label: str) -> None:
        if self.bound is None or score.value < self.bound[0].value:
            self.bound = score, label

    @property
    def coupled(self) -> bool:
        return bool(self.coupling and self.coupling.coupled)

    @property
    def one_image(self) -> float:
        return 1 / sum(len(batch.y) for batch in self.batches)

    def x(self, rows: int = 64) -> Tensor:
        return self.batches[0].x[:rows].to(device_of(self.model))

    # what the model answers

    def _answers(self) -> Check:
        same = [batch.x.to(device_of(self.model)) for batch in self.batches[:2] if len(batch.y) == len(self.batches[0].y)]
        with running(self.model, "eval"):
            c = self.coupling = measure_coupling(self.model, same, seed=self.seed)
        told = [
            text
            for text, violated in (
                ("other random draws give other answers", c.random),
                ("a forward pass changes the model's buffers", c.stateful),
                (
                    f"rows depend on their neighbours ({c.flips} of {c.rows} untouched rows changed their decision)",
                    c.coupled,
                ),
            )
            if violated
        ]
        self.grave += told
        return Check(
            name="",
            status="fail" if told else "pass",
            measured="; ".join(told) or f"largest change {c.largest_change:.1e}, tolerance {c.tolerance:.1e}",
            why="robust accuracy is about one image and one model: answers that depend on draws, history or neighbours can be "
            "helped or broken by them; say so with the claim, or evaluate with fixed running statistics",
        )

    def _sizes(self) -> Check:
        x = torch.cat([batch.x for batch in self.batches])[:512].to(device_of(self.model))
        with torch.no_grad(), running(self.model, "eval"), untouched(self.model, generator(self.seed, "sizes")):
            whole = self.model(x)
            flips = {}
            for size in (1, 2, 8, 32, 128):
                if size < len(x):
                    rows = x[: 64 if size == 1 else len(x)]
                    parts = torch.cat([self.model(part) for part in rows.split(size)])
                    flips[size] = int((parts.argmax(1) != whole[: len(rows)].argmax(1)).sum())
        changed = {size: count for size, count in flips.items() if count}
        return Check(
            name="",
            status="fail" if changed and not (self.coupling and self.coupling.random) else "pass",
            measured=f"decisions that change with the batch size: {changed or 'none'} (sizes {', '.join(map(str, flips))})",
            why="an image's class must not depend on how many others are asked about at the same time",
        )

    def _outputs(self) -> Check:
        try:
            checked = annotate(self.robust("pgd-20", PGD(steps=20)), self.model, self.batches[0])
        except ValueError:  # no gradient to follow: such an attack leaves what the network gets right untouched
            if self.claim is None:
                self.claim = self.robust("clean images").clean_accuracy.value
            raise
        if self.claim is None:
            self.claim = checked.robust_accuracy.value
        logits = next(check for check in checked.checks if check.name == "logits")
        changed = checked.digest_before != checked.digest_after
        return Check(
            name="",
            status="fail" if logits.status != "pass" or changed else "pass",
            measured=f"{logits.measured}; pgd-20 leaves {100 * checked.robust_accuracy.value:.1f}% of {100 * checked.clean_accuracy.value:.1f}%",
            why=f"{logits.why}; remove the softmax from the model",
        )

    # gradients

    def _gradients(self) -> Check:
        cuts = cutting_layers(self.model, self.batches[0], self.seed)
        batch, device = self.batches[0], device_of(self.model)
        x, y = batch.x.to(device), batch.y.to(device)
        zero = len(y)
        if not cuts:
            with running(self.model, "eval"), untouched(self.model, generator(self.seed, "gradients")):
                grad = Oracle(self.model).gradient(x, y, losses.margin, torch.ones_like(y, dtype=torch.bool)).grad
            zero = int((grad.flatten(1) == 0).all(1).sum())
        return Check(
            name="",
            status="fail" if cuts or zero > len(y) // 10 else "pass",
            measured=f"cut at {', '.join(cuts)}" if cuts else f"{zero} of {len(y)} rows have a gradient of exactly 0",
            why="where no gradient arrives, gradient attacks stand still whatever the robustness; attack a straight-through copy",
        )

    def _one_step(self) -> Check:
        one, many = (self.robust(a.label, a).robust_accuracy.value for a in (FGSM(), PGD(steps=50, restarts=2)))
        return Check(
            name="",
            status="fail" if many < one / 2 and one - many > 0.1 else "pass",
            measured=f"fgsm leaves {100 * one:.1f}%, pgd-50x2 {100 * many:.1f}%",
            why="a network that withstands one step alone has overfitted to that step: judge it by many",
        )

    def _steps(self) -> Check:
        values = [self.robust(f"pgd-{steps}", PGD(steps=steps)).robust_accuracy.value for steps in STEPS]
        rise = max(later - min(values[: i + 1]) for i, later in enumerate(values[1:]))
        slack = max(0.02, 2 * self.one_image)
        late = values[STEPS.index(20)] - values[-1] > GAP
        return Check(
            name="",
            status="fail" if rise > slack else "warn" if late else "pass",
            measured=", ".join(f"{s}: {100 * v:.1f}%" for s, v in zip(STEPS, values, strict=True)),
            why="more steps that help the defence are a sign of a masked gradient; where accuracy still falls after 20 steps, "
            "PGD-20 is too weak to be quoted",
        )

    def _losses(self) -> Check:
        values = {
            loss: self.robust(f"pgd-50 on {loss}", PGD(steps=50, loss=loss)).robust_accuracy.value
            for loss in ("ce", "margin", "dlr")
        }
        return Check(
            name="",
            status="fail" if values["ce"] - min(values.values()) > GAP else "pass",
            measured=", ".join(f"{loss} {100 * value:.1f}%" for loss, value in values.items()),
            why="where cross-entropy finds much less than a loss of logits, its gradients are imbalanced (label smoothing, "
            "scaled logits): quote the lowest",
        )

    # search

    def _stronger(self) -> Check:
        found = self.robust("apgd-ce and apgd-t", APGD(steps=100), APGD(steps=100, targets=9)).robust_accuracy.value
        gap = (self.claim or 0.0) - found
        return Check(
            name="",
            status="fail" if gap > GAP else "pass",
            measured=f"apgd-ce and apgd-t leave {100 * found:.1f}%, claimed {100 * (self.claim or 0.0):.1f}%",
            why="the targeted search of AutoAttack finds what a fixed step misses: quote AutoAttack",
        )

    def _radius_one(self) -> Check:
        found = self.robust("radius one", Corner(), PGD(steps=20), threat=Linf(eps=1.0), counts=False).robust_accuracy.value
        return Check(
            name="",
            status="fail" if found > 0 else "pass",
            measured=f"{100 * found:.1f}% left at linf eps 1",
            why="where every image is allowed nothing can be left: the attack fails, not the robustness holds",
        )

    def _black_box(self) -> Check:
        square = self.robust("square-500", Square(steps=500)).robust_accuracy.value
        white = self.robust("pgd-20", PGD(steps=20)).robust_accuracy.value
        return Check(
            name="",
            status="fail" if square < white - max(0.02, 2 * self.one_image) else "pass",
            measured=f"square with 500 queries leaves {100 * square:.1f}%, pgd-20 {100 * white:.1f}%",
            why="blind search that finds more than gradients means that the gradients mislead",
        )

    def _straight(self) -> Check:
        cuts = cutting_layers(self.model, self.batches[0], self.seed)
        if not cuts:
            return Check(name="", status="pass", measured="no layer cuts the gradient", why="nothing to go around")
        way = straight_through(self.model, dict.fromkeys(cuts))
        found = self.robust("straight through", PGD(steps=50), craft_on=way).robust_accuracy.value
        gap = (self.claim or 0.0) - found
        return Check(
            name="",
            status="fail" if gap > GAP else "pass",
            measured=f"with {', '.join(cuts)} passed straight through, pgd-50 leaves {100 * found:.1f}%",
            why="a layer without a gradient stops the attack and not the attacker, who goes around it",
        )

    def _noise(self) -> Check:
        if not (self.coupling and self.coupling.random):
            return Check(name="", status="pass", measured="the model draws nothing", why="nothing to average over")
        found = self.robust("pgd over noise", PGD(steps=20, draws=10)).robust_accuracy.value
        gap = (self.claim or 0.0) - found
        return Check(
            name="",
            status="fail" if gap > GAP else "pass",
            measured=f"pgd-20 over 10 draws leaves {100 * found:.1f}%",
            why="an attacker averages over the model's noise",
        )

    # neighbours

    def _single(self) -> Check:
        if not self.coupled:
            return Check(name="", status="pass", measured="rows are independent", why="neighbours change nothing")
        r = reach.single(self.model, self.batches, self.threat, PGD(steps=20), victims=self.victims, seed=self.seed)
        self.lower(intervals.of_rows(r.standing, r.victims), "one row among clean ones")
        left = r.standing / r.victims
        return Check(
            name="",
            status="fail" if (self.claim or 0.0) - left > GAP else "pass",
            measured=f"{100 * left:.1f}% of {r.victims} rows stand when each is attacked alone ({r.clean} right untouched)",
            why="an attacker who sends one image meets clean neighbours: a defence that needs a whole adversarial batch fails",
        )

    def _peers(self) -> Check:
        if not self.coupled:
            return Check(name="", status="pass", measured="rows are independent", why="neighbours change nothing")
        r = reach.peers(self.model, self.batches, PGD(steps=20), seed=self.seed)
        return Check(
            name="",
            status="fail" if r.clean - r.standing > max(1, 0.02 * r.victims) else "pass",
            measured=f"{r.clean - r.standing} of {r.victims} untouched rows fall when the other half of their batch is malicious",
            why="what nobody touched must not change its class because of its neighbours; this is beside robust accuracy",
        )

    def closed(self, found: Sequence[Check]) -> Audited:
        """Speak the verdict."""
        if self.bound is None:
            raise ValueError(f"no attack could run: {next(c.measured for c in found if c.status == 'could not run')}")
        score, label = self.bound
        claim = score.value if self.claim is None else self.claim
        reasons = list(self.grave)
        if claim - score.value > max(GAP, score.high - score.value):
            reasons.insert(0, f"{label} leaves {100 * score.value:.1f}%")
        return Audited(
            verdict="doubtful" if reasons else "trustworthy",
            claimed_accuracy=claim,
            upper_bound=score.value,
            interval=(score.low, score.high),
            n=score.n,
            threat=plain(self.threat),
            coupled=self.coupled,
            found_by=label,
            reasons=tuple(reasons),
            missing=tuple(check.name for check in found if check.status == "could not run"),
            checks=tuple(found),
        )


def cutting_layers(model: nn.Module, batch: Batch, seed: int = 0) -> list[str]:
    """The innermost layers through which no gradient passes: what goes in has a shape that comes out, and no gradient does.

    Found by asking each layer alone, on the input it got: the gradient of its output's sum of squares is missing or 0.
    """
    x, inputs = batch.x.to(device_of(model)), dict[str, Tensor]()
    leaves = {path: module for path, module in model.named_modules() if path and not any(module.children())}

    def keep(path: str) -> Callable[..., None]:
        def look(module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
            if given and isinstance(given[0], Tensor) and isinstance(answer, Tensor) and given[0].shape == answer.shape:
                inputs.setdefault(path, given[0].detach().clone())

        return look

    hooks = [module.register_forward_hook(keep(path)) for path, module in leaves.items()]
    cuts = []
    with running(model, "eval"), untouched(model, generator(seed, "cuts")):
        try:
            with torch.no_grad():
                model(x)
        finally:
            for hook in hooks:
                hook.remove()
        for path, given in inputs.items():
            if not given.is_floating_point():
                continue
            given.requires_grad_()
            with torch.enable_grad():
                answer = leaves[path](given)
                total = (answer.square() + answer).sum()
                grad = torch.autograd.grad(total, given, allow_unused=True)[0] if total.requires_grad else None
            moves = bool((answer != answer[:1]).any())
            if moves and (grad is None or not (grad != 0).any()):
                cuts.append(path)
    return cuts
