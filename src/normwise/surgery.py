"""Change the norms of a network: a new model comes out, the one given stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .modes import device_of, frozen, running
from .norms.layer import StatNorm
from .norms.site import sites
from .types import Norm, Site


def convert(model: nn.Module, norm: Norm) -> nn.Module:
    """Return a copy of the model with every norm layer replaced by what `norm` makes.

    Scale, shift, and the running statistics that both layers know are taken over, and so are each layer's mode, dtype,
    device and `requires_grad`; a layer tied to several places stays tied. A running range that the old layer did not
    track is marked unknown: `recalibrate` it, or train. LayerNorm is left alone (it normalizes tokens, not channels), and so is
    a frozen substitute.

    Raises ValueError if the model has no norm layer to replace.

    >>> from normwise.norms import GN
    >>> convert(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)), GN(groups=4))[1].num_groups
    4
    """
    model = copy.deepcopy(model)
    fixed = frozen(model)
    known = {path: site for path, site in sites(model).items() if model.get_submodule(path) not in fixed}
    paths = [path for path in known if not isinstance(model.get_submodule(path), nn.LayerNorm)]
    if not paths:
        kinds = sorted({type(module).__name__ for module in model.modules()} - {type(model).__name__})
        raise ValueError(f"{type(model).__name__} has no norm layer to convert; it has: {', '.join(kinds) or 'no layers'}")
    made: dict[nn.Module, nn.Module] = {}
    for path in paths:
        old = model.get_submodule(path)
        if old not in made:
            made[old] = _adopt(norm(Site(known[path].channels, path)), old)
        if not path:
            return made[old]
        parent, _, child = path.rpartition(".")
        model.get_submodule(parent)._modules[child] = made[old]
    return model


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Return a copy of the model whose running statistics are the plain average over the batches of images.

    Only layers that track statistics are put in training mode, so that dropout stays off; a frozen substitute keeps its own.
    Raises ValueError for no batches.
    """
    model = copy.deepcopy(model)
    fixed = frozen(model)
    tracking = [m for m in model.modules() if isinstance(m, StatNorm | nn.modules.batchnorm._BatchNorm) and m not in fixed]
    momenta = [module.momentum for module in tracking]
    seen = False
    with running(model, "eval"), torch.no_grad():
        for module in tracking:
            module.reset_running_stats()
            module.momentum = None
            module.train()
        for x in batches:
            model(x.to(device_of(model)))
            seen = True
    for module, momentum in zip(tracking, momenta, strict=True):
        module.momentum = momentum
    if not seen:
        raise ValueError("recalibrate got no batches; give at least one batch of images")
    return model


def _adopt(new: nn.Module, old: nn.Module) -> nn.Module:
    """Give a new layer what it shares with the old one."""
    values = old.state_dict()
    own = new.state_dict()
    for name, tensor in own.items():
        if name in values and values[name].shape == tensor.shape:
            own[name] = values[name]
    for name, parameter in new.named_parameters():
        twin = getattr(old, name, None)
        parameter.requires_grad_(twin.requires_grad if isinstance(twin, Tensor) else parameter.requires_grad)
    place = next((t for t in (*old.parameters(), *old.buffers()) if t.is_floating_point()), None)
    if place is not None:
        new.to(device=place.device, dtype=place.dtype)
    new.load_state_dict(own)
    if isinstance(new, StatNorm) and f"running_{new._measure.spread}" not in values:
        new.expect_recalibration(True)
    return new.train(old.training)
