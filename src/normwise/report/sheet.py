"""Adversarial images on a page: clean, adversarial, and what changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")


class Example(NamedTuple):
    """One example: its caption, and its pictures as (data URI, what it shows)."""

    caption: str
    pictures: list[tuple[str, str]]


def told(examples: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Make examples of records: id, label, clean_prediction, prediction, attack, and three PNG data URIs.

    A picture that is not a PNG data URI is left out, and an example without pictures too: a page loads nothing.
    """
    found = []
    for one in examples:
        row = f"image {one.get('id')}"
        what = {
            "clean_png": f"{row}, clean: predicted {one.get('clean_prediction')}, label {one.get('label')}",
            "adversarial_png": f"{row}, adversarial: predicted {one.get('prediction')}",
            "difference_png": f"{row}, difference of the two at full contrast",
        }
        pictures = [(str(one[key]), alt) for key, alt in what.items() if _PNG.fullmatch(str(one.get(key)))]
        answers = f"{one.get('clean_prediction')} → {one.get('prediction')}"
        caption = (
            f"{row[:1].upper()}{row[1:]}, label {one.get('label')}: {answers}, {one.get('attack') or 'no attack broke it'}"
        )
        if pictures:
            found.append(Example(caption, pictures))
    return found
