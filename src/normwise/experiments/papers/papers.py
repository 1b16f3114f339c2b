"""The cells of the four papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import nn

from ...attacks import PGD
from ...models import NFResNet, ResNet
from ...models.abnn import Adaptive, abnn
from ...models.nfresnet import NFNetwork
from ...norms import BN, BNM, GN, LN, MBN, RN, RNM, RNT, BNwoT, MeanOnly, PowerBN, on_route
from ...norms.surgery.conversion import convert, recalibrate
from ...norms.surgery.trainable import redrawn_scales, shuffled
from ...seeding import generator
from ...threats import Linf
from ...training.recipes import FGSMRS, NFGSM, TRADES, Adversarial, AlignedBN, Mixed, NoFrost, NoFrostStar, Routes, Standard
from ...types import Norm, Recipe
from ...utils.model_state import device_of
from .cell import Cell, built
from .controls import randomized
from .scale import Scale

SYSTEMS = ("robustnorm", "nofrost", "fragile-features", "abnn")


def _converted(norm: Norm) -> Callable[..., nn.Module]:
    return lambda scale, model: convert(model, norm)


def _standard(scale: Scale) -> Recipe:
    return Standard()


def _adversarial(**options: Any) -> Callable[[Scale], Recipe]:
    return lambda scale: Adversarial(steps=scale.steps, **options)


def _given(scale: Scale, model: nn.Module) -> nn.Module:
    return model


ROBUSTNORM = (
    Cell(name="bn-standard", system="robustnorm", about="BatchNorm, trained on clean images", begin=built(BN()), recipe=_standard, clean=True, extras=("drift", "legacy")),
    Cell(name="bn-half", system="robustnorm", about="BatchNorm, trained half as long", begin=built(BN()), recipe=_standard, clean=True, part=0.5),
    Cell(name="bn-quarter", system="robustnorm", about="BatchNorm, trained a quarter as long", begin=built(BN()), recipe=_standard, clean=True, part=0.25),
    Cell(name="bn-eighth", system="robustnorm", about="BatchNorm, trained an eighth as long", begin=built(BN()), recipe=_standard, clean=True, part=0.125),
    Cell(name="bnwot", system="robustnorm", about="the same, reading the batch at inference", begin=_converted(BNwoT()), needs=("bn-standard",), extras=("legacy",)),
    Cell(name="rnt-standard", system="robustnorm", about="RobustNorm, tracked", begin=built(RNT()), recipe=_standard, clean=True, extras=("legacy",)),
    Cell(name="rn", system="robustnorm", about="the same, reading the batch at inference", begin=_converted(RN()), needs=("rnt-standard",), extras=("legacy",)),
    Cell(name="bnm", system="robustnorm", about="BatchNorm with the batch's variance", begin=_converted(BNM()), needs=("bn-standard",)),
    Cell(name="rnm", system="robustnorm", about="RobustNorm with the batch's range", begin=_converted(RNM()), needs=("rnt-standard",)),
    Cell(name="gn-standard", system="robustnorm", about="GroupNorm", begin=built(GN()), recipe=_standard, clean=True),
    Cell(name="ln-standard", system="robustnorm", about="LayerNorm", begin=built(LN()), recipe=_standard, clean=True),
    Cell(name="meanonly-standard", system="robustnorm", about="control: the mean alone", begin=built(MeanOnly()), recipe=_standard, clean=True),
    Cell(name="powerbn-standard", system="robustnorm", about="control: deviation to the 0.2", begin=built(PowerBN()), recipe=_standard, clean=True),
)  # fmt: skip


def _free(scale: Scale) -> nn.Module:
    """The network without norms of the scale's shape.

    Beside PreActResNet-18 it has that one's stem, four stages of two basic blocks and widths, as the paper sets nf_resnet50
    beside ResNet-50: as many parameters and multiplications, but for gains and biases. `nfresnet` has three stages, with which
    it would be a third as large or three times as slow; `nfresnet26` is for 224 pixels, of which its stem keeps a quarter.
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


def _recipe(kind: Callable[..., Recipe], **options: Any) -> Callable[[Scale], Recipe]:
    return lambda scale: kind(steps=scale.steps, **options)


