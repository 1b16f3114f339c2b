"""The page of a self-test: which tests with a known result the attack passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records import write
from .apart import label
from .card import allowed, facts
from .frame import rendered
from .words import anchor, joined

RECORD, PAGE = "selftest.json", "selftest.html"


def write_page(out: Path, record: Mapping[str, Any]) -> Path:
    """Write `selftest.html` into a folder, made of what `selftest.json` holds; returns its path."""
    checks, settings = record["checks"], record["settings"]
    attack, counts = label(settings["attack"]), Counter(check["status"] for check in checks)
    raised = {"fail": counts["fail"], "warn": counts["warn"]}
    said = (
        joined(f"{count} {status}" for status, count in raised.items() if count) if any(raised.values()) else "none failed"
    )
    statuses: dict[str, list[tuple[str, str, str]]] = {}
    for check in checks:
        statuses.setdefault(check["status"], []).append((check["name"], anchor(check["name"]), check["measured"]))
    about = {"command", "commit", "hardware", "versions", "weights"}
    provenance = {key: value for key, value in record.items() if key in about}
    command = provenance.pop("command", "") or "the command was not recorded"
    page = rendered(
        PAGE,
        title="normwise selftest",
        subtitle=f"{label(settings['model'], 'a small network')} · {label(settings['data'])}",
        lead=f"{attack} in {len(checks)} tests with a known result: {said}.",
        rest=allowed(settings["threat"]),
        checks=checks,
        statuses=list(statuses.items()),
        anchor=anchor,
        provenance=facts(provenance),
        command=command,
    )
    return write(out / PAGE, page)
