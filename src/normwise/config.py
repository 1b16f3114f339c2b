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

from .registry import Registry, plain, typed, unknown, wanted

FRACTION = re.compile(r"(?<![\w./])(\d+(?:\.\d*)?)/(\d+(?:\.\d*)?)(?![\w./])")


def choice(registry: Registry, default: Any, find: Callable[[str], Any] | None = None) -> Any:
    """Declare a field whose value is one choice of a registry; `find` makes a choice from a word that is not a name."""
    return dataclasses.field(default=default, metadata={"registry": registry, "find": find})


def choices(registry: Registry, default: tuple[Any, ...]) -> Any:
    """Declare a field whose value is several choices of a registry: `fgsm,pgd` or a YAML list."""
    return dataclasses.field(default=default, metadata={"registry": registry, "many": True})


T = TypeVar("T")
Layers = tuple[Mapping[str, Any], Mapping[str, Any]]


class Verb(NamedTuple):
    """What a verb is called, what it does, where its files go, and which words without dashes it takes."""

    name: str
    description: str
    out: str = ""  # the default of --out; a verb without one writes no files
    takes: str = ""  # e.g. "[MODEL]", with the least and the largest number of such words
    least: int = 0
    most: int = 0

    @property
    def usage(self) -> str:
        """How to write it."""
        return " ".join(["normwise", self.name, *[self.takes] * bool(self.takes), *["[--out DIR]"] * bool(self.out)])


def parse(
    verb: Verb,
    kind: type[T],
    words: Sequence[str],
    base: Callable[[Sequence[str], Mapping[str, Any]], Layers] = lambda operands, given: ({}, {}),
    read: Callable[[Path], Mapping[str, Any]] = lambda path: read_yaml(path),
) -> tuple[T, list[str], Path]:
    """Read a command line into the settings class `kind`; returns it, the operands (the words without dashes) and `--out`.

    Later wins: the class's defaults, what suits, the file of `--config`, what the operands say, the words. `base` makes what
    suits and what the operands say, from the operands and from what file and words say of choices and texts, so that one
    setting can decide the defaults of others. Every option takes one value.
    Raises ValueError, one line, for anything that cannot be.
    """
    operands, options = _split(words, verb)
    if not verb.least <= len(operands) <= verb.most and not any(option in options for option in _BARE):
        extra = f"one word too many: {operands[verb.most]!r}" if len(operands) > verb.most else f"it needs {verb.takes}"
        raise ValueError(f"{extra}; write {verb.usage}")
    path = options.pop("--config", None)
    out = (options.pop("--out", None) if verb.out else None) or verb.out
    names = {f.name: options.pop(f"--{f.name}", None) or options.pop(f"--{f.name}.name", None) for f in _single(kind)}
    texts = {name: options.get(f"--{name}") for name, hint in typing.get_type_hints(kind).items() if hint is str}
    file = read(Path(path)) if path else {}
    said = {key: text for key, text in {**texts, **names}.items() if text}
    suited, operand = base(operands, merge(kind, file, said))
    values = merge(kind, defaults(kind), suited, file, operand, said)
    parser = _parser(verb, kind, values)
    actions = {option.removesuffix(".name"): action for action in parser._actions for option in action.option_strings}
    for option in options:
        if option not in actions:
            raise _unknown_option(option, list(actions), values, verb)
        if (value := options[option]) and actions[option].metavar != "TEXT":
            options[option] = FRACTION.sub(_quotient, value)
    try:
        parsed = parser.parse_args([o if value is None else f"{o}={value}" for o, value in options.items()]).as_dict()
    except argparse.ArgumentError as error:
        found = re.match(r'Parser key "(.+?)":.*value: (.*)', " ".join(str(error).split()))
        if not found:
            raise ValueError(" ".join(str(error).split())) from None
        raise ValueError(f"--{found[1]} is {found[2]}; expected {actions[f'--{found[1]}'].metavar.lower()}") from None
    parsed.pop("config", None)
    return build(kind, parsed), operands, Path(out)


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
            made[key] = tuple(registry.make(one) for one in _listed(value, key))
        elif registry is not None:
            nothing = value in (None, {"name": None}) and type(None) in typing.get_args(hints[key])
            made[key] = None if nothing else registry.make(value)
        elif dataclasses.is_dataclass(hints[key]):
            made[key] = build(typing.cast(type, hints[key]), value)
        else:
            made[key] = typed(value, hints[key], key)
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
                value = _named(value, key, fields[key].metadata["find"])
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
    from jsonargparse import get_loader

    try:
        data = get_loader("yaml")(FRACTION.sub(_quotient, path.read_text()))  # the reader of the words: 1e-3 is a number
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


def _split(words: Sequence[str], verb: Verb) -> tuple[list[str], dict[str, str | None]]:
    """Tell operands from options."""
    operands: list[str] = []
    options: dict[str, str | None] = {}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            operands.append(word)
        elif option in _BARE and not equals:
            options[option] = None
        else:
            value = value if equals else next(rest, "--")
            if value.startswith("--"):
                raise ValueError(f"{option} needs a value; write {option} VALUE, or see normwise {verb.name} --help")
            options[option] = value
    return operands, options


