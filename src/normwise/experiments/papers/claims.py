"""The papers' claims, each with its metric, comparison, premise and smallest effect fixed beforehand."""

from __future__ import annotations

import math

from .decide import Claim
from .measures import (
    Records,
    above_constant,
    above_constant_beside,
    cleaner,
    counted,
    falls_less,
    figure,
    more_robust,
    more_robust_at_equal_clean,
    operations,
    ratio,
    steadier,
    unmatched,
)
from .premises import calibrated, close, fragile, gap, trains
from .scale import EIGHTH, WHOLE

LADDER = ("bn-eighth", "bn-quarter", "bn-half", "bn-standard")  # of clean accuracy
ABSENT = gap("none-standard", "bn-standard", EIGHTH, 0.10)  # published gaps are 20 to 30 points
CITED = calibrated("bn-at", 0.744, 0.454)  # ResNet-20 of EhanW/AdversarialTraining's README, PGD-10
ALIKE = close("nf-standard", "bn-standard", 0.02)


def _clock(one: Records, *cells: str) -> float:
    return float(sum(one[cell]["training"]["seconds"] for cell in cells))


def _counted(one: Records, *cells: str) -> float:
    return float(sum(operations(one[cell]) for cell in cells))


def _epochs(one: Records) -> float:
    return ratio(one["bn-at"], one["abnn-foreign"], "training", "epochs")