def _narrow(scale: Scale) -> nn.Module:
    """The network with a quarter of the channels: what the scale's own is four times as wide as."""
    return built(BN())(replace(scale, model=replace(scale.model, width=max(1, scale.model.width // 4))))


def _retracked(scale: Scale, model: nn.Module) -> nn.Module:
    """The standard network with running statistics of adversarial images, and nothing trained."""
    rng, attack = generator(0, "retracked"), PGD(steps=scale.steps, keep="last")
    rows = islice(scale.data.train(batch_size=250, generator=rng), 8)
    model, device = model.eval(), device_of(model)
    given = ((x.to(device), y.to(device)) for x, y, _ in rows)
    return recalibrate(model, [attack(model, x, y, Linf(eps=scale.eps), generator=rng).x_adv for x, y in given])


def _as_large(scale: Scale, substitute: nn.Module) -> nn.Module:
    """A network of the same kind with about as many parameters as the ABNN, its substitute included."""
    wanted = sum(p.numel() for p in _abnn()(scale, substitute).parameters())
    widths = [
        replace(scale, model=replace(scale.model, width=width)) for width in range(scale.model.width, 3 * scale.model.width)
    ]
    made = (built(BN())(one) for one in widths)
    return min(made, key=lambda model: abs(sum(p.numel() for p in model.parameters()) - wanted))


NOFROST = (
    Cell(name="bn-at", system="nofrost", about="BatchNorm, PGD adversarial training", begin=built(BN()), recipe=_adversarial(), extras=("smoothness",)),
    Cell(name="bn-mixed", system="nofrost", about="BatchNorm, clean and adversarial images in two forwards", begin=built(BN()), recipe=_recipe(Mixed), extras=("smoothness",)),
    Cell(name="nofrost", system="nofrost", about="no norms, the same loss", begin=_free, recipe=_recipe(NoFrost), extras=("smoothness",)),
    Cell(name="nofrost-star", system="nofrost", about="the same, with augmented streams", begin=_free, recipe=_recipe(NoFrostStar), extras=("smoothness",)),
    Cell(name="nofrost-plain-labels", system="nofrost", about="the same without label smoothing", begin=_free, recipe=_recipe(NoFrost, label_smoothing=0.0), extras=("smoothness",)),
    Cell(name="nf-standard", system="nofrost", about="no norms, trained on clean images", begin=_free, recipe=_standard, clean=True, extras=("smoothness",)),
    Cell(name="nf-at", system="nofrost", about="no norms, PGD adversarial training", begin=_free, recipe=_adversarial(), extras=("smoothness",)),
    Cell(name="bn-concatenated", system="nofrost", about="BatchNorm, both halves in one forward", begin=built(BN()), recipe=_recipe(Mixed, batches="concatenated")),
    Cell(name="bn-mixed-train-crafted", system="nofrost", about="BatchNorm, attacked in training mode", begin=built(BN()), recipe=_recipe(Mixed, craft_in="train")),
    Cell(name="gn-mixed", system="nofrost", about="GroupNorm, clean and adversarial images", begin=built(GN()), recipe=_recipe(Mixed)),
    Cell(name="mbn-clean", system="nofrost", about="mixture BatchNorm, clean route", begin=built(MBN()), recipe=_recipe(Routes)),
    Cell(name="mbn-adversarial", system="nofrost", about="the same, adversarial route", begin=lambda scale, model: on_route(model, 1), needs=("mbn-clean",)),
    Cell(name="trades", system="nofrost", about="BatchNorm, TRADES", begin=built(BN()), recipe=_recipe(TRADES)),
    Cell(name="fgsm-rs", system="nofrost", about="BatchNorm, one step from a random start", begin=built(BN()), recipe=lambda scale: FGSMRS()),
    Cell(name="n-fgsm", system="nofrost", about="BatchNorm, one step from wide noise", begin=built(BN()), recipe=lambda scale: NFGSM()),
    Cell(name="bn-standard-corrupted", system="nofrost", about="BatchNorm, trained on clean images, under 15 corruptions", begin=_given, needs=("bn-standard",), under="corruptions"),
    Cell(name="nofrost-corrupted", system="nofrost", about="no norms under 15 corruptions", begin=_given, needs=("nofrost",), under="corruptions"),
    Cell(name="nofrost-star-corrupted", system="nofrost", about="no norms, with augmented streams, under 15 corruptions", begin=_given, needs=("nofrost-star",), under="corruptions"),
)  # fmt: skip


FRAGILE = (
    Cell(name="affine-fragile", system="fragile-features", about="BatchNorm's parameters alone, from the standard network", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="affine-fragile-long", system="fragile-features", about="the same, twice as long, at up to ten times the learning rate", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="affine"), sweep=True, rates=(3e-3, 1e-2, 3e-2, 1e-1), apart=True),
    Cell(name="affine-random", system="fragile-features", about="BatchNorm's parameters alone, from random weights", begin=built(BN()), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="affine-random-uniform", system="fragile-features", about="the same, scales from U(0, 1)", begin=lambda scale: redrawn_scales(built(BN())(scale)), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="affine-random-narrow", system="fragile-features", about="the same from 1, a quarter as wide", begin=_narrow, recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="affine-undecayed-fragile", system="fragile-features", about="from the standard network, no weight decay on scales and shifts", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="affine"), sweep=True, part=0.5, decayed=False),
    Cell(name="affine-undecayed-random", system="fragile-features", about="from random weights, no weight decay on scales and shifts", begin=built(BN()), recipe=_adversarial(trains="affine"), sweep=True, part=0.5, decayed=False),
    Cell(name="bn-standard-narrow", system="fragile-features", about="BatchNorm, a quarter as wide, trained on clean images", begin=_narrow, recipe=_standard, clean=True),
    Cell(name="affine-narrow-fragile", system="fragile-features", about="BatchNorm's parameters alone, from the narrow standard network", begin=_given, needs=("bn-standard-narrow",), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="affine-first-fragile", system="fragile-features", about="the first three norms alone", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="affine", first=3), sweep=True, part=0.5),
    Cell(name="affine-last-fragile", system="fragile-features", about="the last three norms alone", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="affine", last=3), sweep=True, part=0.5),
    Cell(name="statistics-fragile", system="fragile-features", about="control: running statistics of adversarial images, nothing trained", begin=_retracked, needs=("bn-standard",)),
    Cell(name="affine-shuffled", system="fragile-features", about="control: from the standard network with shuffled convolutions", begin=lambda scale, model: shuffled(model), needs=("bn-standard",), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="affine-robust", system="fragile-features", about="control: from the adversarially trained network", begin=_given, needs=("bn-at",), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="scale-fragile", system="fragile-features", about="scales alone", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="scale"), sweep=True, part=0.5),
    Cell(name="shift-fragile", system="fragile-features", about="shifts alone", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="shift"), sweep=True, part=0.5),
    Cell(name="affine-head-fragile", system="fragile-features", about="BatchNorm's parameters and the last layer", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="affine+head"), sweep=True, part=0.5),
    Cell(name="affine-frozen-fragile", system="fragile-features", about="clean statistics kept", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="affine", statistics="frozen"), sweep=True, part=0.5),
    Cell(name="affine-recalibrated-fragile", system="fragile-features", about="statistics read from adversarial images once, then kept", begin=_retracked, needs=("bn-standard",), recipe=_adversarial(trains="affine", statistics="frozen"), sweep=True, part=0.5),
    Cell(name="head-fragile", system="fragile-features", about="control: the last layer alone", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="head"), sweep=True, part=0.5),
    Cell(name="subset-fragile", system="fragile-features", about="control: as many random weights", begin=_given, needs=("bn-standard",), recipe=_adversarial(trains="subset"), sweep=True, part=0.5),
    Cell(name="full-fragile", system="fragile-features", about="control: all parameters, fine-tuned", begin=_given, needs=("bn-standard",), recipe=_adversarial(), sweep=True, part=0.5),
    Cell(name="full-random", system="fragile-features", about="control: all parameters, from random weights", begin=built(BN()), recipe=_adversarial(), sweep=True, part=0.5),
    Cell(name="clean-affine", system="fragile-features", about="control: BatchNorm's parameters on clean images", begin=_given, needs=("bn-standard",), recipe=lambda scale: Standard(trains="affine"), sweep=True, part=0.5),
    Cell(name="gn-affine-fragile", system="fragile-features", about="control: GroupNorm's parameters, from its standard network", begin=_given, needs=("gn-standard",), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
    Cell(name="ln-affine-fragile", system="fragile-features", about="control: LayerNorm's parameters, from its standard network", begin=_given, needs=("ln-standard",), recipe=_adversarial(trains="affine"), sweep=True, part=0.5),
)  # fmt: skip


