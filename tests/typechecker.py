"""The run-time checker of the tests: shapes and types of every call into normwise; an int is a float (PEP 484).

As jaxtyping's own import hook, and several times faster: a call's arguments are checked once, by beartype, and are bound to no names.
"""

import ast
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass
from functools import wraps
from importlib.machinery import PathFinder, SourceFileLoader
from typing import Any, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import config, jaxtyped

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))


def checked(given: Any) -> Any:
    """A function whose calls are checked, with sizes of one name alike within a call; a dataclass that is checked when it is made."""
    if isinstance(given, type):
        if is_dataclass(given) and "__init__" in vars(given):
            hints, init = dict[str, Any](), given.__init__  # type: ignore[misc]
            with suppress(NameError):  # fields that are inherited are told in the words of the module they come from
                hints = get_type_hints(given, include_extras=True)
            init.__annotations__ |= {name: hints[name] for name in init.__annotations__ if name in hints}
            given.__init__ = checked(init)  # type: ignore[misc]
        return given
    for name, hint in given.__annotations__.items():
        if (
            getattr(hint, "__name__", hint) == "Data"
        ):  # before Python 3.12, to ask whether one is a `Data` is to read its files
            given.__annotations__[name] = object
        elif isinstance(hint, str):
            with suppress(NameError):  # of a class that is not made yet: found when it is called
                given.__annotations__[name] = eval(hint, given.__globals__)
    strict: Callable[..., Any] = _checked(given)

    @wraps(given)
    def within(*args: Any, **options: Any) -> Any:
        if config.jaxtyping_disable:
            return given(*args, **options)
        with jaxtyped("context"):
            return strict(*args, **options)

    return within


class _Loader(SourceFileLoader):
    """Puts `checked` on the functions and classes of a module."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        self._decorate(tree)
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def _decorate(self, within: ast.AST) -> None:
        """Functions inside functions are nobody else's, and would be made checked anew with every call."""
        for node in ast.iter_child_nodes(within):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                decorator = ast.copy_location(ast.parse("__import__('typechecker').checked", mode="eval").body, node)
                first = isinstance(node, ast.ClassDef)  # when it is a dataclass already; a function, before anything else
                node.decorator_list.insert(0 if first else len(node.decorator_list), decorator)
            if not isinstance(node, ast.FunctionDef):
                self._decorate(node)


class _Finder(PathFinder):
    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        found = super().find_spec(fullname, path, target) if fullname.partition(".")[0] == "normwise" else None
        if found and isinstance(found.loader, SourceFileLoader):
            found.loader = _Loader(fullname, found.loader.path)
        return found


def install() -> None:
    """Check normwise from now on; nothing of it may be imported yet."""
    assert "normwise" not in sys.modules
    sys.meta_path.insert(0, _Finder)
