"""The page of an audit, or of several: the verdict first, then who may do what, then every check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import limits, records
from . import audit_words, texts
from .apart import attacker
from .card import ALONE, FIXED, allowed, facts, radius
from .frame import rendered
from .series import Plot, plot
from .sheet import Example, examples_of
from .words import anchor, docs, joined, percent, plural

RECORD, PAGE = "audit.json", "audit.html"
_NEEDED = ("verdict", "claimed_accuracy", "upper_bound", "interval", "n", "threat", "coupled", "checks")
SEVERITY = {"fail": 3, "warn": 2, "could not run": 1, "pass": 0}
MARKS = {"fail": "✗", "warn": "!", "could not run": "–", "pass": "✓"}
_REACHES = {  # name: what the attacker changes, what the share counts
    "joint": ("all images of a batch, together", "of images stay correct"),
    "single": ("one image, beside clean neighbours", "of images stay correct, each attacked alone"),
    "peers": ("half of a batch, without limit; the images that count are unchanged", "of unchanged images stay correct"),
}


class Finding(NamedTuple):
    """One check: its anchors in this page and in docs/reference/checks.md, what it found on how many images, and its series as a plot."""

    id: str
    anchor: str
    name: str
    status: str
    measured: str
    why: str
    n: int | None
    attacker: str
    plot: Plot | None

    @property
    def called(self) -> str:
        """Its name, and its number of images if it has one."""
        return self.name if self.n is None else f"{self.name} (n = {self.n})"


class AuditSummary(NamedTuple):
    """One audit, ready for the page; `card` is the threat card as (what, lines)."""

    id: str
    name: str
    verdict: str
    lead: str
    lines: list[tuple[str, str]]
    first: str
    clean: float | None
    n: int
    drawn: str
    claimed: float
    bound: float
    low: float
    high: float
    threat: str
    coupled: bool
    reasons: list[str]
    card: list[tuple[str, list[str]]]
    broken_by: str
    findings: list[Finding]
    examples: list[Example]
    provenance: list[tuple[str, str]]
    command: str

    @property
    def raised(self) -> list[Finding]:
        """What did not pass, gravest first."""
        return sorted((f for f in self.findings if f.status != "pass"), key=lambda f: -SEVERITY.get(f.status, 0))

    @property
    def passed(self) -> list[Finding]:
        """What passed."""
        return [f for f in self.findings if f.status == "pass" and f.n is not None]

    @property
    def aside(self) -> list[Finding]:
        """Checks that do not apply to this network."""
        return [f for f in self.findings if f.status == "pass" and f.n is None]

    def status(self, name: str) -> Finding | None:
        """The check of this name."""
        return next((f for f in self.findings if f.name == name), None)


def read(path: Path) -> dict[str, Any]:
    """Read an audit's record; one without a model's name is called after its folder. Raises ValueError naming the file."""
    try:
        one = limits.from_json(path)
        lacking = [key for key in _NEEDED if key not in one]
        if lacking or not isinstance(one, dict):
            raise ValueError(f"it lacks {', '.join(lacking) or 'everything'}")
        to_html([one], path.parent)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is not the record of an audit: {error}; expected what normwise audit writes") from None
    return one | {"model": one.get("model") or path.parent.name, "run": path.parent.name}


def write(out: Path, audits: Sequence[Mapping[str, Any]]) -> Path:
    """Write `audit.html` and its table as `audits.csv`, `.md` and `.tex` into a folder; returns the page's path."""
    page = to_html(audits, out)
    head, rows, numbers = _table(_all(audits))
    records.write(out / "audits.csv", texts.to_csv([dict(zip(head, row, strict=True)) for row in rows]))
    records.write(out / "audits.md", texts.to_markdown(head, rows, numbers))
    records.write(out / "audits.tex", texts.to_latex(head, rows, numbers))
    return records.write(out / PAGE, page)


