"""Optional dependencies, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def need(extra: str, *modules: str) -> list[Any]:
    """Import modules of an optional extra, in their order. Raises ValueError naming the extra if one is not installed."""
    try:
        return [import_module(module) for module in modules]
    except ModuleNotFoundError as error:
        raise ValueError(f"this needs {error.name}, which is not installed; pip install 'normwise[{extra}]'") from None
