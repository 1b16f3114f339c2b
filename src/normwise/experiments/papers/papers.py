"""The cells of the four papers."""

from __future__ import annotations

from typing import Literal

from ...norms import BN, BNM, GN, LN, MBN, RN, RNM, RNT, BNwoT, MeanOnly, NoNorm, PowerBN, on_route
from ...norms.surgery.trainable import redrawn_scales, shuffled
from ...training.recipes import FGSMRS, NFGSM, TRADES, Mixed, MixedStar, Multi, NoFrost, NoFrostStar, Routes, Standard
from .cell import Cell, built
from .published import published
from .starts import (
    adversarial,
    aligned,
    as_large,
    converted,
    deep,
    free,
    given,
    inflated,
    listening,
    narrow,
    normalized,
    pictures,
    recipe,
    retracked,
    standard,
    stranger,
)

SYSTEMS = ("robustnorm", "nofrost", "fragile-features", "abnn")


ROBUSTNORM = (
    Cell(name="bn-standard", system="robustnorm", about="BatchNorm, trained on clean images", begin=built(BN()), recipe=standard, clean=True, extras=("drift", "legacy")),
    Cell(name="bn-half", system="robustnorm", about="BatchNorm, trained half as long", begin=built(BN()), recipe=standard, clean=True, part=0.5),
    Cell(name="bn-quarter", system="robustnorm", about="BatchNorm, trained a quarter as long", begin=built(BN()), recipe=standard, clean=True, part=0.25),
    Cell(name="bn-eighth", system="robustnorm", about="BatchNorm, trained an eighth as long", begin=built(BN()), recipe=standard, clean=True, part=0.125),
    Cell(name="bnwot", system="robustnorm", about="the same, reading the batch at inference", begin=converted(BNwoT()), needs=("bn-standard",), extras=("legacy",)),
    Cell(name="rnt-standard", system="robustnorm", about="RobustNorm, tracked", begin=built(RNT()), recipe=standard, clean=True, extras=("legacy",)),
    Cell(name="rn", system="robustnorm", about="the same, reading the batch at inference", begin=converted(RN()), needs=("rnt-standard",), extras=("legacy",)),
    Cell(name="bnm", system="robustnorm", about="BatchNorm with the batch's variance", begin=converted(BNM()), needs=("bn-standard",)),
    Cell(name="rnm", system="robustnorm", about="RobustNorm with the batch's range", begin=converted(RNM()), needs=("rnt-standard",)),
    Cell(name="gn-standard", system="robustnorm", about="GroupNorm", begin=built(GN()), recipe=standard, clean=True),
    Cell(name="ln-standard", system="robustnorm", about="LayerNorm", begin=built(LN()), recipe=standard, clean=True),
    Cell(name="meanonly-standard", system="robustnorm", about="control: the mean alone", begin=built(MeanOnly()), recipe=standard, clean=True, every=True),
    Cell(name="powerbn-standard", system="robustnorm", about="control: deviation to the 0.2", begin=built(PowerBN()), recipe=standard, clean=True, every=True),
    Cell(name="none-standard", system="robustnorm", about="no norm: scale and shift alone", begin=built(NoNorm()), recipe=standard, clean=True),
    Cell(name="rnt-0.1-standard", system="robustnorm", about="RobustNorm, tracked, range to the 0.1", begin=built(RNT(power=0.1)), recipe=standard, clean=True, every=True),
    Cell(name="rnt-0.5-standard", system="robustnorm", about="RobustNorm, tracked, range to the 0.5", begin=built(RNT(power=0.5)), recipe=standard, clean=True, every=True),
    Cell(name="rnt-1-standard", system="robustnorm", about="RobustNorm, tracked, range to the 1", begin=built(RNT(power=1.0)), recipe=standard, clean=True, every=True),
    Cell(name="powerbn-0.1-standard", system="robustnorm", about="control: deviation to the 0.1", begin=built(PowerBN(power=0.1)), recipe=standard, clean=True, every=True),
    Cell(name="powerbn-0.5-standard", system="robustnorm", about="control: deviation to the 0.5", begin=built(PowerBN(power=0.5)), recipe=standard, clean=True, every=True),
    Cell(name="rnt-at", system="robustnorm", about="RobustNorm, tracked, PGD adversarial training", begin=built(RNT()), recipe=adversarial()),
)  # fmt: skip


