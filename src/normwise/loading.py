"""Find a network: a run folder, a weights file with its card, or anybody's function that returns one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from . import checkpoints


class Loaded(NamedTuple):
    """A network in eval mode; the card of the run that made it, if one did."""

    model: nn.Module
    card: Mapping[str, Any]


def load(spec: str, weights: str = "") -> Loaded:
    """Find the network that `spec` names: a run folder, a weights file beside its `model.json`, or `package.module:function`.

    The function is called without arguments and returns an nn.Module; modules are looked for in the current folder too.
    `weights` is a safetensors or weights-only file for it.
    Raises ValueError where there is no such network, or the weights do not fit.
    """
    path = Path(spec)
    if path.is_dir() or path.is_file():
        folder = path if path.is_dir() else path.parent
        model, card = checkpoints.load(folder)
        if weights or path.is_file():
            checkpoints.give(model, checkpoints.weights(Path(weights) if weights else path), weights or spec)
        return Loaded(model, card)
    if ":" not in spec:
        raise ValueError(
            f"no model {spec!r}: neither a run folder, nor a weights file, nor package.module:function; give one of these"
        )
    model = _call(spec)
    if weights:
        checkpoints.give(model, checkpoints.weights(Path(weights)), weights)
    return Loaded(model.eval(), {})


def _call(spec: str) -> nn.Module:
    module_name, _, function_name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"cannot import {module_name!r} ({error}); run from the folder that holds it, or install it"
        ) from None
    except AttributeError:
        raise ValueError(f"{module_name} has no function {function_name!r}; give package.module:function") from None
    finally:
        sys.path.remove(here)
    model = function()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} returned {type(model).__name__}; it must return an nn.Module")
    return model
