"""Flips: the decision, with centre and spread swapped at one norm layer after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, Tensor, nn

from ..attacks import PGD
from ..norms import reads
from ..seeding import draw
from ..types import Batch, Images, ThreatModel
from ..utils.model_state import running
from .inputs import pgd_path
from .table import NOWHERE, Diagnosis, share
from .taps import Layer, Moments, ask, layers_of, moments, with_moments

ALL = "all sites"


@dataclass(frozen=True, kw_only=True)
class Flips(Diagnosis):
    """Which layer flips the decision: centre and spread are swapped at one norm layer, and the decisions counted again.

    `repaired`      adversarial images whose input at this site alone is moved and scaled, per channel, to the mean and variance
                    of the clean run of the same rows: share of the rows that the attack flipped which are right again
    `by row`        likewise, each row to its own mean and variance in the clean run
    `reread`        likewise, when this layer alone reads the batch's own statistics (as in training) instead of running ones
    `broken`        clean images with the batch's mean and variance of the adversarial run at this site alone: share of the
                    rows classified correctly which are then wrong

    A row's own channel means hold much of what tells classes apart, the more the later the layer: `by row` says where the
    attack has reached them, `repaired` whether it shifts what a norm of the batch would read. The last line swaps at all
    sites at once. Rows are attacked in whole batches by PGD from the clean images, and all take every step.

    Options
        steps   PGD steps

    Source: swapping one layer's statistics as an intervention is our own; that running statistics mislead on adversarial
    images is the observation of Xie et al. 2020, arXiv:1911.09665.
    """

    name: ClassVar[str] = "flips"
    columns: ClassVar[dict[str, str]] = {
        "site": "",
        "reads": "",
        "right": "rows",
        "fell": "rows",
        "repaired": "share of misclassified images",
        "by row": "share of misclassified images",
        "reread": "share of misclassified images",
        "broken": "share of correct images",
    }
    of_norms: ClassVar[bool] = True
    nothing: ClassVar[str] = NOWHERE

    steps: int = 20

    def __post_init__(self) -> None:
        PGD(steps=self.steps)  # refuses what cannot be

    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterator[tuple[Any, ...]]:
        layers = layers_of(model, batches[0].x)
        if not layers:
            return
        chosen = {path: [path] for path in layers} | {ALL: list(layers)}
        right = fell = 0
        counts = {site: [0, 0, 0, 0] for site in chosen}
        for batch in batches:
            case = _Case(model, layers, batch, self.steps, threat, rng)
            right, fell = right + int(case.right.sum()), fell + int(case.fell.sum())
            for site, paths in chosen.items():
                counts[site] = [a + b for a, b in zip(counts[site], case.swapped(paths), strict=True)]
        for site, (repaired, by_row, reread, broken) in counts.items():
            read = "+".join(sorted(set().union(*(reads(layers[path].module) or () for path in chosen[site]))))
            again = share(reread, fell) if "running" in read else None
            yield site, read, right, fell, share(repaired, fell), share(by_row, fell), again, share(broken, right)


class _Case:
    """One batch: which rows are right, which fell, and what swapping at some sites does to them."""

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, Layer],
        batch: Batch,
        steps: int,
        threat: ThreatModel,
        rng: Generator,
    ) -> None:
        self.model, self.layers, self.x, self.y = model, layers, batch.x, batch.y
        self.x_adv = pgd_path(model, batch.x, batch.y, threat, (steps,), rng)[steps]
        self.seed = draw(rng)
        self.clean = moments(model, layers, self.x, self.seed)
        self.adversarial = moments(model, layers, self.x_adv, self.seed)
        self.right = self._correct(lambda: ask(model, self.x, self.seed))
        self.fell = self.right & ~self._correct(lambda: ask(model, self.x_adv, self.seed))

    def swapped(self, paths: list[str]) -> list[int]:
        """Count the rows that are repaired, repaired by row, right when the layers read the batch, and broken."""
        chosen = {path: self.layers[path] for path in paths}

        def correct(x: Images, wanted: dict[str, list[Moments]], rows: bool = False) -> Tensor:
            return self._correct(lambda: with_moments(self.model, chosen, wanted, x, self.seed, rows))

        back = correct(self.x_adv, self.clean), correct(self.x_adv, self.clean, rows=True), self._reread(paths)
        broken = self.right & ~correct(self.x, self.adversarial)
        return [*(int((one & self.fell).sum()) for one in back), int(broken.sum())]

    def _reread(self, paths: list[str]) -> Tensor:
        with ExitStack() as stack:
            for path in paths:
                batch = all(call.values > 1 for call in self.clean[path])  # of one value a layer refuses to take statistics
                if batch and "running" in (reads(self.layers[path].module) or ()):
                    stack.enter_context(running(self.layers[path].module, "train"))
            return self._correct(lambda: ask(self.model, self.x_adv, self.seed))

    def _correct(self, answer: Callable[[], Tensor]) -> Tensor:
        return answer().argmax(1) == self.y