NOFROST = (
    Cell(name="bn-at", system="nofrost", about="BatchNorm, PGD adversarial training", begin=built(BN()), recipe=adversarial(), extras=("smoothness",)),
    Cell(name="bn-mixed", system="nofrost", about="BatchNorm, clean and adversarial images in two forwards", begin=built(BN()), recipe=recipe(Mixed), extras=("smoothness",)),
    Cell(name="nofrost", system="nofrost", about="no norms, the same loss", begin=free, recipe=recipe(NoFrost), extras=("smoothness",)),
    Cell(name="nofrost-star", system="nofrost", about="the same, with augmented streams", begin=free, recipe=recipe(NoFrostStar), extras=("smoothness",)),
    Cell(name="nofrost-plain-labels", system="nofrost", about="the same without label smoothing", begin=free, recipe=recipe(NoFrost, label_smoothing=0.0), extras=("smoothness",)),
    Cell(name="nf-standard", system="nofrost", about="no norms, trained on clean images", begin=free, recipe=standard, clean=True, extras=("smoothness",)),
    Cell(name="nf-at", system="nofrost", about="no norms, PGD adversarial training", begin=free, recipe=adversarial(), extras=("smoothness",)),
    Cell(name="bn-concatenated", system="nofrost", about="BatchNorm, both halves in one forward", begin=built(BN()), recipe=recipe(Mixed, batches="concatenated")),
    Cell(name="bn-mixed-train-crafted", system="nofrost", about="BatchNorm, attacked in training mode", begin=built(BN()), recipe=recipe(Mixed, craft_in="train")),
    Cell(name="gn-mixed", system="nofrost", about="GroupNorm, clean and adversarial images", begin=built(GN()), recipe=recipe(Mixed)),
    Cell(name="mbn-clean", system="nofrost", about="mixture BatchNorm, clean route", begin=built(MBN()), recipe=recipe(Routes)),
    Cell(name="mbn-adversarial", system="nofrost", about="the same, adversarial route", begin=lambda scale, model: on_route(model, 1), needs=("mbn-clean",)),
    Cell(name="trades", system="nofrost", about="BatchNorm, TRADES", begin=built(BN()), recipe=recipe(TRADES)),
    Cell(name="fgsm-rs", system="nofrost", about="BatchNorm, one step from a random start", begin=built(BN()), recipe=lambda scale: FGSMRS()),
    Cell(name="n-fgsm", system="nofrost", about="BatchNorm, one step from wide noise", begin=built(BN()), recipe=lambda scale: NFGSM()),
    Cell(name="bn-standard-corrupted", system="nofrost", about="BatchNorm, trained on clean images, under 15 corruptions", begin=given, needs=("bn-standard",), under="corruptions"),
    Cell(name="nofrost-corrupted", system="nofrost", about="no norms under 15 corruptions", begin=given, needs=("nofrost",), under="corruptions"),
    Cell(name="nofrost-star-corrupted", system="nofrost", about="no norms, with augmented streams, under 15 corruptions", begin=given, needs=("nofrost-star",), under="corruptions"),
    Cell(name="bn-topology-standard", system="nofrost", about="BatchNorm in the layout of the network without norms, trained on clean images", begin=normalized, recipe=standard, clean=True),
    Cell(name="bn-topology-mixed", system="nofrost", about="the same, clean and adversarial images", begin=normalized, recipe=recipe(Mixed)),
    Cell(name="mixed-star", system="nofrost", about="BatchNorm, with the augmented streams of nofrost-star", begin=built(BN()), recipe=recipe(MixedStar)),
    Cell(name="mixed-star-corrupted", system="nofrost", about="the same under 15 corruptions", begin=given, needs=("mixed-star",), under="corruptions"),
    Cell(name="bn-mixed-corrupted", system="nofrost", about="BatchNorm, clean and adversarial images, under 15 corruptions", begin=given, needs=("bn-mixed",), under="corruptions"),
    Cell(name="nf-standard-smoothed", system="nofrost", about="no norms, clean images alone (lambda 0), smoothed labels", begin=free, recipe=lambda scale: Standard(label_smoothing=0.1), clean=True),
    Cell(name="nf-at-smoothed", system="nofrost", about="no norms, adversarial images alone (lambda 1), smoothed labels", begin=free, recipe=adversarial(label_smoothing=0.1)),
    Cell(name="nofrost-10", system="nofrost", about="no norms, clean and adversarial images, K = 10", begin=free, recipe=lambda scale: NoFrost(steps=10)),
    Cell(name="bn-standard-smoothed", system="nofrost", about="BatchNorm, clean images alone (lambda 0), smoothed labels", begin=built(BN()), recipe=lambda scale: Standard(label_smoothing=0.1), clean=True),
    Cell(name="bn-at-smoothed", system="nofrost", about="BatchNorm, adversarial images alone (lambda 1), smoothed labels", begin=built(BN()), recipe=adversarial(label_smoothing=0.1)),
    Cell(name="bn-mixed-10", system="nofrost", about="BatchNorm, clean and adversarial images, K = 10", begin=built(BN()), recipe=lambda scale: Mixed(steps=10)),
    Cell(name="bn-mixed-plain-labels", system="nofrost", about="BatchNorm, clean and adversarial images, without label smoothing", begin=built(BN()), recipe=recipe(Mixed, label_smoothing=0.0)),
)  # fmt: skip


