"""What there is, and how far a run is: verbs that make nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from pathlib import Path

from ..attacks import ATTACKS
from ..data import CORRUPTIONS, DATA
from ..diagnostics import DIAGNOSES
from ..experiments.backends import BACKENDS
from ..experiments.presets import PRESETS
from ..experiments.status import status
from ..models import MODELS
from ..norms import NORMS
from ..registry import Registry, plain, unknown
from ..threats import THREATS
from ..training.recipes import RECIPES
from .parser import Verb, option_texts, parse
from .summaries import show

KINDS: dict[str, Registry] = {
    "norms": NORMS,
    "attacks": ATTACKS,
    "threats": THREATS,
    "recipes": RECIPES,
    "models": MODELS,
    "data": DATA,
    "diagnoses": DIAGNOSES,
    "backends": BACKENDS,
}


@dataclass(frozen=True)
class _Nothing:
    """No settings."""


def show_choices(description: str, words: Sequence[str]) -> None:
    """`normwise list`: what there is, with its options where a kind is named."""
    verb = Verb("list", f"{description}; KIND: {', '.join(KINDS)}, corruptions, presets", "", "[KIND]", 0, 1)
    _, operands, _ = parse(verb, _Nothing, words)
    if operands and operands[0] not in [*KINDS, "corruptions", "presets"]:
        raise unknown("kind", operands[0], [*KINDS, "corruptions", "presets"])
    for kind, registry in KINDS.items():
        if operands == [kind]:
            show(
                (kind, "option", "default", ""),
                [line for name, one in registry.items() for line in _with_options(name, one)],
            )
        elif not operands:
            show((kind, ""), [(name, _about(one)) for name, one in registry.items()])
    if operands in ([], ["corruptions"]):
        show(("corruptions", ""), [(name, corruption.about) for name, corruption in CORRUPTIONS.items()])
    if operands in ([], ["presets"]):
        show(("presets", ""), [(name, str(preset.__doc__)) for name, preset in PRESETS.items()])


def _about(one: type) -> str:
    return (one.__doc__ or "").strip().splitlines()[0]


def _with_options(name: str, one: type) -> Iterator[tuple[str, str, str, str]]:
    """A choice, and a line per option with its default."""
    yield name, "", "", _about(one)
    texts = option_texts(one)
    for field in fields(one):
        default = "" if field.default is MISSING else json.dumps(plain(field.default))
        yield "", field.name, default, texts.get(field.name, "").replace("%%", "%")


@dataclass(frozen=True, kw_only=True)
class _Status:
    """How the status is shown.

    Options
        json    as one line of JSON, for programs
    """

    json: bool = False


def show_status(description: str, words: Sequence[str]) -> None:
    """`normwise status`: what is done, under way and waiting, and how long it takes still."""
    settings, operands, _ = parse(Verb("status", description, "", "FOLDER", 1, 1), _Status, words)
    found = status(Path(operands[0]))
    if settings.json:
        print(json.dumps(plain(found) | {"done": found.done, "running": found.running}))
        return
    spent = [str(timedelta(seconds=round(part.seconds))) if part.seconds else "" for part in found.parts]
    rows = [(part.state, part.name, part.says, time) for part, time in zip(found.parts, spent, strict=True)]
    show(("state", "part", "", "time"), rows, numbers=1)
    left = "unknown" if found.seconds_left is None else str(timedelta(seconds=round(found.seconds_left)))
    state = "done" if found.done == len(found.parts) else "running" if found.running else "stopped"
    ago = timedelta(seconds=round(found.written))
    print(f"{found.verb}: {state}, {found.done} of {len(found.parts)} done, {left} of work left, last written {ago} ago")
