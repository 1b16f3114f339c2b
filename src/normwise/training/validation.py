"""Accuracy on validation images during training; it chooses the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Generator, nn

from .. import losses
from ..attacks import FGSM, PGD
from ..norms import routed
from ..seeding import generator
from ..types import Attack, Batch, Recipe, ThreatModel
from ..utils.forward import logits_of
from ..utils.model_state import running, untouched
from . import schedule as scheduling
from .alone import SingleProcess
from .schedule import Schedule

# The search that ranks checkpoints of robust recipes: short, since it only has to rank.
ATTACK = PGD(steps=7, keep="last")


class Validation:
    """Scores networks on the same rows with the same draws, each time."""

    def __init__(
        self,
        batches: Sequence[Batch],
        recipe: Recipe,
        threat: ThreatModel,
        schedule: Schedule,
        seed: int,
        device: torch.device,
        processes: SingleProcess,
    ) -> None:
        self.batches, self.threat, self.schedule = batches, threat, schedule
        self.seed, self.device, self.processes = seed, device, processes
        self.rows = sum(len(batch.y) for batch in batches)
        self.attacks: dict[str, Attack] = {"robust": ATTACK} if recipe.robust else {}
        if getattr(recipe, "one_step", False):
            self.attacks["one_step"] = FGSM()
        self.route: int | None = getattr(recipe, "chosen_by", None)

    def of(self, model: nn.Module) -> tuple[dict[str, float], tuple[int, int]]:
        """Accuracy on clean images; also under a short PGD if the recipe aims at robustness, and under one step if it trains
        with one; on the recipe's own route, if it has one. And the cost: images forward and backward."""
        right, forwards, backwards = [0.0] * (1 + len(self.attacks)), 0, 0
        rng = generator(self.seed, "validation")
        on = nullcontext() if self.route is None else routed(model, self.route)
        with on, running(model, "eval"), scheduling.autocast(self.schedule, self.device):
            for batch in self.batches:
                with self.processes.share(batch, self.seed) as (own, _):
                    *counts, there, back = self.processes.total(*self._counts(model, own, rng))
                right = [old + new for old, new in zip(right, counts, strict=True)]
                forwards, backwards = forwards + int(there), backwards + int(back)
        named = zip(("clean", *self.attacks), right, strict=True)
        return {name: count / self.rows for name, count in named}, (forwards, backwards)

    def _counts(self, model: nn.Module, batch: Batch, rng: Generator) -> list[int]:
        """Of a batch, how many images are right, clean and under each attack, and how many went forward and backward."""
        x, y = batch.x.to(self.device), batch.y.to(self.device)
        crafted = [attack(model, x, y, self.threat, generator=rng) for attack in self.attacks.values()]
        inputs = [x, *(one.x_adv for one in crafted)]
        with torch.no_grad(), untouched(model, rng):
            right = [int(losses.correct(logits_of(model, images), y).sum()) for images in inputs]
        return [*right, sum(one.forwards for one in crafted) + len(y) * len(inputs), sum(one.backwards for one in crafted)]

    def error(self, share: float) -> float:
        """One standard error of an accuracy on these rows."""
        return math.sqrt(share * (1 - share) / self.rows)


def overfitted(scores: Mapping[str, float]) -> bool:
    """Whether the model is robust against one step only (catastrophic overfitting).

    This is so if one step leaves at least half of the clean accuracy, and many steps leave less than half of what one step
    leaves, and 0.1 less. Training with one step may end in it: accuracy under one step stays high, or rises, while accuracy
    under many steps drops to 0.
    Source: Wong et al. 2020, arXiv:2001.03994, sec. 5. Differs: they watch the drop on training images.

    >>> overfitted({"clean": 0.8, "one_step": 0.5, "robust": 0.42}), overfitted({"clean": 0.9, "one_step": 0.8, "robust": 0.01})
    (False, True)
    """
    clean, one, many = (scores.get(name, 0.0) for name in ("clean", "one_step", "robust"))
    return one >= clean / 2 and many < one / 2 and one - many > 0.1


def sentence(line: Mapping[str, Any], epochs: int) -> str:
    """Put a log line in words."""
    text = f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.3f}, training {100 * line['train_accuracy']:.1f}%"
    for name in ("clean", "robust"):
        if f"validation_{name}" in line:
            text += f", validation {name} {100 * line[f'validation_{name}']:.1f}%"
    if overfitted({name: line.get(f"validation_{name}", 0.0) for name in ("clean", "one_step", "robust")}):
        text += f": overfitted to one step, which leaves {100 * line['validation_one_step']:.1f}%"
    return text
