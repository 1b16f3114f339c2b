"""The first words of an audit's page: what was compared, what the verdict means, how far to trust it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .apart import attacker, label
from .card import moves
from .words import joined, percent, plural

GAP = 0.05  # a verdict lets what is left lie this far below a claim
CHANCE = "or no more than chance explains"
MEANS = {  # each verdict, in one sentence; it may say by how much the claim is too high
    "trustworthy": f"all attacks together take at most {100 * GAP:.0f} points off the claim{{}}, {CHANCE}. No check failed.",
    "doubtful": f"the attacks take more than {100 * GAP:.0f} points off the claim{{}}, and more than chance explains. Or answers depend "
    "on chance, on earlier images or on other images, and the claim does not say so.",
    "not established": "No check contradicts the claim{}, but no check that could see a contradiction supports it.",
}
LEFT_OUT = "does not apply"
_CALLED = {
    "fail": "failed",
    "warn": "warned",
    "could not run": "could not run",
    "pass": "passed",
    LEFT_OUT: "do not apply",
}
BOUND = "What is left is an upper bound: a stronger attack can only lower it."


def headline(one: Mapping[str, Any]) -> str:
    """The verdict with its two figures."""
    verdict, bound = one["verdict"].capitalize(), percent(one["upper_bound"])
    first, claimed = own(one), percent(one["claimed_accuracy"])
    claimed = f"{first} leaves {claimed}" if first else f"claimed {claimed}"
    if not one["n"]:
        return f"{verdict}: no attack could run, so nothing is known."
    if one["verdict"] == "trustworthy":
        excess = one["claimed_accuracy"] - one["upper_bound"]
        near = f"less than {100 * GAP:.0f} points lower" if 0 < excess < GAP else CHANCE if excess > 0 else "no less"
        return f"Trustworthy: {claimed}, the strongest attacks leave {bound}, {near.removeprefix('or ')}."
    return f"{verdict}: {claimed}, at most {bound} of these images stay correct."


def opening(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands under the headline, as (what, words)."""
    under, claimed = moves(one["threat"]), percent(one["claimed_accuracy"])
    compared = f"The claim: {claimed} of test images stay right under attack{f' ({under})' if under else ''}. {_source(one)}"
    compared += f" Against it: the attacks of {plural(sum(_status(each) != LEFT_OUT for each in one['checks']), 'check')} that apply, on {one['n']} test images{_data(one)}."
    clean = without_attack(one)
    if clean is not None:
        compared += f" Without an attack {percent(clean)} of them are right."
    excess = 100 * (one["claimed_accuracy"] - one["upper_bound"])
    here = f" (here {excess:.1f})" if one["n"] and excess > 0 and one["verdict"] != "not established" else ""
    return [
        ("Compared", compared),
        *means([one["verdict"]], here),
        ("How far to trust it", _trust(one)),
    ]


def means(verdicts: Iterable[str], here: str = "") -> list[tuple[str, str]]:
    """The rule behind each verdict, as (what, words); `here` is by how much the claim was too high."""
    return [(f"{verdict.capitalize()} means", MEANS[verdict].format(here)) for verdict in verdicts if verdict in MEANS]


def without_attack(one: Mapping[str, Any]) -> float | None:
    """The share of images that are right without an attack, where the record counts them."""
    by = one.get("found_by")
    return 1 - by["clean"] / one["n"] if isinstance(by, Mapping) and by.get("clean") and one["n"] else None


def _source(one: Mapping[str, Any]) -> str:
    """Who claims it."""
    if own(one):
        return f"No claim was given: it is what the first attack leaves, {_first(one)}."
    if "n" in (one.get("claimed_under") or {}):
        return f"It was given to the audit, as what {_first(one)} leaves."
    return "It was given to the audit." if "--claim" in _command(one) else ""


def own(one: Mapping[str, Any]) -> str:
    """The attack whose figure stands in for a claim that nobody gave; empty where one was given, it could not run, or nobody knows."""
    under, command = one.get("claimed_under") or {}, _command(one)
    older = command.startswith("normwise audit") and not any(word in command for word in ("--claim", "--config"))
    ran = not any("there is no claim" in str(reason) for reason in one.get("reasons", ()))
    return _first(one) if ran and ("n" not in under if under else older) else ""


def _command(one: Mapping[str, Any]) -> str:
    return str((one.get("provenance") or {}).get("command") or "")


def _first(one: Mapping[str, Any]) -> str:
    return joined([attacker(each) for each in (one.get("claimed_under") or {}).get("attacks", ())] or ["PGD-20"])


def _data(one: Mapping[str, Any]) -> str:
    """The name of the data; older records have it in their command alone."""
    said = re.search(r"--data[ =]([\w.:-]+)", str((one.get("provenance") or {}).get("command") or ""))
    name = one.get("data") or (said[1] if said else "")
    return f" of {label(name)}" if name else ""


def _trust(one: Mapping[str, Any]) -> str:
    """How sure the bound is, and what the checks said."""
    checks, (low, high) = one["checks"], one["interval"]
    status = [_status(check) for check in checks]
    counts = []
    for kind, word in _CALLED.items():
        names = joined([f'"{check["name"]}"' for check, its in zip(checks, status, strict=True) if its == kind] or [""])
        counts += (
            [f"{status.count(kind)} {word}" + (f" ({names})" if kind in ("fail", "warn") else "")] if kind in status else []
        )
    missing = f" Could not run: {joined(one['missing'])}." if one.get("missing") else ""
    interval = f"For other images like these, {100 * low:.1f}–{100 * high:.1f}% may be left (95% interval, n = {one['n']}). "
    counted = f" Of {plural(len(checks), 'check')} {joined(counts)}." if counts else ""
    return f"{interval * bool(one['n'])}{BOUND}{counted}{missing}"


def _status(check: Mapping[str, Any]) -> str:
    return LEFT_OUT if check["status"] == "pass" and check.get("n") is None else str(check["status"])
