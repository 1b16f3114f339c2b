"""Ways to make a network more robust by training it further, and which of them is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..auditing.checks.record import LATE, NOT_ESTABLISHED, TRUSTWORTHY
from ..norms import GN, RNT, sites
from ..records import Score
from ..report.words import joined, plural
from ..training.recipes import Adversarial, Mixed
from ..types import Norm, Recipe
from ..utils.intervals import flipped, leads


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to make a network more robust: what training minimizes, and the norm layers it gets before (None: it keeps its own)."""

    name: str
    says: str
    recipe: Recipe
    norm: Norm | None = None
    needs_norms: bool = False


WAYS = {
    way.name: way
    for way in (
        Way(name="pgd-at", says="PGD adversarial training of all weights", recipe=Adversarial()),
        Way(name="mixed", says="clean and adversarial images in one loss (the loss of NoFrost)", recipe=Mixed(steps=7)),
        Way(
            name="norms-alone",
            says="PGD adversarial training of the norm layers' parameters alone",
            recipe=Adversarial(trains="affine"),
            needs_norms=True,
        ),
        Way(
            name="robustnorm",
            says="norm layers converted to RobustNorm, then PGD adversarial training",
            recipe=Adversarial(),
            norm=RNT(),
            needs_norms=True,
        ),
        Way(
            name="groupnorm",
            says="norm layers converted to GroupNorm, then PGD adversarial training",
            recipe=Adversarial(),
            norm=GN(),
            needs_norms=True,
        ),
    )
}


def fitted(way: Way, model: nn.Module) -> Way:
    """The same way, its norm with as many groups as divide the channels at every site, where it has groups."""
    if not isinstance(way.norm, GN):
        return way
    groups = math.gcd(way.norm.groups, *(site.channels for site in sites(model).values()))
    return replace(way, norm=replace(way.norm, groups=groups))


def why_not(way: Way, model: nn.Module) -> str:
    """Why a way does not apply to a network; empty where it does."""
    return "the network has no norm layers that can be converted" if way.needs_norms and not sites(model) else ""


def verdict(audited: Mapping[str, Any]) -> str:
    """An audit in one line."""
    low, high = audited["interval"]
    bound = f"at most {100 * audited['upper_bound']:.1f}% of {audited['n']} images are robust [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{bound}; this figure is {audited['verdict']}{_unsure(audited)}"


def _unsure(audited: Mapping[str, Any]) -> str:
    """Why an audit establishes nothing, and what to do."""
    if audited["verdict"] != NOT_ESTABLISHED:
        return ""
    late = any(LATE in check["measured"] for check in audited["checks"])
    why = "too little time; give a larger --budget" if late else "; ".join(audited["reasons"])
    return f" ({why})"


def against(before: Mapping[str, Any], one: Mapping[str, Any], lose: float, ways: int) -> str:
    """Why a way that was tried is not chosen, whatever the others reach, by its figures on validation images; empty: it may be.

    A network that gives almost all images one class is none to choose, and any other is better. What counts as chance is
    corrected for the number of `ways` that were tried.
    """
    if one.get("dead") or before.get("dead"):
        return "it gives almost all images one class" if one.get("dead") else ""
    old, new = before["validation"], one["validation"]
    lost = old["clean"]["value"] - new["clean"]["value"]
    if lost > lose + 1e-9:
        return f"it loses {100 * lost:.1f} points of clean accuracy on validation images, and {100 * lose:.3g} are allowed"
    if not (higher := new["worst"]["value"] > old["worst"]["value"]) or not _leads(new, old, ways):
        left = f"its worst case on {new['n']} validation images is {100 * new['worst']['value']:.1f}%"
        given = f"{100 * old['worst']['value']:.1f}% of the network as it is given"
        if not higher:
            return f"{left}, not above the {given}"
        return f"{left}, above the {given}{_counted(new, old)}, but not by more than chance; more validation images may tell"
    return ""


def _leads(one: Mapping[str, Any], other: Mapping[str, Any], tests: int = 1) -> bool:
    """Whether a worst case is higher by more than chance."""
    return leads(Score(**one["worst"]), Score(**other["worst"]), (one.get("rows", ""), other.get("rows", "")), tests)


