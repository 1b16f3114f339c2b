"""The patch verdict: the worst case over three ways to search a patch or a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..registry import check_words
from .base import BaseAttack
from .ensemble import Ensemble
from .loap import LOAP
from .roa import ROA
from .sparse_rs import SparseRS


@dataclass(frozen=True, kw_only=True)
class PatchAttack(Ensemble):
    """What a patch or a frame does at worst, with a fixed budget, for images and clips.

    "standard": ROA (every place rated by stickers and by gradient, then APGD with cross-entropy and 3 targets in 10 places,
    50 steps each), LOAP (5 patches that move, 100 steps each) and SparseRS (5,000 queries without gradients). Other settings
    are in its label.

    Options
        version     "standard"
        steps       of APGD in ROA; LOAP takes twice as many
        repeats     places of ROA; LOAP restarts half as often
        queries     of SparseRS

    Cost: that of its parts. Of independent rows each part sees only what the parts before it left standing; of coupled rows
    each sees every batch whole, and the batch with fewest survivors is kept.
    Source: its parts: Wu et al. 2020, arXiv:1909.09552; Rao et al. 2020, arXiv:2005.02313; Croce et al. 2022,
    arXiv:2006.12834.
    Differs: their union.
    """

    name: ClassVar[str] = "patchattack"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "frame")

    version: Literal["standard"] = "standard"
    steps: int = 50
    repeats: int = 10
    queries: int = 5000

    def __post_init__(self) -> None:
        check_words(self)
        _ = self.parts  # check their own options

    @property
    def label(self) -> str:
        others = [
            f"-{name}{getattr(self, name)}"
            for name in ("steps", "repeats", "queries")
            if getattr(self, name) != getattr(PatchAttack, name)
        ]
        return f"patchattack-{self.version}" + "".join(others)

    @property
    def parts(self) -> tuple[BaseAttack, ...]:
        roa = ROA(steps=self.steps, repeats=self.repeats)
        return roa, LOAP(steps=2 * self.steps, restarts=(self.repeats + 1) // 2), SparseRS(steps=self.queries)