FRAGILE = (
    Cell(name="affine-fragile", system="fragile-features", about="BatchNorm's parameters alone, from the standard network", begin=given, needs=("bn-standard",), recipe=adversarial(trains="affine"), beyond=3),
    Cell(name="affine-fragile-long", system="fragile-features", about="the same, twice as long", begin=given, needs=("bn-standard",), recipe=adversarial(trains="affine"), part=2.0, apart=True),
    Cell(name="affine-random", system="fragile-features", about="BatchNorm's parameters alone, from random weights", begin=built(BN()), recipe=adversarial(trains="affine")),
    Cell(name="affine-random-uniform", system="fragile-features", about="the same, scales from U(0, 1)", begin=lambda scale: redrawn_scales(built(BN())(scale)), recipe=adversarial(trains="affine")),
    Cell(name="affine-random-narrow", system="fragile-features", about="the same from 1, a quarter as wide", begin=narrow, recipe=adversarial(trains="affine")),
    Cell(name="affine-undecayed-fragile", system="fragile-features", about="from the standard network, no weight decay on scales and shifts", begin=given, needs=("bn-standard",), recipe=adversarial(trains="affine"), decayed=False),
    Cell(name="affine-undecayed-random", system="fragile-features", about="from random weights, no weight decay on scales and shifts", begin=built(BN()), recipe=adversarial(trains="affine"), decayed=False),
    Cell(name="bn-standard-narrow", system="fragile-features", about="BatchNorm, a quarter as wide, trained on clean images", begin=narrow, recipe=standard, clean=True),
    Cell(name="affine-narrow-fragile", system="fragile-features", about="BatchNorm's parameters alone, from the narrow standard network", begin=given, needs=("bn-standard-narrow",), recipe=adversarial(trains="affine")),
    Cell(name="affine-first-fragile", system="fragile-features", about="the first three norms alone", begin=given, needs=("bn-standard",), recipe=adversarial(trains="affine", first=3)),
    Cell(name="affine-last-fragile", system="fragile-features", about="the last three norms alone", begin=given, needs=("bn-standard",), recipe=adversarial(trains="affine", last=3)),
    Cell(name="statistics-fragile", system="fragile-features", about="control: running statistics of adversarial images, nothing trained", begin=retracked, needs=("bn-standard",)),
    Cell(name="affine-shuffled", system="fragile-features", about="control: from the standard network with shuffled convolutions", begin=lambda scale, model: shuffled(model), needs=("bn-standard",), recipe=adversarial(trains="affine")),
    Cell(name="affine-robust", system="fragile-features", about="control: from the adversarially trained network", begin=given, needs=("bn-at",), recipe=adversarial(trains="affine")),
    Cell(name="scale-fragile", system="fragile-features", about="scales alone", begin=given, needs=("bn-standard",), recipe=adversarial(trains="scale")),
    Cell(name="shift-fragile", system="fragile-features", about="shifts alone", begin=given, needs=("bn-standard",), recipe=adversarial(trains="shift")),
    Cell(name="affine-head-fragile", system="fragile-features", about="BatchNorm's parameters and the last layer", begin=given, needs=("bn-standard",), recipe=adversarial(trains="affine+head")),
    Cell(name="affine-frozen-fragile", system="fragile-features", about="clean statistics kept", begin=given, needs=("bn-standard",), recipe=adversarial(trains="affine", statistics="frozen")),
    Cell(name="affine-recalibrated-fragile", system="fragile-features", about="statistics read from adversarial images once, then kept", begin=retracked, needs=("bn-standard",), recipe=adversarial(trains="affine", statistics="frozen")),
    Cell(name="head-fragile", system="fragile-features", about="control: the last layer alone", begin=given, needs=("bn-standard",), recipe=adversarial(trains="head")),
    Cell(name="subset-fragile", system="fragile-features", about="control: as many random weights", begin=given, needs=("bn-standard",), recipe=adversarial(trains="subset")),
    Cell(name="full-fragile", system="fragile-features", about="control: all parameters, fine-tuned", begin=given, needs=("bn-standard",), recipe=adversarial()),
    Cell(name="full-random", system="fragile-features", about="control: all parameters, from random weights", begin=built(BN()), recipe=adversarial()),
    Cell(name="clean-affine", system="fragile-features", about="control: BatchNorm's parameters on clean images", begin=given, needs=("bn-standard",), recipe=lambda scale: Standard(trains="affine")),
    Cell(name="gn-affine-fragile", system="fragile-features", about="control: GroupNorm's parameters, from its standard network", begin=given, needs=("gn-standard",), recipe=adversarial(trains="affine")),
    Cell(name="ln-affine-fragile", system="fragile-features", about="control: LayerNorm's parameters, from its standard network", begin=given, needs=("ln-standard",), recipe=adversarial(trains="affine")),
    Cell(name="bn-deep-standard", system="fragile-features", about="BatchNorm, ResNet-20, trained on clean images", begin=deep, recipe=standard, clean=True),
    Cell(name="affine-deep-fragile", system="fragile-features", about="BatchNorm's parameters alone, from the deep standard network", begin=given, needs=("bn-deep-standard",), recipe=adversarial(trains="affine")),
    Cell(name="affine-deep-random", system="fragile-features", about="BatchNorm's parameters alone, from random weights, ResNet-20", begin=deep, recipe=adversarial(trains="affine")),
    Cell(name="subset-random", system="fragile-features", about="control: as many random weights, from random weights", begin=built(BN()), recipe=adversarial(trains="subset")),
    Cell(name="gn-affine-random", system="fragile-features", about="control: GroupNorm's parameters, from random weights", begin=built(GN()), recipe=adversarial(trains="affine")),
    Cell(name="ln-affine-random", system="fragile-features", about="control: LayerNorm's parameters, from random weights", begin=built(LN()), recipe=adversarial(trains="affine")),
    Cell(name="clean-affine-random", system="fragile-features", about="control: BatchNorm's parameters on clean images, from random weights, scales from U(0, 1)", begin=lambda scale: redrawn_scales(built(BN())(scale)), recipe=lambda scale: Standard(trains="affine"), clean=True),
    Cell(name="clean-affine-head-random", system="fragile-features", about="the same with the last layer: what Frankle et al. train", begin=lambda scale: redrawn_scales(built(BN())(scale)), recipe=lambda scale: Standard(trains="affine+head"), clean=True),
    Cell(name="bn-published-20", system="fragile-features", about="published ResNet-20, one training on all 50,000 images", begin=published(20), published=20),
    Cell(name="affine-published-20", system="fragile-features", about="BatchNorm's parameters alone, from the published ResNet-20", begin=given, needs=("bn-published-20",), recipe=adversarial(trains="affine")),
    Cell(name="bn-published-32", system="fragile-features", about="published ResNet-32, one training on all 50,000 images", begin=published(32), published=32),
    Cell(name="affine-published-32", system="fragile-features", about="BatchNorm's parameters alone, from the published ResNet-32", begin=given, needs=("bn-published-32",), recipe=adversarial(trains="affine")),
    Cell(name="bn-published-56", system="fragile-features", about="published ResNet-56, one training on all 50,000 images", begin=published(56), published=56),
    Cell(name="affine-published-56", system="fragile-features", about="BatchNorm's parameters alone, from the published ResNet-56", begin=given, needs=("bn-published-56",), recipe=adversarial(trains="affine")),
)  # fmt: skip


