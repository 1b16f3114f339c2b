"""Second checks of adversarial images: rounded to the data's grid, and on a copy of the network that was never queried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...evaluation.coupling import Coupling
from ...evaluation.predictor import Predictor
from ...evaluation.verdict import Verdict
from ...records import Evaluation, Score
from ...seeding import generator
from ...types import Batch, Images, Labels, ThreatModel
from ...utils import intervals
from ...utils.model_state import copied, running
from .levels import towards
from .pairing import PadToTwo

HELD = 2**28  # bytes of images that are kept for later looks
SAME = 1e-3  # of the largest margin: what rounding explains


class Kept(NamedTuple):
    """What one search ended with on one batch: the images in place of the clean ones, and the network's classes and margins."""

    called: str
    batch: Batch
    said: Tensor
    margin: Tensor

    def unlike(self, said: Tensor, margin: Tensor) -> Tensor:
        """Per row, whether these are other answers, beyond what rounding explains."""
        return (said != self.said) & ((margin - self.margin).abs() > SAME * self.margin.abs().max())


class RecheckResult(NamedTuple):
    """What another look at a search's images found: how it is called, and per batch of so many rows who is wrong."""

    called: str
    wrong: list[list[int]]
    size: int

    @property
    def score(self) -> Score:
        """Of coupled rows: what is left in whole batches."""
        return intervals.of_batches([self.size - len(ids) for ids in self.wrong], self.size)


class Recheck:
    """Second looks at what searches find.

    before      the network before its first question; None where it cannot be copied
    levels      of the grid that the pixels lie on; None where there is none
    worse       the most rows by which rounded images did more harm than the same images as one search left them
    unlike      answers that the copy gave otherwise, of so many `asked`
    kept        what searches ended with, up to some bytes
    """

    def __init__(self, before: nn.Module | None, levels: int | None, seed: int) -> None:
        self.before, self.levels, self.seed = before, levels, seed
        self.worse = self.unlike = self.asked = 0
        self.kept: list[Kept] = []

    def fresh(self, like: nn.Module) -> nn.Module | None:
        """A copy of the network that was asked nothing before, which answers lone rows as `like` does."""
        if self.before is None:
            return None
        made = copied(self.before)
        return PadToTwo(made) if isinstance(like, PadToTwo) else made

    def recheck(self, verdict: Verdict, model: nn.Module, threat: ThreatModel, called: str) -> Iterator[RecheckResult]:
        """Check the worst images of an evaluation again, in their batches."""
        e, rows, at = verdict.evaluation, verdict.rows, 0
        on_grid, anew = (
            RecheckResult(f"{called}, {how}", [], e.batch_size) for how in ("rounded to the grid", "asked anew")
        )
        for number, (clean, label, ids) in enumerate(verdict.batches):
            x, y, x_adv = clean.cpu(), label.cpu(), verdict.adversarial(number)
            here = slice(at, at + len(y))
            one, at = Kept(called, Batch(x_adv, y, ids), rows.predictions[here], rows.margin[here]), at + len(y)
            moved = not torch.equal(x_adv, x)
            if moved and sum(kept.batch.x.nbytes for kept in self.kept) + x_adv.nbytes <= HELD:
                self.kept.append(one)
            if self.levels:
                image = towards(x, x_adv, self.levels, threat.around(x, generator=generator(self.seed, "grid")))
                answers = self.answers(model, image, y, e)[0] if moved else one.said
                on_grid.wrong.append(ids[answers != y].tolist())
            network = None if e.coupling["random"] else self.fresh(model)
            if network is not None:
                answers, margins = self.answers(network, x_adv, y, e)
                others = one.unlike(answers, margins)
                self.unlike, self.asked = self.unlike + int(others.sum()), self.asked + len(y)
                anew.wrong.append(ids[(answers != y) & (others | (one.said != y))].tolist())
        if on_grid.wrong:
            self.worse = max(self.worse, sum(map(len, on_grid.wrong)) - int((rows.predictions != rows.y).sum()))
        yield from (result for result in (on_grid, anew) if result.wrong)

    def answers(self, model: nn.Module, x: Images, y: Labels, e: Evaluation) -> tuple[Tensor, Tensor]:
        """The classes and margins of images, as this evaluation asks for them."""
        predictor = Predictor(model, self.seed)
        predictor.adjust(Coupling(**e.coupling))
        with running(model, "eval"):
            classes, margins = predictor.answers(x.to(predictor.device), y.to(predictor.device))
        return classes.cpu(), margins.cpu()


def copy_of(model: nn.Module) -> nn.Module | None:
    """A copy of the network as it is now, of a compiled one what was compiled; None where it cannot be copied."""
    try:
        return copied(getattr(model, "_orig_mod", model))
    except ValueError:
        return None
