"""Settings of an audit beside the claim."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..evaluation.store import Shard
from ..types import Attack, Images, Report, silent

DECLARABLE = ("random", "stateful", "coupled")
Elsewhere = Callable[[Sequence[Images]], list[Tensor]]  # batches of images in, logits out


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What the claim admits, what the audit may use, and how long it may take.

    declares   what the claim admits: of "random", "stateful", "coupled"
    twin       undefended reference network for the same classes, for transfer attacks; None: no transfer attack
    strongest  the last search, on images that are still correct; None: AutoAttack (its APGD parts where images are coupled,
               its version "rand" where the model is random)
    victims    images attacked one at a time among clean neighbours, where images are coupled
    elsewhere  runs the same network in a separate process: batches of images in, logits out; None: that check is left out
    budget     minutes; a third is kept for the last check, the strongest search
    at_once    images searched at a time, where they are independent of each other
    groups     the group of each row, such as its patient; empty: all rows are independent
    share      where finished batches are kept, and which of several processes that make this audit this is; None: nowhere
    report     is called before every check with its name, the checks done, and the checks in all

    Raises ValueError for an unknown declaration, and for fewer victims or images at once than one.
    """

    declares: tuple[str, ...] = ()
    twin: nn.Module | None = None
    strongest: Attack | None = None
    victims: int = 32
    elsewhere: Elsewhere | None = None
    budget: float = 30.0
    at_once: int = 256
    groups: Sequence[Hashable] = ()
    share: Shard | None = None
    report: Report = silent

    def __post_init__(self) -> None:
        check_declares(self.declares)
        if self.victims < 1 or self.at_once < 1:
            raise ValueError(f"victims is {self.victims} and at_once {self.at_once}; give whole numbers above 0")


def check_declares(declares: Iterable[str]) -> None:
    """Refuse an unknown declaration. Raises ValueError."""
    if strange := set(declares) - set(DECLARABLE):
        raise ValueError(f"declares names {', '.join(sorted(strange))}; give some of {', '.join(DECLARABLE)}")
