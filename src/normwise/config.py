"""From a command line and a YAML file to frozen dataclasses: the thin layer over jsonargparse.

A settings class is a frozen dataclass. Its fields are plain typed values, dataclasses (`schedule`), or choices from a
registry (`norm`), made with `choice`. On the command line a choice is `--norm rnt --norm.power 0.5`; in YAML it is
`norm: rnt` or `norm: {name: rnt, power: 0.5}`. `8/255` is a number in both.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .registry import Registry, plain, unknown

FRACTION = re.compile(r"(?<![\w./])(\d+(?:\.\d*)?)/(\d+(?:\.\d*)?)(?![\w./])")


def choice(registry: Registry, default: Any, find: Callable[[str], Any] | None = None) -> Any:
    """Declare a field whose value is one choice of a registry; `find` makes a choice from a word that is not a name."""
    return dataclasses.field(default=default, metadata={"registry": registry, "find": find})


def choices(registry: Registry, default: tuple[Any, ...]) -> Any:
    """Declare a field whose value is several choices of a registry: `fgsm,pgd` or a YAML list."""
    return dataclasses.field(default=default, metadata={"registry": registry, "many": True})


T = TypeVar("T")


class Verb(NamedTuple):
    """What a verb is called, what it does, and which words without dashes it takes (e.g. "MODEL", least 1, most 1)."""

    name: str
    description: str
    takes: str = ""
    least: int = 0
    most: int = 0


def parse(
    verb: Verb,
    kind: type[T],
    words: Sequence[str],
    base: Callable[[Sequence[str], Mapping[str, Any]], Mapping[str, Any]] = lambda operands, given: {},
) -> tuple[T, list[str]]:
    """Read a command line into the settings class `kind`; returns it and the operands (the words without dashes).

    Later wins: the class's defaults, `base(operands, given)` (called with what file and words say, so that one setting can
    decide the defaults of others), the file of `--config`, the words. Every option takes one value.
    Raises ValueError, one line, for anything that cannot be.
    """
    operands, options = _split([FRACTION.sub(_quotient, word) for word in words])
    if not verb.least <= len(operands) <= verb.most and not _asks_for_help(options):
        extra = f"one word too many: {operands[verb.most]!r}" if len(operands) > verb.most else f"it needs {verb.takes}"
        raise ValueError(f"normwise {verb.name}: {extra}; write normwise {verb.name} {verb.takes} [--option value]")
    path = options.pop("--config", None)
    names = {f.name: options.pop(f"--{f.name}", None) or options.pop(f"--{f.name}.name", None) for f in _single(kind)}
    given = merge(kind, read_yaml(Path(path)) if path else {}, {key: name for key, name in names.items() if name})
    parser = _parser(verb, kind, merge(kind, defaults(kind), base(operands, given), given))
    known = [option for action in parser._actions for option in action.option_strings]
    for option in options:
        if option not in known:
            raise unknown("option", option, known)
    try:
        parsed = parser.parse_args(
            [w for option, value in options.items() for w in (option, value) if w is not None]
        ).as_dict()
    except argparse.ArgumentError as error:
        raise ValueError(" ".join(re.sub(r"Parser key \"(.+?)\":", r"--\1:", str(error)).split())) from None
    parsed.pop("config", None)
    return build(kind, parsed), operands


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a settings dataclass from plain data. Raises ValueError for unknown keys, names, options."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    made = {}
    for key, value in values.items():
        if key not in fields:
            raise unknown(f"setting of {kind.__name__}", key, list(fields))
        registry = fields[key].metadata.get("registry")
        if registry is not None and fields[key].metadata.get("many"):
            value = tuple(registry.make(one) for one in _listed(value, key))
        elif registry is not None:
            value = None if value is None or value == {"name": None} else registry.make(value)
        elif dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            value = build(typing.cast(type, hints[key]), value)
        made[key] = tuple(value) if isinstance(value, list) else value
    return kind(**made)


def defaults(kind: type) -> dict[str, Any]:
    """The defaults of a settings class as plain data."""
    return {field.name: plain(field.default) for field in dataclasses.fields(kind)}


def merge(kind: type, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over each other, later over earlier. A choice that is named anew drops the options of the old one."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            registry = fields[key].metadata.get("registry") if key in fields else None
            if registry is not None and not fields[key].metadata.get("many"):
                value = _named(value, fields[key].metadata["find"])
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
    """Read a mapping from a YAML file; fractions are numbers. Raises ValueError for a file that does not hold one."""
    import yaml

    try:
        data = yaml.safe_load(FRACTION.sub(_quotient, path.read_text()))
    except OSError as error:
        raise ValueError(
            f"the settings file {path} cannot be read: {error.strerror}; give the config.yaml of a run"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not YAML ({' '.join(str(error).split())[:120]}); give the config.yaml of a run"
        ) from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no settings (a mapping); give the config.yaml of a run")
    return data


def to_yaml(settings: Any) -> str:
    """Write a settings dataclass as YAML that `--config` reads back."""
    import yaml

    return yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True)


def _quotient(match: re.Match[str]) -> str:
    if float(match[2]) == 0:
        raise ValueError(f"{match[0]} divides by zero; give a number such as 8/255")
    return repr(float(match[1]) / float(match[2]))


_BARE = ("--help", "-h", "--print_config")  # the options without a value


def _asks_for_help(options: Mapping[str, str | None]) -> bool:
    return any(option in options for option in _BARE)


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """Tell operands from options."""
    operands: list[str] = []
    options: dict[str, str | None] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            operands.append(word)
            continue
        option, equals, value = word.partition("=")
        options[option] = value if equals else None if option in _BARE else next(rest, None)
        if options[option] is None and option not in _BARE:
            raise ValueError(f"{option} needs a value; write {option} VALUE")
    return operands, options


def _single(kind: type) -> list[dataclasses.Field]:
    """The fields that are one choice of a registry."""
    return [f for f in dataclasses.fields(kind) if "registry" in f.metadata and not f.metadata.get("many")]


def _named(value: Any, find: Callable[[str], Any] | None) -> Any:
    """Write a choice as a mapping with a name."""
    if value is None:
        return {"name": None}
    if isinstance(value, str):
        return plain(find(value)) if find else {"name": value}
    return value


def _listed(value: Any, key: str) -> list[Any]:
    """Read several choices: `a,b`, or a list."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError(f"--{key} takes names with commas between, or a YAML list; got {value!r}")
    return list(value)