def to_html(audited_records: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Render one audit, or several beside each other; text from records is escaped. Raises ValueError for none.

    `folder` is where the page will lie: from there it leads to the docs.

    Fields that a record may lack: `model`, `run` (its folder, which tells audits of one network apart), `reach`, `examples`
    (see `sheet.examples_of`), a check's `n` and `series` (see `series.plot`).
    """
    if not audited_records:
        raise ValueError("a page needs at least one audit; got none; run normwise audit first")
    audits = _all(audited_records)
    first, *others = audits
    lead = (
        f"{joined(f'{count} {verdict}' for verdict, count in Counter(one.verdict for one in audits).items())}.".capitalize()
    )
    if len(audits) == 2:
        lead = f"{'; '.join(f'{one.name}: {one.verdict}, at most {percent(one.bound)} stay correct' for one in audits)}."
    return rendered(
        "audit.html",
        title="normwise audit",
        subtitle=f"{first.name} · {first.threat}" if not others else plural(len(audits), "network"),
        lead=lead if others else first.lead,
        under=first.lines if not others else _lines(audits),
        audits=audits,
        checks=list(dict.fromkeys(finding.name for one in audits for finding in one.findings)),
        docs=docs(folder),
        anchor=anchor,
        marks=MARKS,
        severity=SEVERITY,
        gap=audit_words.GAP,
        percent=percent,
    )


def _lines(audits: Sequence[AuditSummary]) -> list[tuple[str, str]]:
    """What stands under the headline of several audits, as (what, words)."""
    images = [one.n for one in audits]
    counted = f"{min(images)} to {max(images)}" if len(set(images)) > 1 else str(images[0])
    lead = f"For each of {len(audits)} networks the accuracy claimed under attack with what the attacks of all checks leave"
    apart = " The threat models differ: compare within a row." if len({one.threat for one in audits}) > 1 else ""
    means = audit_words.means(dict.fromkeys(one.verdict for one in audits))
    trust = f"Intervals cover other test images, not other trainings. {audit_words.BOUND}"
    return [("Compared", f"{lead}, on {counted} test images.{apart}"), *means, ("How far to trust it", trust)]


def _all(records: Sequence[Mapping[str, Any]]) -> list[AuditSummary]:
    given = [str(one.get("model") or "network") for one in records]
    names, audits = Counter[str](), []
    for number, (one, name) in enumerate(zip(records, given, strict=True), 1):
        if given.count(name) > 1 and one.get("run"):  # which of them: that of this folder
            name = f"{name} ({one['run']})"
        names[name] += 1
        called = name if names[name] == 1 else f"{name} #{names[name]}"
        audits.append(summarize(one, called, f"audit-{number}-" if len(records) > 1 else ""))
    return audits


def summarize(one: Mapping[str, Any], name: str, prefix: str = "") -> AuditSummary:
    """Put the record of an audit in words; `prefix` is that of its anchors in the page."""
    low, high = one["interval"]
    claimed, bound, n = one["claimed_accuracy"], one["upper_bound"], one["n"]
    provenance = dict(one.get("provenance") or {})
    command = str(provenance.pop("command", "") or "")
    return AuditSummary(
        id=prefix.rstrip("-"),
        name=name,
        verdict=one["verdict"],
        lead=audit_words.headline(one),
        lines=audit_words.opening(one),
        first=audit_words.own(one),
        clean=audit_words.without_attack(one),
        n=n,
        drawn=str(one.get("drawn") or plural(n, "image")).replace("rows", "images"),
        claimed=claimed,
        bound=bound,
        low=low,
        high=high,
        threat=radius(one["threat"]),
        coupled=bool(one["coupled"]),
        reasons=[str(reason) for reason in one.get("reasons", ())],
        card=_card(one),
        broken_by=_broken(one.get("found_by") or ""),
        findings=[_finding(check, prefix, one["threat"]) for check in one["checks"]],
        examples=examples_of(one.get("examples") or ()),
        provenance=facts(provenance),
        command=command,
    )


def _finding(check: Mapping[str, Any], prefix: str, threat: Mapping[str, Any]) -> Finding:
    name, slug, series = str(check["name"]), anchor(str(check["name"])), check.get("series")
    drawn = plot(series, in_255ths=threat.get("name") == "linf") if series else None
    status, measured, why = (str(check[key]) for key in ("status", "measured", "why"))
    return Finding(prefix + slug, slug, name, status, measured, why, check.get("n"), str(check.get("attacker") or ""), drawn)


def _card(one: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The threat card: what is allowed, and who controls the batch, its order, its size and the running statistics."""
    reach = one.get("reach") or {}
    if one["coupled"]:
        changes = [
            f"{name}: {changed}" + (f": {percent(reach[name])} {counts}" if isinstance(reach.get(name), int | float) else "")
            for name, (changed, counts) in _REACHES.items()
        ]
    else:
        changes = [ALONE]
    under = one.get("claimed_under") or {}
    same = under.get("threat") == one["threat"]
    protocol = ["the same threat model" if same else allowed(under["threat"])] if under.get("threat") else []
    if protocol and under.get("attacks"):
        protocol.append(joined(map(attacker, under["attacks"])))
    return [
        *([("The claim was made under", protocol)] if protocol else []),
        ("Threat model", [allowed(one["threat"])]),
        ("The attacker knows", ["everything: architecture, weights, statistics, gradients"]),
        ("The attacker changes", changes),
        ("The audit fixes", [FIXED, "Where a check has another attacker, its text below says which"]),
    ]


def _broken(by: str | Mapping[str, int]) -> str:
    """What broke the images, each counted for the first attack that did."""
    if not isinstance(by, Mapping):
        return f"{by}." if by else ""
    attacked = [f"{plural(rows, 'image')} by {attack}" for attack, rows in by.items() if attack != "clean"]
    clean = [f"{plural(by['clean'], 'image')} misclassified without an attack"] if by.get("clean") else []
    return (
        f"Each image counts for the first attack that broke it: {joined([*attacked, *clean])}." if attacked or clean else ""
    )


def _table(audits: Sequence[AuditSummary]) -> tuple[list[str], list[list[str]], list[bool]]:
    """One row per audit: head, rows, which columns are numbers."""
    head = [
        "Network",
        "Threat model",
        "Verdict",
        "Claimed",
        "Left at most",
        "95% interval",
        "n",
        "Images coupled",
        "Checks not passed",
    ]
    rows = [
        [
            *(one.name, one.threat, one.verdict, percent(one.claimed), percent(one.bound)),
            f"{100 * one.low:.1f}–{100 * one.high:.1f}%",
            *(str(one.n), "yes" if one.coupled else "no", "; ".join(finding.called for finding in one.raised) or "none"),
        ]
        for one in audits
    ]
    return head, rows, [False, False, False, True, True, True, True, False, False]
