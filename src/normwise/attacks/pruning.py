"""Rows that a search may leave before its end, because they come down too slowly."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..types import PerRow, Rows

FASTER, LEFT = 5, 0.2  # set on traces of whole searches on robust and undefended networks, where they lose no row


class Progress:
    """Looks back, after the steps `at` of a search, to where its rows were after half as many."""

    def __init__(self, at: Iterable[int] = ()) -> None:
        self._at = frozenset(at)
        self._then: dict[int, PerRow] = {}

    def keep(self, rows: Rows) -> None:
        """Forget the other rows."""
        self._then = {step: then[rows] for step, then in self._then.items()}

    def at_half_time(self, step: int, now: PerRow) -> PerRow | None:
        """What `now` was after half as many steps, if this is a step to look back from; call it at every step, from 0."""
        if step == 0 or not self._at.isdisjoint((2 * step, 2 * step + 1)):
            self._then[step] = now.clone()
        return self._then[step // 2] if step in self._at else None

    def hopeless(self, step: int, steps: int, gap: PerRow) -> Rows | None:
        """If this is a step to look back from: the rows not worth going on with.

        Their gap, the margin missing at best so far, would stay open even if every doubling of steps closed 5 times what the
        last one did; and more than a fifth of their first gap is left.
        """
        half = self.at_half_time(step, gap)
        if half is None:
            return None
        soonest = gap - FASTER * math.log2(steps / step) * (half - gap)
        return (soonest > 0) & (gap > LEFT * self._then[0])
