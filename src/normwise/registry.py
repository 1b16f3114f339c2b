"""Choose a class by name, and turn a choice into plain data and back.

A choice is a frozen dataclass with a `name`. A package's `__init__` imports its choices and ends with
`ATTACKS = Registry("attack", __name__, vars())`: the import line is the registry line.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

FRACTION = re.compile(r"(?<![\w./])(\d+(?:\.\d*)?)/(\d+(?:\.\d*)?)(?![\w./])")


def unknown(kind: str, name: object, known: Mapping[str, object] | list[str], listed: str = "") -> ValueError:
    """Make the error for a name that is not known: what was asked, what is near, what there is (or where it is `listed`)."""
    choices = known if isinstance(known, Mapping) else {}
    words = {_title(choices[one]): one for one in sorted(choices, key=len, reverse=True)} | {one: one for one in known}
    near = difflib.get_close_matches(str(name).lower(), list(words), n=1, cutoff=0.5)
    hint = f"; did you mean {words[near[0]]!r}?" if near else ""
    listed = listed or f"known: {', '.join(sorted(known)) or 'none'}"
    return ValueError(f"no {kind} is named {str(name)!r}{hint} ({listed})")


def _title(choice: object) -> str:
    """The long name of a choice, for those who ask for it: the first word of its docstring, such as groupnorm."""
    return str(choice.__doc__ or "-").split()[0].strip(":,.;").lower()


class Registry(Mapping[str, type]):
    """The choices of one kind, by name.

    Takes the classes of `namespace` that were defined under `package` and carry a `name`; refuses two equal names.
    Third parties add theirs with `ATTACKS.add(Mine)`.
    """

    def __init__(self, kind: str, package: str, namespace: Mapping[str, Any]) -> None:
        self.kind = kind
        self._classes: dict[str, type] = {}
        for value in namespace.values():
            if isinstance(value, type) and value.__module__.startswith(package) and isinstance(vars(value).get("name"), str):
                self.add(value)

    def add(self, choice: type) -> type:
        """Register a class under its `name` (usable as a decorator). Raises ValueError if the name is taken."""
        name: str = choice.name  # type: ignore[attr-defined]
        if self._classes.setdefault(name, choice) is not choice:
            raise ValueError(
                f"two {self.kind}s are named {name!r}: {self._classes[name].__qualname__} and {choice.__qualname__}"
            )
        return choice

    def __getitem__(self, name: str) -> type:
        try:
            return self._classes[name]
        except (KeyError, TypeError):
            raise unknown(self.kind, name, self._classes) from None

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def make(self, spec: str | Mapping[str, Any] | Any) -> Any:
        """Build a choice from its name, from `{"name": ..., option: value}`, or return a choice as it is.

        Raises ValueError for an unknown name or option, and for a value of the wrong type.
        """
        if isinstance(spec, str):
            spec = {"name": spec}
        if dataclasses.is_dataclass(spec):
            return spec
        if not isinstance(spec, Mapping):
            raise unknown(self.kind, spec, self._classes)
        options = dict(spec)
        if "name" not in options:
            raise ValueError(f"this {self.kind} has no name: {options}; write {{name: ..., option: value}}")
        choice = self[options.pop("name")]
        known = [field.name for field in dataclasses.fields(choice)]
        for option in options:
            if option not in known:
                raise unknown(f"option of {self.kind} {spec['name']!r}", option, known)
        hints = typing.get_type_hints(choice)
        of = f"of {self.kind} {spec['name']!r}"
        return choice(**{key: typed(value, hints[key], f"{key} {of}") for key, value in options.items()})


def typed(value: Any, hint: Any, called: str) -> Any:
    """Return plain data as its type wants it: a list as a tuple, whole numbers and fractions as floats. Raises ValueError if it cannot be."""
    value = with_fractions(value, hint)
    value = tuple(value) if isinstance(value, list) else value
    if not fits(value, hint):
        raise ValueError(f"{called} is {value!r}; expected {wanted(hint).lower()}")
    return float(value) if hint is float else value


def with_fractions(value: Any, hint: Any) -> Any:
    """Plain data with a text such as 8/255 as a number, where its type is one and no text. Raises ValueError for a division by zero.

    >>> with_fractions("1/8", float), with_fractions("1/8", str), with_fractions(["1/8", 1], tuple[float, ...])
    (0.125, '1/8', [0.125, 1])
    """
    parts = typing.get_args(hint)
    if isinstance(value, list):
        inner = next((typing.get_args(one)[0] for one in (hint, *parts) if typing.get_origin(one) is tuple), None)
        return [with_fractions(one, inner) for one in value]
    number = float in (hint, *parts) and str not in parts
    if number and isinstance(value, str) and FRACTION.fullmatch(value.removeprefix("-")):
        return float(FRACTION.sub(quotient, value))
    return value


def quotient(match: re.Match[str]) -> str:
    """Write a fraction as a number. Raises ValueError for a division by zero."""
    if float(match[2]) == 0:
        raise ValueError(f"{match[0]} divides by zero; give a number such as 8/255")
    return repr(float(match[1]) / float(match[2]))


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a simple type: int, float (an int is one), str, bool, None, Literal, tuple, list, dict, or a union."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin in (dict, list):
        return isinstance(value, origin)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, parts[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint or type(None)) if isinstance(hint, type) or hint is None else True


def check_words(choice: Any) -> None:
    """Refuse a word that an option does not know, where the option's type is a Literal. Raises ValueError."""
    of = f" of {choice.name}" if hasattr(choice, "name") else ""
    for option, hint in _words(choice.__class__).items():
        if (value := getattr(choice, option)) not in typing.get_args(hint):
            raise ValueError(f"{option}{of} is {value!r}; give {' or '.join(map(repr, typing.get_args(hint)))}")


