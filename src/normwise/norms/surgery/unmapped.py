"""What surgery could not do: said by the layers it concerns, or refused in one line."""

from __future__ import annotations

import re

import torch
from torch import fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from ..adaptive import AdaptiveNorm
from ..layer import StatNorm
from ..site import KNOWN, known, sites

REMARKS, BEFORE, START = "surgery_remarks", "surgery_before", "surgery_start"


def unmapped(model: nn.Module) -> dict[str, str]:
    """What surgery could not map, in words, by the path of the norm.

    Running statistics that are not known, because the layer converted tracked others, or none (`recalibrate` them, or train;
    of routed norms, each route's); statistics and routes that were dropped, because the new layer has no place for them;
    norms that `convert` left as they are; layers that took a norm's place with another function and have not been trained
    since; norms that `fold` left, and why. Copies remember, state dicts do not.

    >>> from normwise import NORMS, convert
    >>> unmapped(convert(nn.Sequential(nn.BatchNorm2d(8), nn.LayerNorm((6, 6))), NORMS.make("gn")))
    {'0': 'running_mean, running_var dropped', '1': 'LayerNorm left as it is'}
    """
    found = {}
    for path, module in model.named_modules():
        unknown = sorted(module.unknown) if isinstance(module, StatNorm) else []
        said = ([f"{', '.join(unknown)} unknown"] if unknown else []) + [*getattr(module, REMARKS, ())]
        if untrained(module):
            said.append(f"{getattr(module, BEFORE)} before, another function now: fine-tune it")
        if said:
            found[path] = "; ".join(said)
    return found


def remark(layer: nn.Module, text: str) -> None:
    """Note on a layer what surgery could not do, for `unmapped`."""
    setattr(layer, REMARKS, tuple(dict.fromkeys((*getattr(layer, REMARKS, ()), text))))


def remarks(module: nn.Module) -> tuple[str, ...]:
    """What was noted on a module itself."""
    return tuple(getattr(module, REMARKS, ()))


def expect_training(layer: nn.Module, before: str) -> None:
    """Note that a layer computes another function than the norm before it, until its parameters move."""
    setattr(layer, BEFORE, before)
    setattr(layer, START, _values(layer))


def untrained(layer: nn.Module) -> bool:
    """Whether a layer took a norm's place with another function, and its parameters are those that it began with."""
    return hasattr(layer, START) and getattr(layer, START) == _values(layer)


def _values(layer: nn.Module) -> list[list[float]]:
    return [p.tolist() for p in layer.parameters(recurse=False)]


def norm_paths(model: nn.Module) -> list[str]:
    """The paths of all that normalizes features: the sites, and what is called a norm and is of a kind unknown to them."""
    found = sites(model)
    return [path for path, module in model.named_modules() if path in found or _called_norm(module)]


def kind_of(module: nn.Module) -> str:
    """What a module's class is called, with "scripted" before it, or "altered" for a norm that computes otherwise."""
    if isinstance(module, torch.jit.ScriptModule):
        return f"scripted {module.original_name}"
    kind = type_before_parametrizations(module)
    return ("altered " if kind in KNOWN and known(module) is None else "") + kind.__name__


def hidden(model: nn.Module) -> str:
    """A word of advice where layers of the model cannot be seen or changed: scripted and exported ones. Else nothing."""
    compiled = any(isinstance(module, torch.jit.ScriptModule) or _exported(module) for module in model.modules())
    return "; what is scripted or exported cannot be changed: do it before" * compiled


def _exported(module: nn.Module) -> bool:
    nodes = module.graph.nodes if isinstance(module, fx.GraphModule) else ()
    return any(isinstance(node.target, torch._ops.OpOverload) for node in nodes)


def _called_norm(module: nn.Module) -> bool:
    if isinstance(module, StatNorm) or type(module).__module__.startswith("torch.nn.utils"):  # a route's; norms of weights
        return False
    holds = any(True for child in module.children() for _ in child.parameters())  # a block with a norm in it
    return isinstance(module, AdaptiveNorm) or (re.search("Norm(?!al)", kind_of(module)) is not None and not holds)
