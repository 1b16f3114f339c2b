"""A command line, read into a settings class: the thin layer over jsonargparse."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..config import build, defaults, listed, merge, read_yaml, single
from ..registry import FRACTION, plain, quotient, unknown, wanted, with_fractions
from .examples import EXAMPLES

T = TypeVar("T")
Layers = tuple[Mapping[str, Any], Mapping[str, Any]]


class Verb(NamedTuple):
    """A verb: its name, what it does, where its files go, and which arguments without dashes it takes."""

    name: str
    description: str
    out: str = ""  # the default of --out; a verb without one writes no files
    takes: str = ""  # e.g. "[MODEL]", with the least and the largest number of such words
    least: int = 0
    most: int = 0
    makes: str = "DIR"  # what --out is: a folder, or FILE

    @property
    def usage(self) -> str:
        """How to write it."""
        return " ".join(
            ["normwise", self.name, *([self.takes] if self.takes else []), *([f"[--out {self.makes}]"] if self.out else [])]
        )


def parse(
    verb: Verb,
    kind: type[T],
    words: Sequence[str],
    base: Callable[[Sequence[str], Mapping[str, Any]], Layers] = lambda operands, given: ({}, {}),
    read: Callable[[Path], Mapping[str, Any]] = lambda path: read_yaml(path),
) -> tuple[T, list[str], Path]:
    """Read a command line into the settings class `kind`; returns it, the operands (the words without dashes) and `--out`.

    Settings come from five places; later ones win: the defaults of the class, the defaults for this command, the file of
    `--config`, the operands, the options. `base` returns the defaults for this command and what the operands set. It gets
    the operands, and the choices and texts that the file and the options give, so that one setting can decide the defaults
    of others. Every option takes one value, and none may be empty. Raises ValueError, one line, for bad input.
    """
    operands, options = split(words, verb)
    if "" in operands:
        raise ValueError(f"an argument is empty; write {verb.usage}")
    if not verb.least <= len(operands) <= verb.most and not any(option in options for option in _BARE):
        extra = f"one argument too many: {operands[verb.most]!r}" if len(operands) > verb.most else f"it needs {verb.takes}"
        raise ValueError(f"{extra}; write {verb.usage}")
    hints = typing.get_type_hints(kind)
    named = {f"--{name}" for name in (*hints, "config", "out")}
    for option, value in options.items():
        if value == "" and option.partition(".")[0] in named:  # an unset variable of a shell, mostly
            raise ValueError(f"{option} needs a value; write {option} VALUE, or see normwise {verb.name} --help")
    path = options.pop("--config", None)
    out = (options.pop("--out", None) if verb.out else None) or verb.out
    names = {f.name: options.pop(f"--{f.name}", None) or options.pop(f"--{f.name}.name", None) for f in single(kind)}
    texts = {name: options.get(f"--{name}") for name, hint in hints.items() if hint is str}
    file = read(Path(path)) if path else {}
    said = {key: text for key, text in {**texts, **names}.items() if text}
    preferred, operand = base(operands, merge(kind, file, said))
    for key, value in operand.items():
        if operands and said.get(key, value) != value:
            raise ValueError(f"{key} is given twice, as {value} and as --{key} {said[key]}; leave one out")
    values = merge(kind, defaults(kind), preferred, file, operand, said)
    parser = _parser(verb, kind, values)
    actions = {option.removesuffix(".name"): action for action in parser._actions for option in action.option_strings}
    for option in options:
        if option not in actions:
            raise _unknown_option(option, list(actions), values, verb)
        if (value := options[option]) and (kind_of := actions[option].metavar) != "TEXT":
            listing = str(kind_of).startswith("[") and not value.startswith("[")
            value = f"[{value}]" if listing else value
            options[option] = value if "TEXT" in str(kind_of) else FRACTION.sub(quotient, value)
    try:
        parsed = parser.parse_args([o if value is None else f"{o}={value}" for o, value in options.items()]).as_dict()
    except argparse.ArgumentError as error:
        found = re.match(r'Parser key "(.+?)":.*value: (.*)', " ".join(str(error).split()))
        if not found:
            raise ValueError(" ".join(str(error).split())) from None
        raise ValueError(f"--{found[1]} is {found[2]}; expected {actions[f'--{found[1]}'].metavar.lower()}") from None
    parsed.pop("config", None)
    settings = build(kind, parsed)
    _check_whole(plain(settings))
    return settings, operands, Path(out).expanduser()


def _check_whole(value: Any, name: str = "") -> None:
    """Refuse whole numbers that no tensor's index can be. Raises ValueError."""
    if isinstance(value, Mapping | list):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check_whole(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{name} is {value}; give a whole number below 2**63")


_BARE = ("--help", "-h", "--print_config")  # the options without a value


def split(words: Sequence[str], verb: Verb) -> tuple[list[str], dict[str, str | None]]:
    """Tell operands from options; an option without its value gets an empty one, which `parse` refuses."""
    for word in words:
        if "\0" in word or (not word.isascii() and word != word.encode(errors="replace").decode()):
            raise ValueError(f"{word!r} is not valid UTF-8; give another name, or rename the file")
    operands: list[str] = []
    options: dict[str, str | None] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        option = option[:2] + option[2:].replace("-", "_")  # --max-minutes and --max_minutes alike
        if not word.startswith("-"):
            operands.append(word)
        elif option in _BARE and not equals:
            options[option] = None
        else:
            if not equals and rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            options[option] = value
    return operands, options


def _unknown_option(option: str, known: list[str], values: Mapping[str, Any], verb: Verb) -> ValueError:
    group, dot, name = option[2:].partition(".")
    if not dot or group not in values:
        inner = [other for other in known if other.endswith(f".{option[2:]}")]
        listed = f"normwise {verb.name} --help lists them"
        if inner:
            return ValueError(f"no option is named {option!r}; did you mean {' or '.join(map(repr, inner[:3]))}? ({listed})")
        return unknown("option", option, known, listed)
    called = values[group].get("name") if isinstance(values[group], Mapping) else None
    siblings = [other.removeprefix(f"--{group}.") for other in known if other.startswith(f"--{group}.")]
    return unknown(f"option of {group}" + (f" {called!r}" if called else ""), name, siblings)


def _parser(verb: Verb, kind: type, values: Mapping[str, Any]) -> Any:
    """Make the real parser: one typed option per field, and per field of what was chosen."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter):
        def _get_help_string(self, action: Any) -> str:
            shown = action.default not in (None, "", argparse.SUPPRESS) and "(default: " not in (action.help or "")
            return (action.help or "") + " (default: %(default)s)" * shown

        def _format_action_invocation(self, action: Any) -> str:
            return str(super()._format_action_invocation(action)).replace(".name NAME", " NAME")  # a choice is `--norm NAME`

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return text if text == shown else str(super()._fill_text(text, width, indent))

    fields = dataclasses.fields(kind)
    shown = "\n  ".join(["examples:", *EXAMPLES[verb.name]])
    if any(field.name == "data" for field in fields):
        shown += (
            f"\n\ndefaults depend on data and model; to see yours, name them too: normwise {verb.name} --data PATH --help"
        )
    for key in values:
        if key not in [field.name for field in fields]:
            raise unknown(f"setting of {verb.name}", key, [field.name for field in fields])
    usage = verb.usage + (" [--option VALUE ...]" if fields else "")
    parser = ArgumentParser(
        usage=usage, description=verb.description, epilog=shown, exit_on_error=False, formatter_class=Help
    )
    if verb.out:
        what = "folder for the results" if verb.makes == "DIR" else "file"
        parser.add_argument("--out", metavar=verb.makes, default=argparse.SUPPRESS, help=f"{what} (default: {verb.out})")
    if fields:
        parser.add_argument(
            "--config", action="config", metavar="FILE", help="read settings from a YAML file, such as a run's config.yaml"
        )
        printing = next(action for action in parser._actions if "--print_config" in action.option_strings)
        printing.help, printing.metavar = "print the settings as YAML (for --config) and exit", ""
    hints, texts = typing.get_type_hints(kind), option_texts(kind)
    for field in fields:
        name, value, text = field.name, values.get(field.name), texts.get(field.name, "")
        registry = field.metadata.get("registry")
        if registry is not None and field.metadata.get("many"):
            names = [str(one.get("name") if isinstance(one, Mapping) else one) for one in listed(value or [], name)]
            now = "null" if value is None else ", ".join(names)
            says = f"{text}: some of {', '.join(registry)}, or a YAML list of {{name: ..., option: value}} (default: {now})"
            default = [_with_numbers(one, registry) for one in value] if isinstance(value, list) else value
            parser.add_argument(f"--{name}", type=Any, metavar="NAME,...", default=default, help=says)
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


def _with_numbers(choice: Any, registry: Mapping[str, type]) -> Any:
    """A choice with its fractions as numbers, if it is one with options."""
    if not isinstance(choice, Mapping) or choice.get("name") not in registry:
        return choice
    hints = typing.get_type_hints(registry[choice["name"]])
    return {key: with_fractions(value, hints.get(key)) for key, value in choice.items()}


def _add_option(group: Any, name: str, hint: Any, value: Any, text: str) -> None:
    default = with_fractions(value, hint)
    group.add_argument(f"--{name}", type=hint, metavar=wanted(hint), default=default, help=text)


def option_texts(kind: type) -> dict[str, str]:
    """Read what a class's docstring says of each option, inherited docstrings included."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(r"\n {4}Options\n(.*?)(?:\n\n|\Z)", base.__doc__ or "", re.S)
        for block in re.split(r"\n {8}(?=\w)", "\n" + section[1]) if section else ():
            name, _, text = block.strip().partition(" ")
            texts[name] = " ".join(text.split()).replace("%", "%%")
    return texts