CLAIMS = (
    Claim(
        number="1",
        system="robustnorm",
        claim="Adversarial images shift the inputs of BatchNorm more than noise of equal norm does",
        paper="claimed without a figure",
        cells=("bn-standard",),
        measure=figure(
            "standardized shift of site means, adversarial less noise, bn-standard",
            lambda one: (
                one["bn-standard"]["figures"]["drift"]["adversarial"]["shift"]
                - one["bn-standard"]["figures"]["drift"]["noise"]["shift"]
            ),
        ),
        effect=0.02,
    ),
    Claim(
        number="2",
        system="robustnorm",
        claim="Reading the batch's statistics at inference removes BatchNorm's vulnerability",
        paper="claimed without a figure",
        cells=("bnwot", "bn-standard"),
        measure=more_robust("bnwot", "bn-standard", EIGHTH),
        effect=0.1,
        premises=(ABSENT,),
    ),
    Claim(
        number="3a",
        system="robustnorm",
        claim="RobustNorm (tracked) is more robust than BatchNorm at equal clean accuracy",
        paper="tables not available",
        cells=(*LADDER, "rnt-standard"),
        measure=more_robust_at_equal_clean("rnt-standard", LADDER, EIGHTH),
        effect=0.02,
        guard=unmatched("rnt-standard", LADDER),
    ),
    Claim(
        number="3b",
        system="robustnorm",
        claim="RobustNorm (reading the batch) is more robust than BatchNorm at equal clean accuracy",
        paper="tables not available",
        cells=(*LADDER, "rn"),
        measure=more_robust_at_equal_clean("rn", LADDER, EIGHTH),
        effect=0.02,
        guard=unmatched("rn", LADDER),
    ),
    Claim(
        number="3c",
        system="robustnorm",
        claim="RobustNorm (tracked) keeps BatchNorm's clean accuracy: it is less than 2 points lower",
        paper="abstract: it retains the benefits of BatchNorm",
        cells=("rnt-standard", "bn-standard"),
        measure=cleaner("rnt-standard", "bn-standard", level=-0.02),
        effect=0.0,
    ),
    Claim(
        number="4a",
        system="nofrost",
        claim="Without norms, clean accuracy is far higher than with BatchNorm after training on clean and adversarial images",
        paper="ImageNet, ResNet-50: 74.06% against 59.28%",
        cells=("nofrost", "bn-mixed"),
        measure=cleaner("nofrost", "bn-mixed"),
        effect=0.05,
        premises=(ALIKE,),
    ),
    Claim(
        number="4b",
        system="nofrost",
        claim="Without norms, clean accuracy falls far less than with BatchNorm, each from its own network trained on clean images",
        paper="ImageNet, ResNet-50: to 74.06% against to 59.28%, both from 76.06% (BatchNorm, clean images)",
        cells=("nofrost", "nf-standard", "bn-mixed", "bn-standard"),
        measure=falls_less("nofrost", "nf-standard", "bn-mixed", "bn-standard"),
        effect=0.05,
        premises=(ALIKE,),
    ),
    Claim(
        number="5",
        system="nofrost",
        claim="Without norms, robustness is higher than with BatchNorm in training on clean and adversarial images",
        paper="ImageNet, ResNet-50, PGD at 8/255: 22.45% (README) or 23.56% (abstract) against 13.57%",
        cells=("nofrost", "bn-mixed"),
        measure=more_robust("nofrost", "bn-mixed", WHOLE),
        effect=0.02,
        premises=(ALIKE, CITED),
    ),
    Claim(
        number="5b",
        system="nofrost",
        claim="Trained on clean images, a network without BatchNorm is more robust than with it",
        paper="abstract: BatchNorm makes networks more vulnerable; others report gaps of 20 to 30 points",
        cells=("none-standard", "bn-standard"),
        measure=more_robust("none-standard", "bn-standard", EIGHTH),
        effect=0.05,
        premises=(close("none-standard", "bn-standard", 0.05),),
    ),
    Claim(
        number="6a",
        system="nofrost",
        claim="The network without norms is smoother",
        paper="claimed; metric not known",
        cells=("nofrost", "bn-mixed"),
        measure=figure(
            "log of the ratio of local Lipschitz estimates, bn-mixed over nofrost",
            lambda one: ratio(one["bn-mixed"], one["nofrost"], "figures", "smoothness", "lipschitz"),
        ),
        effect=0.1,
        premises=(ALIKE,),
    ),
    Claim(
        number="6b",
        system="nofrost",
        claim="The network without norms has larger margins",
        paper="claimed; metric not known",
        cells=("nofrost", "bn-mixed"),
        measure=figure(
            "log of the ratio of median l2 margins, nofrost over bn-mixed",
            lambda one: ratio(one["nofrost"], one["bn-mixed"], "figures", "smoothness", "margin"),
        ),
        effect=0.1,
        premises=(ALIKE,),
    ),
    Claim(
        number="7",
        system="nofrost",
        claim="With the same augmentation, the network without norms keeps more of its clean accuracy under natural shifts than with BatchNorm",
        paper="tables not available",
        cells=("nofrost-star-corrupted", "mixed-star-corrupted"),
        measure=steadier("nofrost-star-corrupted", "mixed-star-corrupted"),
        effect=0.02,
        premises=(ALIKE,),
    ),
    Claim(
        number="8",
        system="fragile-features",
        claim="Adversarially fine-tuning BatchNorm's parameters alone gives non-trivial robustness",
        paper="claimed without a figure",
        cells=("affine-fragile",),
        measure=above_constant("affine-fragile"),
        effect=0.1,
        premises=(fragile("bn-standard"), trains("affine-fragile")),
    ),
    Claim(
        number="9",
        system="fragile-features",
        claim="Adversarially training BatchNorm's parameters alone from scratch gives no meaningful robustness: less than 5 points",
        paper="claimed without a figure",
        cells=("affine-random",),
        measure=above_constant("affine-random", level=0.05, sign=-1),
        effect=0.0,
        premises=(trains("affine-random", standing=False),),
    ),
    Claim(
        number="9b",
        system="fragile-features",
        claim="BatchNorm's parameters alone give more robustness to fragile features than to random ones",
        paper="abstract: moderate robustness against none",
        cells=("affine-fragile", "affine-random"),
        measure=above_constant_beside("affine-fragile", "affine-random"),
        effect=0.05,
        premises=(fragile("bn-standard"), trains("affine-fragile")),
    ),
    Claim(
        number="10",
        system="abnn",
        claim="ABNN is more robust than the undefended network to digital attacks",
        paper="14% to 24% against an adversarially trained network; data and attack not stated",
        cells=("abnn-foreign", "bn-standard"),
        measure=more_robust("abnn-foreign", "bn-standard", EIGHTH),
        effect=0.05,
        premises=(close("bn-foreign", "bn-standard", 0.05),),
    ),
    Claim(
        number="11",
        system="abnn",
        claim="ABNN is more robust than the undefended network to physically realizable attacks",
        paper="tables not available",
        cells=("abnn-foreign-patch", "bn-standard-patch"),
        measure=more_robust("abnn-foreign-patch", "bn-standard-patch", patch=3),
        effect=0.05,
        premises=(close("bn-foreign", "bn-standard", 0.05),),
    ),
    Claim(
        number="12",
        system="abnn",
        claim="ABNN is more robust than the undefended network on video",
        paper="tables not available",
        cells=(),
        measure=None,
        effect=0.05,
    ),
    Claim(
        number="13",
        system="abnn",
        claim="ABNN has a higher clean accuracy than adversarial training",
        paper="68% against 62%",
        cells=("abnn-foreign", "bn-at"),
        measure=cleaner("abnn-foreign", "bn-at"),
        effect=0.02,
        premises=(close("bn-foreign", "bn-standard", 0.05), CITED),
    ),
    Claim(
        number="14a",
        system="abnn",
        claim="An epoch of ABNN takes far less time than one of adversarial training",
        paper="8 times",
        cells=("abnn-foreign", "bn-at"),
        measure=counted(
            "log of the ratio of {} of training per epoch, bn-at over abnn-foreign",
            lambda one: math.log(_clock(one, "bn-at") / _clock(one, "abnn-foreign")) - _epochs(one),
            lambda one: math.log(_counted(one, "bn-at") / _counted(one, "abnn-foreign")) - _epochs(one),
        ),
        effect=math.log(3),
    ),
    Claim(
        number="14b",
        system="abnn",
        claim="ABNN trains in far less time than adversarial training, all epochs and its substitute's training counted",
        paper="8 times (what was counted is not known)",
        cells=("abnn-foreign", "bn-foreign", "bn-at"),
        measure=counted(
            "log of the ratio of {} of training in all, bn-at over abnn-foreign with its substitute",
            lambda one: math.log(_clock(one, "bn-at") / _clock(one, "abnn-foreign", "bn-foreign")),
            lambda one: math.log(_counted(one, "bn-at") / _counted(one, "abnn-foreign", "bn-foreign")),
        ),
        effect=math.log(3),
    ),
)

ON_CLIPS = Claim(
    number="12",
    system="abnn",
    claim="ABNN is more robust than the undefended network on video",
    paper="tables not available",
    cells=("abnn-clips", "bn-clips"),
    measure=more_robust("abnn-clips", "bn-clips", EIGHTH),
    effect=0.05,
    premises=(fragile("bn-clips", 0.05), close("bn-clips-other", "bn-clips", 0.05, paired=False)),
)
