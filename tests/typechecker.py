"""The run-time checker of the tests: shapes and types of every call into normwise; an int is a float (PEP 484)."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check every argument but data sets: before Python 3.12, to ask whether one is a `Data` is to read its files."""
    for name, hint in function.__annotations__.items():
        if getattr(hint, "__name__", hint) == "Data":
            function.__annotations__[name] = object
    return _checked(function)
