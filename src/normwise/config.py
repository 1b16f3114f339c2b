"""Settings: from plain data, such as a YAML file holds, to frozen dataclasses and back.

A settings class is a frozen dataclass. Its fields are plain typed values, dataclasses (`schedule`), or choices from a
registry (`norm`), made with `choice`. On the command line a choice is `--norm rnt --norm.power 0.5`; in YAML it is
`norm: rnt` or `norm: {name: rnt, power: 0.5}`. Where a number is expected, `8/255` is one in both.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from . import limits
from .registry import Registry, plain, typed, unknown


def choice(registry: Registry, default: Any, find: Callable[[str], Any] | None = None) -> Any:
    """Declare a field whose value is one choice of a registry; `find` makes a choice from a word that is not a name."""
    return dataclasses.field(default=default, metadata={"registry": registry, "find": find})


def choices(registry: Registry, default: tuple[Any, ...] | None) -> Any:
    """Declare a field whose value is several choices of a registry: `fgsm,pgd` or a YAML list. With default None, null is taken too."""
    return dataclasses.field(default=default, metadata={"registry": registry, "many": True})


T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a settings dataclass from plain data. Raises ValueError for unknown keys, names, options, and wrong types."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise unknown(f"setting of {kind.__name__}", key, list(fields))
        registry = fields[key].metadata.get("registry")
        if registry is not None and fields[key].metadata.get("many"):
            kept = value is None and fields[key].default is None
            made[key] = None if kept else tuple(registry.make(one) for one in listed(value, key))
        elif registry is not None:
            nothing = value in (None, {"name": None}) and type(None) in typing.get_args(hints[key])
            made[key] = None if nothing else registry.make(value)
        elif dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{key} is {value!r}; give {{option: value}}")
            made[key] = build(typing.cast(type, hints[key]), value)
        else:
            made[key] = typed(value, hints[key], key)
    return kind(**made)


def defaults(kind: type) -> dict[str, Any]:
    """The defaults of a settings class as plain data."""
    return {field.name: plain(field.default) for field in dataclasses.fields(kind)}


def merge(kind: type, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over each other, later over earlier. A choice that is named anew drops the options of the old one."""
    fields, hints = {field.name: field for field in dataclasses.fields(kind)}, typing.get_type_hints(kind)
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            registry = fields[key].metadata.get("registry") if key in fields else None
            if registry is not None and not fields[key].metadata.get("many"):
                nothing = value == "null" and type(None) in typing.get_args(hints[key])
                value = _named(None if nothing else value, key, fields[key].metadata["find"])
            old = result.get(key)
            renamed = (
                isinstance(value, Mapping)
                and isinstance(old, Mapping)
                and value.get("name", old.get("name")) != old.get("name")
            )
            result[key] = (
                {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) and not renamed else value
            )
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; `8/255` stays a text until a number is expected.

    Raises ValueError for a file that does not hold one, and for a key that is there twice.
    """
    from jsonargparse import get_loader

    try:
        words = limits.text(path, limits.SETTINGS)
        limits.check_depth(words)
        twice = _twice(words)
        data = get_loader("yaml")(words)  # the reader of the words: 1e-3 is a number
        limits.check_items(data)
    except OSError as error:
        raise ValueError(
            f"the settings file {path} cannot be read: {error.strerror}; give the config.yaml of a run"
        ) from None
    except Exception as error:  # the loader stumbles over some itself, such as "?"
        raise ValueError(
            f"{path} is not YAML ({' '.join(str(error).split())[:120]}); give the config.yaml of a run"
        ) from None
    if twice:
        raise ValueError(f"{path} needs each setting once; got {twice}; keep one of them")
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no settings (a mapping); give the config.yaml of a run")
    return data


def _twice(words: str) -> str:
    """The first key that a mapping of a YAML text has twice, and where; "" if none has. A parser would keep the last value."""
    import yaml

    left, seen = [yaml.compose(words, getattr(yaml, "CSafeLoader", yaml.SafeLoader))], set[int]()
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):  # an alias stands for a node that was looked at
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                return f"{name} in lines {lines[name]} and {line}"
            lines[name] = line
            left.append(value)
    return ""


def to_yaml(settings: Any) -> str:
    """Write a settings dataclass as YAML that `--config` reads back."""
    import yaml

    return yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True)


def single(kind: type) -> list[dataclasses.Field]:
    """The fields that are one choice of a registry."""
    return [f for f in dataclasses.fields(kind) if "registry" in f.metadata and not f.metadata.get("many")]


def _named(value: Any, key: str, find: Callable[[str], Any] | None) -> Any:
    """Write a choice as a mapping with a name."""
    if isinstance(value, str):
        return plain(find(value)) if find else {"name": value}
    if not isinstance(value, Mapping | None):
        raise ValueError(f"{key} is {value!r}; give a name, or {{name: ..., option: value}}")
    return {"name": None} if value is None else value


def listed(value: Any, key: str) -> list[Any]:
    """Read several choices: `a,b`, or a list."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError(f"--{key} takes names with commas between, or a YAML list; got {value!r}")
    return list(value)