ABNN = (
    Cell(name="abnn", system="abnn", about="the authors' layer: per-sample scale and shift from pooled features, batch-wide moments; substitute: bn-standard, of CIFAR-10 itself", begin=listening(), needs=("bn-standard",), recipe=aligned, clean=True, extras=("detached",)),
    Cell(name="abnn-sample", system="abnn", about="the same, moments of each sample", begin=listening(scope="sample"), needs=("bn-standard",), recipe=aligned, clean=True, extras=("detached", "fixed")),
    Cell(name="abnn-statistics", system="abnn", about="our reading of the abstract: delivered statistics replace the target's", begin=listening(source="statistics", scope="sample"), needs=("bn-standard",), recipe=aligned, clean=True, extras=("detached", "fixed")),
    Cell(name="abnn-constant", system="abnn", about="control: delivered statistics are running averages", begin=listening(source="constant"), needs=("bn-standard",), recipe=aligned, clean=True),
    Cell(name="abnn-random", system="abnn", about="control: a substitute that was never trained", begin=stranger, needs=("bn-standard",), recipe=aligned, clean=True),
    Cell(name="abnn-plain", system="abnn", about="control: one more BatchNorm at each tap", begin=listening(source="plain"), needs=("bn-standard",), recipe=aligned, clean=True),
    Cell(name="abnn-patch", system="abnn", about="the authors' layer under patches", begin=given, needs=("abnn",), under="patch"),
    Cell(name="bn-standard-patch", system="abnn", about="the undefended network under patches", begin=given, needs=("bn-standard",), under="patch"),
    Cell(name="bn-multi", system="abnn", about="baseline: adversarial training against linf and a patch together", begin=built(BN()), recipe=recipe(Multi)),
    Cell(name="fine-tuned", system="abnn", about="baseline: the substitute trained further as the target", begin=given, needs=("bn-foreign",), recipe=standard, clean=True, part=0.5),
    Cell(name="as-large", system="abnn", about="control: one network with as many parameters as target and substitute", begin=as_large, needs=("bn-standard",), recipe=standard, clean=True),
    Cell(name="other-standard", system="abnn", about="a substitute trained, and here judged, on other data: 20 classes of Tiny-ImageNet", begin=built(BN()), recipe=standard, clean=True, other=True),
    Cell(name="abnn-other", system="abnn", about="control: the authors' layer, listening to the substitute of other data", begin=listening(), needs=("other-standard",), recipe=aligned, clean=True, extras=("detached",)),
    Cell(name="abnn-fusion", system="abnn", about="control: features added, no statistics", begin=listening(source="fusion"), needs=("bn-standard",), recipe=aligned, clean=True),
    Cell(name="bn-foreign", system="abnn", about="a substitute of another seed: other start, other images, other batches", begin=built(BN()), recipe=standard, clean=True, stream=1),
    Cell(name="abnn-foreign", system="abnn", about="the authors' layer, substitute of another seed", begin=listening(), needs=("bn-foreign",), recipe=aligned, clean=True, extras=("detached",)),
    Cell(name="abnn-foreign-patch", system="abnn", about="the same under patches", begin=given, needs=("abnn-foreign",), under="patch"),
    Cell(name="abnn-foreign-flattened", system="abnn", about="the same, all of the features read, as the authors do", begin=listening(head="flattened"), needs=("bn-foreign",), recipe=aligned, clean=True),
    Cell(name="abnn-foreign-channel", system="abnn", about="the same, moments of each channel over the batch", begin=listening(scope="channel"), needs=("bn-foreign",), recipe=aligned, clean=True),
    Cell(name="abnn-foreign-adain", system="abnn", about="the best-supported formula: moments of each channel, no scale and shift of BatchNorm's own", begin=listening(scope="channel", affine=False), needs=("bn-foreign",), recipe=aligned, clean=True),
    Cell(name="abnn-foreign-random", system="abnn", about="control: the substitute of another seed, never trained", begin=stranger, needs=("bn-foreign",), recipe=aligned, clean=True),
    Cell(name="bn-pictures", system="abnn", about="a network for images, as deep as that for clips of the smallest size", begin=pictures(4), recipe=standard, clean=True, apart=True),
    Cell(name="bn-clips", system="abnn", about="the undefended network for clips", begin=built(BN()), recipe=standard, clean=True, clips=True),
    Cell(name="bn-clips-other", system="abnn", about="a substitute for clips of another seed, trained, and here judged, on other clips", begin=built(BN()), recipe=standard, clean=True, clips=True, other=True, stream=1),
    Cell(name="abnn-clips", system="abnn", about="the authors' layer on clips, listening to the substitute of other clips", begin=listening(), needs=("bn-clips-other",), recipe=aligned, clean=True, clips=True),
    Cell(name="abnn-clips-inflated", system="abnn", about="the same, substitute: bn-pictures, inflated", begin=inflated, needs=("bn-pictures",), recipe=aligned, clean=True, clips=True, apart=True),
    Cell(name="bn-clips-patch", system="abnn", about="the undefended network for clips under patches", begin=given, needs=("bn-clips",), under="patch", clips=True),
    Cell(name="abnn-clips-patch", system="abnn", about="the authors' layer on clips under patches", begin=given, needs=("abnn-clips",), under="patch", clips=True),
    Cell(name="abnn-published-20", system="abnn", about="the authors' layer, substitute: the published ResNet-20", begin=listening(), needs=("bn-published-20",), recipe=aligned, clean=True),
    Cell(name="abnn-published-32", system="abnn", about="the authors' layer, substitute: the published ResNet-32", begin=listening(), needs=("bn-published-32",), recipe=aligned, clean=True),
    Cell(name="abnn-published-56", system="abnn", about="the authors' layer, substitute: the published ResNet-56", begin=listening(), needs=("bn-published-56",), recipe=aligned, clean=True),
)  # fmt: skip

