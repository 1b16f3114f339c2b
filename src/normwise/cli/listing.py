"""What there is, and how far a run is: verbs that make nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..attacks import ATTACKS
from ..data import CORRUPTIONS, DATA
from ..diagnostics import DIAGNOSES
from ..experiments.presets import PRESETS
from ..experiments.status import status
from ..models import MODELS
from ..norms import NORMS
from ..registry import Registry, plain, unknown
from ..threats import THREATS
from ..training.recipes import RECIPES
from .parser import Verb, option_texts, parse

KINDS: dict[str, Registry] = {
    "norms": NORMS,
    "attacks": ATTACKS,
    "threats": THREATS,
    "recipes": RECIPES,
    "models": MODELS,
    "data": DATA,
    "diagnoses": DIAGNOSES,
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
        if operands in ([], [kind]):
            print(f"{kind}")
            for name, one in registry.items():
                print(f"  {name:16}{(one.__doc__ or '').strip().splitlines()[0]}")
                if operands:
                    for option, text in option_texts(one).items():
                        print(f"      {option:18}{text.replace('%%', '%')}")
    if operands in ([], ["corruptions"]):
        print("corruptions")
        for name, corruption in CORRUPTIONS.items():
            print(f"  {name:18}{corruption.about}")
    if operands in ([], ["presets"]):
        print("presets")
        for name, preset in PRESETS.items():
            print(f"  {name:16}{preset.__doc__}")


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
    for part in found.parts:
        spent = f", {timedelta(seconds=round(part.seconds))}" if part.seconds else ""
        print(f"{part.state:10}{part.name}" + (f": {part.says}{spent}" if part.says else ""))
    left = "unknown" if found.seconds_left is None else str(timedelta(seconds=round(found.seconds_left)))
    state = "done" if found.done == len(found.parts) else "running" if found.running else "stopped"
    ago = timedelta(seconds=round(found.written))
    print(f"{found.verb}: {state}, {found.done} of {len(found.parts)} done, {left} of work left, last written {ago} ago")