@cache
def _words(kind: Any) -> dict[str, Any]:
    return {option: hint for option, hint in typing.get_type_hints(kind).items() if typing.get_origin(hint) is Literal}


def wanted(hint: Any) -> str:
    """Say what `fits` a type, in one word.

    >>> wanted(float | None), wanted(tuple[int, ...]), wanted(Literal["sgd", "adamw"])
    ('NUMBER|null', '[INTEGER,...]', 'sgd|adamw')
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return "|".join(map(wanted, parts))
    if origin is Literal:
        return "|".join(map(str, parts))
    if origin is tuple:
        return f"[{wanted(parts[0])},...]"
    names = {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: "true|false", type(None): "null"}
    return names.get(hint, str(getattr(hint, "__name__", hint)))


def plain(value: Any) -> Any:
    """Turn choices (nested, in tuples, in mappings) into data that YAML and JSON know; `Registry.make` reads it back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {"name": value.name} if hasattr(value, "name") else {}
        return named | {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return _number(value)


def _number(value: Any) -> Any:
    """A number of numpy or torch as one of Python; all else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


DIGEST_VERSION = 2  # of digests and random draws: raise it where a default, or what an option does, changes


def without_defaults(value: Any) -> Any:
    """The same as `plain`, with only the options that differ from their default: what digests and random draws stand on.

    So an option that is added with a default changes none of them. What cannot be written so is given by its name.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if not _is_default(value, field)
        }
        return {"name": getattr(value, "name", type(value).__name__)} | {
            name: without_defaults(item) for name, item in given.items()
        }
    if isinstance(value, Mapping):
        return {str(key): without_defaults(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [without_defaults(item) for item in value]
    value = _number(value)
    return (
        value if value is None or isinstance(value, bool | int | float | str) else str(getattr(value, "label", type(value)))
    )


def digest_text(value: Any) -> str:
    """A choice as one line that an option added with a default leaves as it is.

    >>> from normwise.attacks import PGD
    >>> digest_text(PGD(steps=5, restarts=1))
    '{"name": "pgd", "steps": 5}'
    """
    return json.dumps(without_defaults(value), sort_keys=True)


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _is_default(value: Any, field: dataclasses.Field) -> bool:
    return bool(getattr(value, field.name) == _default(field))


def changed(before: Any, now: Any, name: str = "") -> str:
    """Say the first thing by which choices differ from plain data that was kept of them; nothing where they are the same.

    An option that the data lacks counts as its default: it was added later. See `difference`.
    """
    if isinstance(before, Mapping) and dataclasses.is_dataclass(now) and not isinstance(now, type):
        known = {field.name: field for field in dataclasses.fields(now)}
        then = {key: plain(_default(one)) for key, one in known.items() if one.default is not dataclasses.MISSING} | dict(
            before
        )
        given = {"name": now.name} if hasattr(now, "name") else {}
        given |= {key: getattr(now, key) for key in known}
        found = (changed(then.get(key), given.get(key), f"{name}.{key}") for key in {**given, **then})
        return next(filter(None, found), "")
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return next(filter(None, (changed(before.get(key), now.get(key), f"{name}.{key}") for key in {**before, **now})), "")
    if isinstance(before, list) and isinstance(now, tuple | list) and len(before) == len(now):
        found = (changed(one, other) for one, other in zip(before, now, strict=True))
        return f"{name[1:]} was {_short(before)}, not {_short(plain(now))}" if any(found) else ""
    return difference(before, as_json(now), name)


def as_json(value: Any) -> Any:
    """Plain data as JSON reads it back. Raises ValueError for what JSON cannot hold."""
    try:
        return json.loads(json.dumps(plain(value)))
    except TypeError as error:
        raise ValueError(
            f"a folder cannot keep these settings ({error}); give frozen dataclasses with plain values, or no folder"
        ) from None


def difference(before: Any, now: Any, name: str = "") -> str:
    """Say the first thing by which plain data differs from what it was; nothing where it is the same.

    >>> difference({"seed": 0, "schedule": {"lr": 0.1}}, {"seed": 0, "schedule": {"lr": 0.2}})
    'schedule.lr was 0.1, not 0.2'
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = (difference(before.get(key), now.get(key), f"{name}.{key}") for key in {**before, **now})
        return next(filter(None, found), "")
    return "" if before == now else f"{name[1:]} was {_short(before)}, not {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:77]}..."
