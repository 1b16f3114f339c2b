"""What cells begin with, and how they train: networks before training, and recipes of a scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import nn

from ...attacks import PGD
from ...models import NFResNet, ResNet, ResNet18, inflate
from ...models.abnn import Adaptive, abnn
from ...models.nfresnet import NFNetwork
from ...norms import BN
from ...norms.surgery.conversion import convert, recalibrate
from ...seeding import generator
from ...threats import Linf
from ...training.recipes import Adversarial, AlignedBN, Standard
from ...types import Norm, Recipe
from ...utils.model_state import device_of
from .cell import built
from .controls import randomized, with_batchnorm
from .scale import Scale


def converted(norm: Norm) -> Callable[..., nn.Module]:
    """The trained network of the cell that is needed, with another norm in each place."""
    return lambda scale, model: convert(model, norm)


def standard(scale: Scale) -> Recipe:
    """Training on clean images."""
    return Standard()


def adversarial(**options: Any) -> Callable[[Scale], Recipe]:
    """PGD adversarial training with the scale's steps."""
    return lambda scale: Adversarial(steps=scale.steps, **options)


def given(scale: Scale, model: nn.Module) -> nn.Module:
    """The trained network of the cell that is needed, as it is."""
    return model


def free(scale: Scale) -> nn.Module:
    """The network without norms of the scale's shape.

    Beside PreActResNet-18 it has that one's stem, four stages of two basic blocks and widths, as the paper sets nf_resnet50
    beside ResNet-50: as many parameters and multiplications, but for gains and biases. `nfresnet` has three stages, with
    which it would be a third as large or three times as slow; `nfresnet26` is for 224 pixels, of which its stem keeps a
    quarter.
    """
    d, model = scale.data, scale.model
    if isinstance(model, ResNet):
        size = NFResNet(depth=model.depth, width=model.width)
        return size(None, classes=d.classes, mean=d.mean, std=d.std)
    return NFNetwork(
        large=False,
        stem=model.width,
        widths=[model.width * 2**stage for stage in range(4)],
        depths=(2, 2, 2, 2),
        classes=d.classes,
        mean=d.mean,
        std=d.std,
        alpha=0.2,
        drop_path=0.0,
        dropout=0.0,
    )


def recipe(kind: Callable[..., Recipe], **options: Any) -> Callable[[Scale], Recipe]:
    """A recipe that crafts with the scale's steps."""
    return lambda scale: kind(steps=scale.steps, **options)


def narrow(scale: Scale) -> nn.Module:
    """The network with a quarter of the channels: what the scale's own is four times as wide as."""
    return built(BN())(replace(scale, model=replace(scale.model, width=max(1, scale.model.width // 4))))


def retracked(scale: Scale, model: nn.Module) -> nn.Module:
    """The standard network with running statistics of adversarial images, and nothing trained."""
    rng, attack = generator(0, "retracked"), PGD(steps=scale.steps, keep="last")
    rows = islice(scale.data.train(batch_size=250, generator=rng), 8)
    model, device = model.eval(), device_of(model)
    given = ((x.to(device), y.to(device)) for x, y, _ in rows)
    return recalibrate(model, [attack(model, x, y, Linf(eps=scale.eps), generator=rng).x_adv for x, y in given])


def deep(scale: Scale) -> nn.Module:
    """The scale's network at depth 20, or as deep as it is."""
    model = scale.model
    return built(BN())(
        replace(scale, model=replace(model, depth=max(20, model.depth))) if isinstance(model, ResNet) else scale
    )


def normalized(scale: Scale) -> nn.Module:
    """The layout of the network without norms, with BatchNorm behind each convolution in place of standardized weights."""
    return with_batchnorm(free(scale))


def as_large(scale: Scale, substitute: nn.Module) -> nn.Module:
    """A network of the same kind with about as many parameters as the ABNN, its substitute included."""
    wanted = sum(p.numel() for p in listening()(scale, substitute).parameters())
    widths = [
        replace(scale, model=replace(scale.model, width=width)) for width in range(scale.model.width, 3 * scale.model.width)
    ]
    made = (built(BN())(one) for one in widths)
    return min(made, key=lambda model: abs(sum(p.numel() for p in model.parameters()) - wanted))


def listening(**options: Any) -> Callable[..., nn.Module]:
    """A fresh target that listens to the network of the cell that is needed."""

    def begin(scale: Scale, substitute: nn.Module) -> nn.Module:
        other = None if options.get("source") == "plain" else substitute
        return abnn(built(BN())(scale), other, Adaptive(**options), shape=scale.data.shape)

    return begin


def stranger(scale: Scale, substitute: nn.Module) -> nn.Module:
    """A fresh target, and a substitute that was never trained."""
    return abnn(built(BN())(scale), randomized(substitute), shape=scale.data.shape)


def aligned(scale: Scale) -> Recipe:
    """The training of adaptive layers."""
    return AlignedBN()


def pictures(width: int) -> Callable[..., nn.Module]:
    """A network for images whose weights inflate to `resnet3d` of depth 18 and this width."""

    def begin(scale: Scale) -> nn.Module:
        return built(BN())(replace(scale, model=ResNet18(width=width)))

    return begin


def inflated(scale: Scale, images: nn.Module) -> nn.Module:
    """A fresh network for clips that listens to the network for images of the cell that is needed, inflated to clips."""
    assert isinstance(images.linear, nn.Linear)
    d = scale.data
    substitute = scale.model(BN(), classes=images.linear.out_features, mean=d.mean, std=d.std)
    inflate(images.state_dict(), substitute)
    return abnn(built(BN())(scale), substitute, shape=d.shape)