def _unknown_option(option: str, known: list[str], values: Mapping[str, Any], verb: Verb) -> ValueError:
    group, dot, name = option[2:].partition(".")
    if not dot or group not in values:
        return unknown("option", option, known, f"normwise {verb.name} --help lists them")
    called = values[group].get("name") if isinstance(values[group], Mapping) else None
    siblings = [other.removeprefix(f"--{group}.") for other in known if other.startswith(f"--{group}.")]
    return unknown(f"option of {group}" + (f" {called!r}" if called else ""), name, siblings)


def _single(kind: type) -> list[dataclasses.Field]:
    """The fields that are one choice of a registry."""
    return [f for f in dataclasses.fields(kind) if "registry" in f.metadata and not f.metadata.get("many")]


def _named(value: Any, key: str, find: Callable[[str], Any] | None) -> Any:
    """Write a choice as a mapping with a name."""
    if isinstance(value, str):
        return plain(find(value)) if find else {"name": value}
    if not isinstance(value, Mapping | None):
        raise ValueError(f"{key} is {value!r}; give a name, or {{name: ..., option: value}}")
    return {"name": None} if value is None else value


def _listed(value: Any, key: str) -> list[Any]:
    """Read several choices: `a,b`, or a list."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError(f"--{key} takes names with commas between, or a YAML list; got {value!r}")
    return list(value)


def _parser(verb: Verb, kind: type, values: Mapping[str, Any]) -> Any:
    """Make the real parser: one typed option per field, and per field of what was chosen."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter):
        def _get_help_string(self, action: Any) -> str:
            told = action.default not in (None, "", argparse.SUPPRESS) and "(default: " not in (action.help or "")
            return (action.help or "") + " (default: %(default)s)" * told

        def _format_action_invocation(self, action: Any) -> str:
            return str(super()._format_action_invocation(action)).replace(".name NAME", " NAME")  # a choice is `--norm NAME`

    fields = dataclasses.fields(kind)
    for key in values:
        if key not in [field.name for field in fields]:
            raise unknown(f"setting of {verb.name}", key, [field.name for field in fields])
    usage = verb.usage + " [--option VALUE ...]" * bool(fields)
    parser = ArgumentParser(usage=usage, description=verb.description, exit_on_error=False, formatter_class=Help)
    if verb.out:
        parser.add_argument("--out", metavar="DIR", default=argparse.SUPPRESS, help=f"where files go (default: {verb.out})")
    if fields:
        parser.add_argument(
            "--config", action="config", metavar="FILE", help="start from a YAML file, such as a run's config.yaml"
        )
        printing = next(action for action in parser._actions if "--print_config" in action.option_strings)
        printing.help, printing.metavar = "print the settings as YAML, for --config, and end", ""
    hints, texts = typing.get_type_hints(kind), option_texts(kind)
    for field in fields:
        name, value, text = field.name, values.get(field.name), texts.get(field.name, "")
        registry = field.metadata.get("registry")
        if registry is not None and field.metadata.get("many"):
            now = ", ".join(str(one.get("name") if isinstance(one, Mapping) else one) for one in _listed(value, name))
            says = f"{text}: some of {', '.join(registry)}, or a YAML list of {{name: ..., option: value}} (default: {now})"
            parser.add_argument(f"--{name}", type=Any, metavar="NAME,...", default=value, help=says)
        elif registry is not None:
            called = value["name"] if isinstance(value, Mapping) else None
            group = parser.add_argument_group(f"{name}: {text}")
            group.add_argument(f"--{name}.name", metavar="NAME", default=called, help=f"one of {', '.join(registry)}")
            if called is not None:
                _add_fields(group, registry[called], name, dict(value or {}))
        elif dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name} is {value!r}; give {{option: value}}")
            group = parser.add_argument_group(f"{name}: {text}")
            _add_fields(group, typing.cast(type, hints[name]), name, value)
        else:
            _add_option(parser, name, hints[name], value, text)
    return parser


def _add_fields(group: Any, kind: type, prefix: str, values: Mapping[str, Any]) -> None:
    hints, texts = typing.get_type_hints(kind), option_texts(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in [*known, "name"]:
            raise unknown(f"option of {prefix} {values.get('name', '')!r}".removesuffix(" ''"), key, known)
    for field in dataclasses.fields(kind):
        value = values.get(field.name, field.default)
        _add_option(group, f"{prefix}.{field.name}", hints[field.name], value, texts.get(field.name, ""))


def _add_option(group: Any, name: str, hint: Any, value: Any, text: str) -> None:
    group.add_argument(f"--{name}", type=hint, metavar=wanted(hint), default=value, help=text)


def option_texts(kind: type) -> dict[str, str]:
    """Read what a class's docstring says of each option, inherited docstrings included."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(r"\n {4}Options\n(.*?)(?:\n\n|\Z)", base.__doc__ or "", re.S)
        for block in re.split(r"\n {8}(?=\w)", "\n" + section[1]) if section else ():
            name, _, text = block.strip().partition(" ")
            texts[name] = " ".join(text.split()).replace("%", "%%")
    return texts
