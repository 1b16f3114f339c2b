"""Find a network: a run folder, a weights file with its card, or anybody's function that returns one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from . import checkpoints
from .adaptive import Adaptive, abnn
from .checkpoints import CARD, WEIGHTS
from .data.files import brief
from .norms import NORMS
from .surgery import convert


class Loaded(NamedTuple):
    """A network in eval mode, and the card that says how to build it again."""

    model: nn.Module
    card: Mapping[str, Any]


def load(spec: str, weights: str = "") -> Loaded:
    """Find the network that `spec` names: a run folder, a weights file beside its `model.json`, or `package.module:function`.

    The function is called without arguments and returns an nn.Module; modules are looked for in the current folder too.
    `weights` is a safetensors or weights-only file for it. A run folder alone never runs anybody's function.
    Raises ValueError where there is no such network, or the weights do not fit.
    """
    path, found = Path(spec), card(spec, weights)
    made_by, file = found.get("start"), weights or str(path / WEIGHTS if path.is_dir() else path if path.is_file() else "")
    if made_by and path.exists():
        raise ValueError(f"{spec} holds weights of {made_by}; to run that function, write {made_by} --weights {file}")
    model = _call(spec) if made_by else checkpoints.build(found, spec)
    if made_by and found.get("norm"):
        model = convert(model, NORMS.make(found["norm"]))
    if found.get("adaptive"):
        model = _adapted(model, found["adaptive"], spec)
    if file:
        checkpoints.give(model, checkpoints.weights(Path(file)), file)
    return Loaded(model.eval(), found)


def card(spec: str, weights: str = "") -> Mapping[str, Any]:
    """Say how to build the network that `spec` names, as plain data. Raises ValueError where it names none."""
    path = Path(spec)
    if path.is_dir():
        return checkpoints.card(path)
    if path.is_file():
        if not (path.parent / CARD).is_file():
            raise ValueError(f"{spec} has no {CARD} beside it; write package.module:function --weights {spec}")
        return checkpoints.card(path.parent)
    if ":" not in spec:
        raise ValueError(
            f"no model {spec!r}: neither a run folder, nor a weights file, nor package.module:function; give one of these"
        )
    folder = Path(weights).parent
    beside = checkpoints.card(folder) if weights and (folder / CARD).is_file() else {}
    return beside if beside.get("start") == spec else {"start": spec, "norm": None}


def check_models(settings: Any, verb: str) -> None:
    """Refuse no network, one that is named twice, weights that belong to no single function, and no rows. Raises ValueError."""
    if not settings.models:
        raise ValueError(
            f"no model is named; write normwise {verb} MODEL [MODEL ...]: run folders or package.module:function"
        )
    check_once("models", settings.models)
    functions = [spec for spec in settings.models if ":" in spec]
    if settings.weights and len(functions) != 1:
        raise ValueError(f"weights is {settings.weights!r}, for {len(functions)} functions; name one function with it")
    if settings.rows < 1:
        raise ValueError(f"rows is {settings.rows}; give a whole number >= 1")


def check_once(name: str, values: Sequence[Any]) -> None:
    """Refuse values of which one stands twice. Raises ValueError."""
    if len(set(values)) < len(values):
        raise ValueError(f"{name} are {', '.join(map(str, values))}; name each once")


def _adapted(model: nn.Module, around: Mapping[str, Any], spec: str) -> nn.Module:
    """Put the adaptive layers and the substitute of an ABNN's card around its target, untrained. Raises ValueError."""
    try:
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in around["options"].items()
        }
        other, shape = around["substitute"], tuple(around["shape"])
        return abnn(model, other and checkpoints.build(other, spec), Adaptive(**options), shape=shape)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the {CARD} of {spec} describes no adaptive layers ({brief(error)}); restore it, or train again"
        ) from None


def _call(spec: str) -> nn.Module:
    module, _, function = spec.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        model = getattr(importlib.import_module(module), function)()
        if not isinstance(model, nn.Module):
            raise TypeError(f"it returned {type(model).__name__}")
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{spec} gave no network ({brief(error)}); give package.module:function, importable from this "
            "folder, that returns an nn.Module when called without arguments"
        ) from None
    finally:
        sys.path.remove(here)
    return model
