"""Words that several parts of a report use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

_CHECKS = Path(__file__).parents[3] / "docs/reference/checks.md"  # where the package lies in a checkout


def anchor(name: str) -> str:
    """The anchor of a check, in its page and in docs/reference/checks.md: "repeated-and-lonely-answers"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "check"


def docs(folder: Path) -> str:
    """The address of docs/reference/checks.md from a page in this folder; empty where the package does not run from a checkout."""
    try:
        return quote(Path(os.path.relpath(_CHECKS.resolve(), folder.resolve())).as_posix()) if _CHECKS.is_file() else ""
    except ValueError:  # on another drive
        return ""


def capital(text: str) -> str:
    """Begin a sentence with a capital letter, and leave the rest as it is; a name of something, such as mine:network, stays.

    >>> capital("no attack"), capital("mine:network, trained"), capital("runs/bn")
    ('No attack', 'mine:network, trained', 'runs/bn')
    """
    first = text.split(" ")[0].rstrip(".:,")
    return text if set(first) & set(":/._") else text[:1].upper() + text[1:]


def training(recipe: str) -> str:
    """Name a recipe in a sentence: "standard training"."""
    return recipe if "train" in recipe else f"{recipe} training"


def where(name: str, place: str) -> str:
    """Say where something stands, if there is more than one place."""
    return f"{name}, {place}" if place else name


def joined(names: Iterable[str]) -> str:
    """Join names as a sentence does: "a, b and c"; with semicolons where a name has a comma of its own."""
    *most, last = list(names)
    comma = "; " if any("," in name for name in (*most, last)) else ", "
    return f"{comma.join(most)}{';' if comma == '; ' else ''} and {last}" if most else last


def percent(share: float, places: int = 1) -> str:
    """Write a share in percent: "53.1%"."""
    return f"{share:.{places}%}"


def plural(number: int, noun: str) -> str:
    """Count a noun: "1 cell", "2 cells"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
