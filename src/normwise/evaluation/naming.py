"""How attacks are called in tables and records."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Attack


def label(attack: Attack) -> str:
    """How an attack is called in tables."""
    return str(getattr(attack, "label", attack.name))


def labels(attacks: Sequence[Attack]) -> list[str]:
    """Call each attack by its label; equal labels of other options get a number."""
    names = list(map(label, attacks))
    return [f"{name}~{same + 1}" if (same := names[:i].count(name)) else name for i, name in enumerate(names)]


def named_parts(attacks: Sequence[Attack]) -> list[list[tuple[str, Attack]]]:
    """The parts of each attack by name, after a slash; an attack without parts is its own, by its own name."""
    found = []
    for attack, name in zip(attacks, labels(attacks), strict=True):
        parts = tuple(getattr(attack, "parts", (attack,)))
        found.append([(name, attack)] if parts == (attack,) else [(f"{name}/{label(part)}", part) for part in parts])
    return found
