"""Controls: networks that show what of a defence's effect is its mechanism, and what is size, features, or pre-training."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from ...models.nfresnet import ScaledStdConv2d
from ...models.resnet import conv
from ...norms import ChannelAffine, StatNorm
from ...norms.surgery.trainable import check_plain
from ...seeding import derive, drawing
from ...utils.model_state import copied, device_of, moved


def randomized(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy with every parameter drawn anew and statistics forgotten: a substitute that knows nothing.

    Layers are drawn as torch draws them when they are made, on the CPU whatever the device; `recalibrate` the copy to give
    it statistics of real images. Raises ValueError for a layer that does not know how to start anew, or whose weights are
    computed (pruned, parametrized).
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