def _parser(verb: Verb, kind: type, values: Mapping[str, Any]) -> Any:
    """Make the real parser: one typed option per field, and per field of what was chosen."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def format_help(self, *args: Any) -> str:
            return re.sub(r"\.name\b", "", str(super().format_help(*args)))  # a choice is `--norm NAME`

    unread = set(values) - {f.name for f in dataclasses.fields(kind)}
    if unread:
        raise unknown(f"setting of {verb.name}", min(unread), [f.name for f in dataclasses.fields(kind)])
    usage = f"normwise {verb.name} {verb.takes} [--option VALUE ...]"
    parser = Parser(prog=f"normwise {verb.name}", usage=usage, description=verb.description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="start from a YAML file, such as the config.yaml of a run")
    hints, texts = typing.get_type_hints(kind), option_texts(kind)
    for field in dataclasses.fields(kind):
        name, value, text = field.name, values.get(field.name), texts.get(field.name, "")
        registry = field.metadata.get("registry")
        if registry is not None and field.metadata.get("many"):
            parser.add_argument(f"--{name}", type=Any, default=value, help=f"{text}; of {', '.join(registry)}")
        elif registry is not None:
            called = value["name"] if isinstance(value, Mapping) else None
            group = parser.add_argument_group(f"{name}: {text}")
            group.add_argument(f"--{name}.name", default=called, help=f"one of {', '.join(registry)}")
            if called is not None:
                _add_fields(group, registry[called], name, dict(value or {}))
        elif dataclasses.is_dataclass(hints[name]):
            _add_fields(
                parser.add_argument_group(f"{name}: {text}"), typing.cast(type, hints[name]), name, dict(value or {})
            )
        else:
            parser.add_argument(f"--{name}", type=hints[name], default=value, help=text)
    return parser


def _add_fields(group: Any, kind: type, prefix: str, values: Mapping[str, Any]) -> None:
    hints, texts = typing.get_type_hints(kind), option_texts(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    for key in values:
        if key not in known | {"name"}:
            raise unknown(f"option of {prefix} {values.get('name', '')!r}", key, sorted(known))
    for field in dataclasses.fields(kind):
        value = values.get(field.name, field.default)
        group.add_argument(f"--{prefix}.{field.name}", type=hints[field.name], default=value, help=texts.get(field.name, ""))


def option_texts(kind: type) -> dict[str, str]:
    """Read what a class's docstring says of each option, inherited docstrings included."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(r"\n {4}Options\n(.*?)(?:\n\n|\Z)", base.__doc__ or "", re.S)
        for block in re.split(r"\n {8}(?=\w)", "\n" + section[1]) if section else ():
            name, _, text = block.strip().partition(" ")
            texts[name] = " ".join(text.split()).replace("%", "%%")
    return texts
