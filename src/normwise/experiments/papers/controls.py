"""Controls: networks that show what of a defence's effect is its mechanism, and what is size, features, or pre-training."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ...models import ResNet, ResNet18
from ...models.nfresnet import ScaledStdConv2d
from ...models.resnet import conv
from ...norms import ChannelAffine, StatNorm
from ...norms.surgery.trainable import check_plain
from ...seeding import derive, drawing
from ...types import Norm
from ...utils.model_state import copied, device_of, moved


def randomized(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy with every parameter drawn anew and statistics forgotten: a substitute that knows nothing.

    Layers are drawn as torch draws them when they are made, on the CPU whatever the device; `recalibrate` the copy to give it
    statistics of real images.
    Raises ValueError for a layer that does not know how to start anew, or whose weights are computed (pruned, parametrized).
    """
    device, model = device_of(model), moved(copied(model), "cpu")
    with drawing(derive(seed, "randomized")), torch.no_grad():
        for name, module in model.named_modules():
            check_plain(module)
            if isinstance(module, StatNorm | ChannelAffine):
                for parameter, start in ((module.weight, 1.0), (module.bias, 0.0)):
                    if parameter is not None:
                        parameter.fill_(start)
                if isinstance(module, StatNorm):
                    module.reset_running_stats()
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()
            elif list(module.parameters(recurse=False)):
                raise ValueError(
                    f"{name}, a {type(module).__name__}, has no reset_parameters; build the network anew instead"
                )
    return moved(model, device)


def with_batchnorm(model: nn.Module) -> nn.Module:
    """Put a plain convolution and BatchNorm in place of each standardized convolution of a network without norms.

    The layout stays: what is pre-activated, how shortcuts average, the weight of residual branches, which still start at 0.
    """
    places = [(name, module) for name, module in model.named_modules() if isinstance(module, ScaledStdConv2d)]
    for name, old in places:
        plain = conv(old.in_channels, old.out_channels, old.kernel_size[0], old.stride[0])
        norm = StatNorm(old.out_channels)
        if not bool(old.gain.any()) and norm.weight is not None:
            nn.init.zeros_(norm.weight)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, nn.Sequential(OrderedDict(conv=plain, norm=norm)))
    return model


class Warm(NamedTuple):
    """A network that starts from another's weights; which entries were copied, and which were left as they were."""

    model: nn.Module
    copied: tuple[str, ...]
    left: tuple[str, ...]


def warm_start(target: nn.Module, substitute: nn.Module) -> Warm:
    """Copy the target and give it every weight and buffer of the substitute that has its name and shape.

    The baseline that is fine-tuned from the substitute. Pixel standardization is left as the target has it.
    Raises ValueError where nothing matches.
    """
    model, given = copied(target), substitute.state_dict()
    own = model.state_dict()
    shared = [
        key
        for key, value in own.items()
        if key in given and given[key].shape == value.shape and not key.startswith("standardize.")
    ]
    if not shared:
        raise ValueError(
            f"no weight of the substitute ({type(substitute).__name__}) has the name and shape of one of the target "
            f"({type(target).__name__}); give a substitute of the target's architecture"
        )
    model.load_state_dict(own | {key: given[key] for key in shared})
    return Warm(model, tuple(shared), tuple(key for key in own if key not in shared))


def nearest_width(
    parameters: int,
    choice: ResNet | ResNet18 | None = None,
    *,
    norm: Norm | None = None,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Any:
    """Return the choice with the width at which its network's number of parameters is nearest to `parameters`.

    The control of equal size: count all of the ABNN's, substitute included, or those that train, and say which.
    `choice` is a network with an option `width` (default: ResNet-20). Raises ValueError for a number below 1.

    >>> nearest_width(270_000, classes=10, mean=(0.5,) * 3, std=(0.5,) * 3).width
    16
    """
    if parameters < 1:
        raise ValueError(f"parameters is {parameters}; give the number to come near to, >= 1")
    choice = choice or ResNet()

    def count(width: int) -> int:
        with torch.device("meta"):
            model = dataclasses.replace(choice, width=width)(norm, classes=classes, mean=mean, std=std)
        return sum(p.numel() for p in model.parameters())

    high = 1
    while count(high) < parameters:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    best = min({max(low, 1), high}, key=lambda width: abs(count(width) - parameters))
    return dataclasses.replace(choice, width=best)