def _abnn(**options: Any) -> Callable[..., nn.Module]:
    """A fresh target, and the standard network as its substitute: CIFAR-10 itself, not other or larger data."""

    def begin(scale: Scale, substitute: nn.Module) -> nn.Module:
        other = None if options.get("source") == "plain" else substitute
        return abnn(built(BN())(scale), other, Adaptive(**options), shape=scale.data.shape)

    return begin


def _stranger(scale: Scale, substitute: nn.Module) -> nn.Module:
    return abnn(built(BN())(scale), randomized(substitute), shape=scale.data.shape)


def _aligned(scale: Scale) -> Recipe:
    return AlignedBN()


ABNN = (
    Cell(name="abnn", system="abnn", about="the authors' layer: per-sample scale and shift from pooled features, batch-wide moments; substitute: bn-standard, of CIFAR-10 itself", begin=_abnn(), needs=("bn-standard",), recipe=_aligned, clean=True, extras=("detached",)),
    Cell(name="abnn-sample", system="abnn", about="the same, moments of each sample", begin=_abnn(scope="sample"), needs=("bn-standard",), recipe=_aligned, clean=True, extras=("detached", "fixed")),
    Cell(name="abnn-statistics", system="abnn", about="our reading of the abstract: delivered statistics replace the target's", begin=_abnn(source="statistics", scope="sample"), needs=("bn-standard",), recipe=_aligned, clean=True, extras=("detached", "fixed")),
    Cell(name="abnn-constant", system="abnn", about="control: delivered statistics are running averages", begin=_abnn(source="constant"), needs=("bn-standard",), recipe=_aligned, clean=True),
    Cell(name="abnn-random", system="abnn", about="control: a substitute that was never trained", begin=_stranger, needs=("bn-standard",), recipe=_aligned, clean=True),
    Cell(name="abnn-plain", system="abnn", about="control: one more BatchNorm at each tap", begin=_abnn(source="plain"), needs=("bn-standard",), recipe=_aligned, clean=True),
    Cell(name="abnn-patch", system="abnn", about="the authors' layer under patches", begin=_given, needs=("abnn",), under="patch"),
    Cell(name="bn-standard-patch", system="abnn", about="the undefended network under patches", begin=_given, needs=("bn-standard",), under="patch"),
    Cell(name="fine-tuned", system="abnn", about="baseline: the substitute trained further as the target", begin=_given, needs=("bn-standard",), recipe=_standard, clean=True, part=0.5),
    Cell(name="as-large", system="abnn", about="control: one network with as many parameters as target and substitute", begin=_as_large, needs=("bn-standard",), recipe=_standard, clean=True),
    Cell(name="other-standard", system="abnn", about="a substitute trained, and here judged, on other data: 20 classes of Tiny-ImageNet", begin=built(BN()), recipe=_standard, clean=True, other=True),
    Cell(name="abnn-other", system="abnn", about="control: the authors' layer, listening to the substitute of other data", begin=_abnn(), needs=("other-standard",), recipe=_aligned, clean=True, extras=("detached",)),
    Cell(name="abnn-fusion", system="abnn", about="control: features added, no statistics", begin=_abnn(source="fusion"), needs=("bn-standard",), recipe=_aligned, clean=True),
)  # fmt: skip

# Independent networks of claims about robustness, where the claims look.
ASKED = {"bn-standard": 1 / 8, "bn-half": 1 / 8, "rnt-standard": 1 / 8, "bn-mixed": 1 / 2, "nofrost": 1 / 2, "bn-at": 1.0, "affine-fragile": 1.0, "affine-random": 1.0}  # fmt: skip
AUTOATTACK = tuple(
    Cell(
        name=f"{cell.name}-autoattack",
        system=cell.system,
        about=f"AutoAttack on what the strongest evaluation left of {cell.name}",
        begin=_given,
        needs=(cell.name,),
        under="autoattack",
        at=ASKED[cell.name],
    )
    for cell in (*ROBUSTNORM, *NOFROST, *FRAGILE)
    if cell.name in ASKED
)

CELLS = {cell.name: cell for cell in (*ROBUSTNORM, *NOFROST, *FRAGILE, *ABNN, *AUTOATTACK)}
