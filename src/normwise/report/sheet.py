"""Adversarial images on a page: clean, adversarial, and what changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")


_KINDS = {"clean": "clean", "adversarial": "attacked", "difference": "difference"}


class Picture(NamedTuple):
    """A picture: its data URI, its kind and what it shows, and for a clip the data URI of an animation."""

    uri: str
    kind: str
    shows: str
    moving: str = ""


class Example(NamedTuple):
    """One example: its caption, and its pictures."""

    caption: str
    pictures: list[Picture]


def examples_of(examples: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Make examples of records: id, label, clean_prediction, prediction, attack, three PNG data URIs, of clips also three that move.

    A picture that is not a PNG data URI is left out, and an example without pictures too: a page loads nothing.
    """
    found = []
    for one in examples:
        row = f"{'clip' if _uri(one, 'clean_apng') else 'image'} {one.get('id')}"
        what = {
            "clean": f"{row}, clean: predicted {one.get('clean_prediction')}, label {one.get('label')}",
            "adversarial": f"{row}, adversarial: predicted {one.get('prediction')}",
            "difference": f"{row}, difference of the two at full contrast",
        }
        pictures = [
            Picture(uri, _KINDS[key], shows, _uri(one, f"{key}_apng"))
            for key, shows in what.items()
            if (uri := _uri(one, f"{key}_png"))
        ]
        broken = f"{one.get('prediction')} after {one['attack']}" if one.get("attack") else "no attack broke it"
        caption = f"{row.capitalize()}, class {one.get('label')}: taken for {one.get('clean_prediction')}, then {broken}"
        if pictures:
            found.append(Example(caption, pictures))
    return found


def _uri(example: Mapping[str, Any], key: str) -> str:
    return str(example[key]) if _PNG.fullmatch(str(example.get(key))) else ""
