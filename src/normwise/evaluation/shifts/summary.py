"""Results under natural shifts, in sentences and as a table; every figure is from the record."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from ...data import CORRUPTIONS
from .metrics import Damage

PRICE = "its images are then coupled, and normwise audit measures what malicious neighbours can do"


def conditions(kinds: Sequence[str], severities: Sequence[int], side: int, made_here: bool) -> dict[str, dict[str, Any]]:
    """What each kind does to images of this side: its settings by severity, the scale of lengths, and what stands in."""
    settings = {}
    for kind in kinds:
        one = CORRUPTIONS[kind]
        settings[kind] = {
            "family": one.family,
            "about": one.about,
            "settings": {str(severity): one.at(side, severity)[0] for severity in severities},
            "scale": one.at(side, 1)[1],
            "stand_in": one.stand_in if made_here else "",
        }
    return settings


def averages(kinds: Sequence[str], severities: Sequence[int]) -> str:
    """Say over what a mean goes: "15 kinds, severities 1, 3, 5"."""
    listed = ", ".join(map(str, severities))
    return f"{len(kinds)} kind{'s' if len(kinds) > 1 else ''}, severit{'ies' if len(severities) > 1 else 'y'} {listed}"


def called(kinds: Sequence[str], severities: Sequence[int]) -> str:
    """The name of a mean corruption error: mCE is over all 15 kinds and 5 severities alone."""
    whole = set(kinds) == set(CORRUPTIONS) and len(set(severities)) == 5
    return "mCE" if whole else f"mean CE ({averages(kinds, severities)})"


def reading(alpha: float | None) -> str:
    """Say what a share is: "batch statistics alone (alpha 1)"."""
    if alpha is None:
        return "as it is"
    what = {0.0: "running statistics alone", 1.0: "batch statistics alone"}.get(alpha, "mixed statistics")
    return f"with {what} (alpha {alpha:.3g})"


def sentences(found: Sequence[Damage], over: str, ce: str, baseline: str) -> list[str]:
    """What was found, network by network: what corruption costs, and what each share of the batch changes."""
    lines: list[str] = []
    for one in found:
        if one.own:
            worst = min(one.kinds, key=lambda kind: one.kinds[kind].value)
            lines.append(
                f"{one.network} classifies {one.clean} of the clean images correctly, and {one.mean.percent()} under corruption "
                f"(mean over {over}); the lowest is under {worst} ({one.kinds[worst].percent()})."
            )
            lines += [f"On {name} it classifies {score} correctly." for name, score in one.others.items()]
            if one.alpha is None and not any(other.network == one.network and not other.own for other in found):
                lines.append(f"{one.network} was not adapted: its norms keep no running statistics, or no share was given.")
        else:
            lines.append(_changed(one, next(other for other in found if other.network == one.network and other.own)))
        if one.errors and one.network != baseline:
            mean, relative = one.errors.mean, one.errors.relative
            figures = (
                f"{ce} {mean.percent() if mean else 'undefined'}, relative {relative.percent() if relative else 'undefined'}"
            )
            lines.append(f"Relative to {baseline}, {one.network} {reading(one.alpha)}: {figures}.")
    return lines


def _changed(one: Damage, own: Damage) -> str:
    assert one.gain is not None
    verb = "rises" if one.gain.low > 0 else "falls" if one.gain.high < 0 else "does not clearly change,"
    what = reading(one.alpha)
    price = f"; {PRICE}" if one.coupled and not own.coupled else ""
    return (
        f"{one.network}: {what}, mean accuracy under corruption {verb} from {100 * own.mean.value:.1f}% to "
        f"{100 * one.mean.value:.1f}% ({one.gain.percent('+')}); on clean images from {100 * own.clean.value:.1f}% to "
        f"{100 * one.clean.value:.1f}%{price}."
    )


def table(found: Sequence[Damage]) -> str:
    """The accuracies as CSV: a line per network, share, kind and severity."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(
        ("network", "alpha", "as given", "coupled", "kind", "severity", "accuracy", "low", "high", "n", "unit", "rows")
    )
    lines.writerows(_lines(found))
    return file.getvalue()


def _lines(found: Sequence[Damage]) -> Iterator[tuple[object, ...]]:
    for one in found:
        scores = {("clean", ""): one.clean}
        scores |= {(kind, severity): score for kind, each in one.cells.items() for severity, score in each.items()}
        scores |= {(name, ""): score for name, score in one.others.items()}
        alpha = "" if one.alpha is None else f"{one.alpha:g}"
        for (kind, severity), s in scores.items():
            yield one.network, alpha, one.own, one.coupled, kind, severity, s.value, s.low, s.high, s.n, s.unit, s.rows
