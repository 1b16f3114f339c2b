"""The report: one folder with a self-contained page, the records, and the figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..record import SCHEMA, Result, to_json
from ..record import write as write_file
from ..registry import plain
from . import figures, headline, tables

HERE = Path(__file__).parent


def write(
    out: Path,
    results: Sequence[Result],
    *,
    title: str,
    provenance: Mapping[str, Any],
    failures: Mapping[str, str] | None = None,
) -> Path:
    """Write `report.html`, `results.json`, `results.csv` and `figures/*.png|svg` into `out`; returns the page's path.

    The page needs nothing but itself: styles, script and drawings are inside it, and it asks for nothing outside.
    Raises ValueError for no results.
    """
    if not results:
        raise ValueError("there is nothing to report: no results; give at least one finished run")
    import jinja2
    from markupsafe import Markup

    failures = failures or {}
    drawings = figures.draw(results)
    for drawing in drawings:
        write_file(out / "figures" / f"{drawing.name}.svg", drawing.svg)
        write_file(out / "figures" / f"{drawing.name}.png", drawing.png)
    records = {
        "schema": SCHEMA,
        "title": title,
        "provenance": plain(provenance),
        "cells": plain(results),
        "failures": dict(failures),
    }
    write_file(out / "results.json", to_json(records))
    write_file(out / "results.csv", tables.to_csv(results))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": _percent, "count": _count, "inline": _inline}
    page = environment.from_string((HERE / "page.html").read_text()).render(
        title=title,
        results=results,
        first=results[0],
        said=headline.headline(results),
        attacks=tables.attacks(results),
        tables=tables,
        drawings=drawings,
        coupled=[result for result in results if result.evaluation.coupled],
        doubts=[(r, check) for r in results for check in r.evaluation.checks if check.status != "pass"],
        passed=sum(check.status == "pass" for r in results for check in r.evaluation.checks),
        failures=failures,
        provenance=provenance,
        threats=list(dict.fromkeys(tables.threat(result) for result in results)),
        attack_settings=_settings(results),
        settings=json.dumps(results[0].experiment, indent=2),
        style=Markup((HERE / "page.css").read_text()),
        script=Markup((HERE / "page.js").read_text()),
    )
    return write_file(out / "report.html", page)


def _settings(results: Sequence[Result]) -> list[str]:
    """Each attack with its options, in words."""
    found = {json.dumps(attack): attack for result in results for attack in result.evaluation.attacks}
    return [
        f"{attack.get('name', '?')} ({', '.join(f'{key} {value}' for key, value in attack.items() if key != 'name')})"
        for attack in found.values()
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _count(value: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _inline(drawing: figures.Drawing) -> Any:
    """The drawing as part of the page: in the page's own text colour, scaled to its width, named for screen readers.

    Numbers of several drawings on one page would share ids: each gets its drawing's name in front.
    """
    from markupsafe import Markup, escape

    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S).replace(figures.INK, "currentColor")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{drawing.name}-\1"', svg)
    svg = re.sub(r'(xlink:href="|href="|url\()#', rf"\g<1>#{drawing.name}-", svg)
    alt = escape(drawing.alt)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', rf'<svg role="img" aria-label="{alt}" \1', svg, count=1)
    return Markup(re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1))