# Networks of claims about robustness, where the claims look; rows of the first are independent.
ASKED = {"bn-standard": 1 / 8, "bn-half": 1 / 8, "rnt-standard": 1 / 8, "bn-mixed": 1 / 2, "nofrost": 1 / 2, "bn-at": 1.0, "affine-fragile": 1.0, "affine-random": 1.0, "none-standard": 1 / 8}  # fmt: skip
ARMS = ASKED | {"bnwot": 1 / 8, "rn": 1 / 8, "bn-mixed": 1.0, "nofrost": 1.0, "abnn-foreign": 1 / 8}


# Networks that the papers on adversarial videos compare: at 4/255 on CIFAR-10, where the other attackers are as strong as theirs.
COMPARED = dict.fromkeys(("bn-standard", "bn-at", "bn-multi", "fine-tuned", "abnn-plain", "abnn-foreign", "bn-clips", "abnn-clips"), 1 / 2)  # fmt: skip


def _under(
    attack: Literal["autoattack", "attackers", "columns"], about: str, at: dict[str, float], apart: bool
) -> tuple[Cell, ...]:
    return tuple(
        Cell(
            name=f"{cell.name}-{attack}",
            system="abnn" if attack == "columns" else cell.system,
            about=about.format(cell.name),
            begin=given,
            needs=(cell.name,),
            under=attack,
            at=at[cell.name],
            clips=cell.clips,
            apart=apart,
        )
        for cell in (*ROBUSTNORM, *NOFROST, *FRAGILE, *ABNN)
        if cell.name in at
    )


AUTOATTACK = _under("autoattack", "AutoAttack on what the strongest evaluation left of {}", ASKED, apart=False)
ATTACKERS = _under("attackers", "{} before attackers of growing strength", ARMS, apart=True)
COLUMNS = _under("columns", "{} before the attackers of the papers on adversarial videos", COMPARED, apart=False)

CELLS = {cell.name: cell for cell in (*ROBUSTNORM, *NOFROST, *FRAGILE, *ABNN, *AUTOATTACK, *ATTACKERS, *COLUMNS)}
