"""The record of an audit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...limits import from_json
from ...records import Check, built

TRUSTWORTHY, NOT_ESTABLISHED, DOUBTFUL = "trustworthy", "not established", "doubtful"
LATE = "minutes were not enough"  # what a check says that ran out of time


@dataclass(frozen=True, kw_only=True)
class Audited:
    """The record of an audit.

    `verdict` is "doubtful" if a check speaks against the claim, "not established" if none does and none supports it, else
    "trustworthy". `upper_bound` is the worst case over all attacks inside the threat model: per row where rows are
    independent, else the lowest of the attacks; 1 where none could run. `interval` is over what was `drawn` independently,
    such as "60 rows" or "3 batches" of the `n` rows. `found_by` counts the rows each attack was the first to break. `reach`
    is, for coupled images, the share that stays correct when the attacker controls the whole batch (joint), one image
    (single), or only neighbours (peers). `data` is the name of the data, `digest` that of the network's parameters and
    buffers, `settings` that of its code and attributes; they are empty if nobody recorded them.
    """

    verdict: str
    claimed_accuracy: float
    upper_bound: float
    interval: tuple[float, float]
    n: int
    threat: dict[str, Any]
    coupled: bool
    found_by: dict[str, int]
    reach: dict[str, float]
    reasons: tuple[str, ...]
    missing: tuple[str, ...]
    checks: tuple[Check, ...]
    drawn: str = ""
    claimed_under: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    data: str = ""
    digest: str = ""
    settings: str = ""
    examples: tuple[dict[str, Any], ...] = ()
    seed: int = 0
    seconds: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        doubts = [f"{one.status}: {one.name}: {one.measured}" for one in self.checks if one.status != "pass"]
        return "\n".join([self.sentence, *doubts])

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        text = "; ".join(self.reasons)
        if not self.n:
            return f"{self.verdict}: {text}"
        low, high = self.interval
        left, interval = f"{100 * self.upper_bound:.1f}%", f"[{100 * low:.1f}, {100 * high:.1f}]"
        if self.verdict == TRUSTWORTHY:
            nothing = ": nothing is left, and that figure is" if not self.upper_bound else ","
            text = f"robust accuracy {left} {interval}{nothing} {self.verdict}"
        else:
            under = self.claimed_under  # with n, of the record that claims it; without, of PGD-20 in the audit itself
            claimed = f"{'PGD-20 leaves' if under and 'n' not in under else 'claimed'} {100 * self.claimed_accuracy:.1f}%"
            claimed += f" of {under['n']} images" if under.get("n", self.n) != self.n else ""
            text = f"{self.verdict}: {claimed}, at most {left} of these {self.n} images {interval}: {text}"
        return text + (f" (could not run: {', '.join(self.missing)})" if self.missing else "")


def read(path: Path) -> Audited:
    """Read the record of an audit back. Raises ValueError naming the file where it is none."""
    try:
        found: Audited = built(Audited, from_json(path))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the record of an audit: {error}; delete it, or give another --out") from None
    return found
