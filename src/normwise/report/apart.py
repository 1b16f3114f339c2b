"""What to call choices of records: by their labels, and by what tells them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.run_folder import PRETRAINED
from .words import joined

_MOST = 3  # differences that a name lists
_SAID = {
    "threat.eps": "eps {}",
    "train_eps": "trained at eps {}",
    "schedule.epochs": "{} epochs",
    "schedule.lr": "learning rate {}",
    "data.train_limit": "{} training images",
    "data.test_limit": "{} test images",
    "batch_size": "batches of {}",
    "craft_on": "made on {}",
    "attacks": "attacked by {}",
    "strongest": "then by {}",
}
_OWN = {"npz": "path", "folder": "root", "video": "root"}  # data of one's own is called by its file
_BEGUN = {"start": ("from {}", "from random weights"), "substitute": ("listening to {}", "no substitute")}
_NONE = {"craft_on": "made on the network itself"}


def label(choice: Any, otherwise: str = "norm as built") -> str:
    """What to call a choice: its label, else its name or its own file's. Unprintable characters become spaces."""
    if isinstance(choice, Mapping):
        own = choice.get(_OWN.get(str(choice.get("name")), ""))
        choice = choice.get("label") or (own and Path(str(own)).name) or choice.get("name")
    return "".join(c if c.isprintable() else " " for c in str(choice or otherwise))


def attacker(attack: Any) -> str:
    """What to call an attack of a record: "PGD-20", "APGD-CE-50"."""
    if isinstance(attack, Mapping) and attack.get("name") == "apgd" and "label" not in attack:
        attack = {**attack, "name": "apgd-t" if attack.get("targets") else f"apgd-{attack.get('loss', 'ce')}"}
    steps = f"-{attack['steps']}" if isinstance(attack, Mapping) and "steps" in attack and "label" not in attack else ""
    return f"{label(attack)}{steps}".upper()


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Lay nested plain data out as {"attacks.0.steps": 20}."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple) and value:
        items = enumerate(value)
    else:
        return {path: value}
    return {deep: leaf for key, inner in items for deep, leaf in flat(inner, f"{path}.{key}".strip(".")).items()}


def named(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Call each setting by its data and by what tells it from others; one that all have in common needs no name."""
    if len(set(map(key_of, settings))) == 1:
        return [""] * len(settings)
    # how one was trained says nothing beside one that was not trained here
    shared = {key for one in settings for key in one if all(key in other for other in settings)}
    brief = [{key: value for key, value in one.items() if key in shared} for one in settings]
    if len(set(map(key_of, brief))) == len(set(map(key_of, settings))):
        settings = brief
    shown = [{"label": label(one.get("data"), ""), **one} for one in settings]
    for which in ("attacks", "strongest"):  # by name, where names tell them apart
        names = [joined(map(attacker, one.get(which) or ["nothing"])) for one in settings]
        if len(set(names)) > 1:
            shown = [{**one, which: name} for one, name in zip(shown, names, strict=True)]
    return distinct_names(shown, _in_words)


def distinct_names(
    choices: Sequence[Mapping[str, Any]], said: Callable[[str, Mapping[str, Any]], str] | None = None
) -> list[str]:
    """Call each choice by its label, and equal labels of unequal choices by the options in which they differ too, as they are `said`."""
    said = said or _option
    names = [label(choice) for choice in choices]
    options = [flat(choice) for choice in choices]
    called: dict[str, str] = {}
    for choice, name, mine in zip(choices, names, options, strict=True):
        rivals = [other for rival, other in zip(names, options, strict=True) if rival == name]
        keys = dict.fromkeys(key for rival in rivals for key in rival)
        apart = [key for key in keys if len({key_of(rival.get(key)) for rival in rivals}) > 1]
        differ = [text for key in apart if (text := said(key, mine))]
        text = f"{name} ({', '.join(differ[:_MOST])}{', …' if differ[_MOST:] else ''})" if differ else name
        same = sum(other.split(" #")[0] == text for key, other in called.items() if key != key_of(choice))
        called.setdefault(key_of(choice), f"{text} #{same + 1}" if same else text)
    return [called[key_of(choice)] for choice in choices]


def _option(key: str, options: Mapping[str, Any]) -> str:
    """An option as one writes it; in words what a network begins with or listens to."""
    some, none = _BEGUN.get(key, (f"{key}={{}}", f"{key}=none"))
    value = options.get(key)
    if isinstance(value, str) and Path(value).parent.name == PRETRAINED:
        value = Path(value).name
    return none if value is None else some.format(_short(value))


def _in_words(key: str, options: Mapping[str, Any]) -> str:
    """A setting as one says it: "eps 0.3", "20 epochs", "attack 2 steps 10"; nothing for what one does not have."""
    if key not in options:
        return ""
    value, name = options[key], re.sub(r"attacks\.(\d+)", lambda found: f"attack {int(found[1]) + 1}", key)
    name = name.replace(".", " ").replace("_", " ")
    if value in (None, "", False):
        return _NONE.get(key, f"no {name}")
    if key in _SAID:
        return _SAID[key].format(_short(value))
    return name if value is True else f"{name} {_short(value)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else label(value, "none")


def key_of(*parts: Any) -> str:
    """Write plain data so that equal data are equal text."""
    return json.dumps(parts, sort_keys=True, default=str)
