"""What stays on this machine when a run is shared: paths, commands, images and tokens."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models.hub import PREFIX

LOCAL = "(local)"
_OWN = ("root", "path", "download")  # options of data sets about this machine; left out, they are read back as their default
_NETWORKS = ("start", "weights", "substitute", "substitute_weights")  # settings that name networks and their weights
_LEFT_OUT = ("command", "examples")  # a command names paths; the examples of an audit are images of the data
_PATH = re.compile(r"(?<![\w./:-])(?:~|/[\w.@+-]+)/[\w.@+/-]*|\b[A-Za-z]:\\[^\s\"']*|file://\S+")
_TOKEN = re.compile(
    r"\b(?:hf_|gh[oprsu]_|github_pat_|glpat-|sk-|xox[abp]-|pypi-)[\w-]{16,}|\bAKIA[A-Z0-9]{16}\b|(?<=://)[^/\s@]+:[^/\s@]+@"
)
_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "ACCESS_KEY")  # in names of environment variables
_SHORT = 8  # characters: a shorter value of such a variable is a flag, not a secret


def private_words(folders: Sequence[str], records: Sequence[Any]) -> list[str]:
    """What must not be shared: folders, the paths that the records name, and the values of secret environment variables.

    The longest come first, so that a path is taken out before a part of it.
    """
    named = [*folders, *(text for record in records for text in _paths(record))]
    absolute = [str(Path(text).expanduser().resolve()) for text in named]
    secrets = [
        value
        for name, value in os.environ.items()
        if any(word in name.upper() for word in _SECRETS) and len(value) >= _SHORT
    ]
    paths = [text if "/" in text or "\\" in text else f"{text}/" for text in (*named, *absolute)]
    words = {*paths, *secrets, str(Path.home()), str(Path.cwd())} - {"/", "./"}
    return sorted(words, key=lambda word: (-len(word), word))


def _paths(value: Any) -> Iterator[str]:
    """The paths that a record names."""
    if isinstance(value, list):
        for inner in value:
            yield from _paths(inner)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(inner, str) or not (name in _OWN or _is_network(name, value)):
                yield from _paths(inner)
            elif inner:
                yield inner


def _is_network(name: str, record: Mapping[str, Any]) -> bool:
    """Whether this entry of a record names a network by its path; the notes on weights of a provenance are sentences."""
    value = record[name]
    asked = (name in _NETWORKS and "commit" not in record) or (name == "source" and "trained_on" in record)
    return asked and isinstance(value, str) and bool(value) and not value.startswith(PREFIX)


def without(value: Any, words: Sequence[str]) -> Any:
    """A record as plain data without what is private: folders of data left out, and `(local)` where a path or token stood."""
    if isinstance(value, list):
        return [without(inner, words) for inner in value]
    if isinstance(value, Mapping):
        kept = {name: inner for name, inner in value.items() if name not in (*_LEFT_OUT, *_OWN)}
        return {
            hidden(name, words): LOCAL if _is_network(name, value) else without(inner, words) for name, inner in kept.items()
        }
    return hidden(value, words) if isinstance(value, str) else value


def hidden(text: str, words: Sequence[str]) -> str:
    """A text with `(local)` where one of the words, a path or a token stood."""
    for word in words:
        before = r"(?<!hub:)(?<![\w.-])" if word[0].isalnum() else ""
        text = re.sub(before + re.escape(word) + (r"(?!\w)" if word[-1].isalnum() else ""), LOCAL, text)
    return _TOKEN.sub(LOCAL, _PATH.sub(LOCAL, text))


def check_nothing_private(file: str, text: str, words: Sequence[str]) -> None:
    """Refuse a text that holds something private after all. Raises ValueError naming the file, and not what it holds."""
    if hidden(text, words) != text:
        raise ValueError(f"{file} would still hold a local path or a token; nothing was sent")