def _counted(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """How many images were gained and lost, where that is known."""
    if not one.get("rows") or len(one["rows"]) != len(other.get("rows", "")):
        return ""
    gained, lost, _ = flipped(one["rows"], other["rows"])
    return f" ({plural(gained, 'image')} gained, {lost} lost)"


def near(chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ways that could have been chosen too, and whose worst case on validation images is lower by no more than chance."""
    able = [one for one in tried if one["state"] == "tried" and not one["against"] and one["name"] != chosen["name"]]
    return [one["name"] for one in able if not _leads(chosen["validation"], one["validation"])]


def choose(tried: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The way with the best worst case on validation images of those that nothing speaks against; None: there is none."""
    able = [one for one in tried if one["state"] == "tried" and not one["against"]]
    return max(able, key=lambda one: float(one["validation"]["worst"]["value"]), default=None)


def sentences(
    before: Mapping[str, Any],
    tried: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Any] | None,
    audits: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """What came out, in words; the first is the headline."""
    if not chosen:
        found = [
            "No gain could be shown on the validation images: keep this network as it is",
            *_best(before, tried),
        ]
    else:
        old, new = before["worst"], chosen["worst"]
        sure = "" if _leads(chosen, before) else ", and this may be chance"
        after = audits["after"]
        real = (
            "" if after["verdict"] == TRUSTWORTHY else f"; its audit says {after['verdict']}{_unsure(after)}: it may be less"
        )
        others = near(chosen, tried)
        tied = f" (within chance of {joined(others)})" if others else ""
        clean = (
            f"without an attack it goes from {100 * before['clean']['value']:.1f} to {100 * chosen['clean']['value']:.1f}%"
        )
        found = [
            f"{chosen['says'][:1].upper()}{chosen['says'][1:]} takes accuracy under attack from {100 * old['value']:.1f} to "
            f"{100 * new['value']:.1f}%{sure}{tied}; {clean}{real}"
        ]
        found.append(f"Audit of the chosen network: {verdict(audits['after'])}")
        if others:
            best, n = 100 * chosen["validation"]["worst"]["value"], chosen["validation"]["n"]
            found.append(
                f"{chosen['name']} was chosen by its {best:.1f}% of {n} validation images; chance explains its lead over {joined(others)}"
            )
    found.append(f"Audit of the network as it is given: {verdict(audits['before'])}")
    for one in tried:
        if one["state"] != "tried":
            found.append(f"{one['name']} {one['state']}: {one['why']}")
            continue
        if one["against"]:
            found.append(f"{one['name']} was not chosen: {one['against']}")
        if one["search"]["edge"]:
            found.append(
                f"{one['name']} was not tuned to the end: its best learning rate, {one['search']['rate']:.3g}, was the last one "
                "tried; it may do better with others (--rates)"
            )
    if still := [one["name"] for one in (before, *tried) if one.get("dead")]:
        found.append(f"Almost all images get one class from {', '.join(still)}: that is no robustness, and is never chosen")
    found.append(_time([one for one in (before, *tried) if one["state"] == "tried"], audits))
    if coupled := [one["name"] for one in (before, *tried) if one.get("coupled")]:
        found.append(
            f"Images of a batch are coupled in {', '.join(coupled)}: the worst case is of batches attacked as a whole, or one image each"
        )
    return found


def _best(before: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """What came nearest, and what may help."""
    known = [one for one in tried if one["state"] == "tried"]
    best = max(known, key=lambda one: float(one["validation"]["worst"]["value"]), default=None)
    if not best:
        return []
    old, new = (f"{100 * one['validation']['worst']['value']:.1f}%" for one in (before, best))
    return [
        f"Best on the {best['validation']['n']} validation images, under attack: {best['name']}, {new} against {old}. More epochs "
        "(--schedule.epochs), with the --budget that they need, or more validation images may tell"
    ]


def _time(measured: Sequence[Mapping[str, Any]], audits: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the minutes went."""
    trained, searched = (
        sum((one[key] or {"seconds": 0.0})["seconds"] for one in measured) for key in ("training", "search")
    )
    spent = {"trainings": trained, "short trainings that choose learning rates": searched}
    spent["evaluations"] = sum(one["seconds"] for one in measured) - trained - searched
    spent["audits"] = sum(one["seconds"] for one in audits.values())
    return f"Minutes spent: {', '.join(f'{seconds / 60:.1f} on {what}' for what, seconds in spent.items())}"
