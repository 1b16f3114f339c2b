"""Where an effect comes from: two networks before attackers of growing strength, as a figure of places in percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .series import Tick

EDGE = 2.0  # percent of the figure's width that stay free at both sides


class Standing(NamedTuple):
    """What two networks keep before one attacker, as shares, None where it was not asked; `difference` is that of both, in words."""

    attacker: str
    illusion: bool
    own: float | None
    other: float | None
    difference: str


class Origin(NamedTuple):
    """One claim's network and the one that it is compared with, at one radius; without the second (""), the network alone."""

    number: str
    claim: str
    where: str
    own: str
    other: str
    standings: Sequence[Standing]

    @property
    def ticks(self) -> list[Tick]:
        """The axis: accuracy in percent."""
        return [Tick(_at(share / 100), f"{share}") for share in range(0, 101, 25)]

    @property
    def lines(self) -> list[tuple[Standing, list[float], list[float], str]]:
        """Each attacker with the places of the first network, of the second and what the line says."""
        return [(one, _places(one.own), _places(one.other), self._title(one)) for one in self.standings]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The numbers as text."""
        both = [(one.attacker, _written(one.own), _written(one.other), one.difference) for one in self.standings]
        return [row if self.other else row[:2] for row in both]

    def _title(self, one: Standing) -> str:
        arms = (self.own, one.own), (self.other, one.other)
        return f"{one.attacker}: " + ", ".join(f"{name} {_written(share)}%" for name, share in arms if share is not None)


def _places(share: float | None) -> list[float]:
    return [] if share is None else [_at(share)]


def _written(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _at(share: float) -> float:
    return round(EDGE + (100 - 2 * EDGE) * share, 2)


LEAD = (
    "The same networks before attackers of growing strength. From FGSM to AutoAttack an image that one broke counts as broken "
    "for those after it. Attackers before FGSM are those of older protocols, and what they leave is no robust accuracy. It decides nothing."
)
