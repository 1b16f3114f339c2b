"""The papers' claims, each with its metric, comparison and smallest effect fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .decide import Claim, Records
from .measures import (
    cleaner,
    falls_less,
    figure,
    fragile_start,
    more_robust,
    more_robust_at_equal_clean,
    ratio,
    robust_at_training_radius,
    steadier,
    unmatched,
)

# Why a difference decides nothing yet, whatever it is. Each arm has to be tuned, to have learned, and to be asked where the
# effect that the claim is about exists.
UNTUNED = "one learning rate for all arms: none was tuned"
ABSENT = "the premise is nearly absent: networks without norms are hardly more robust than with BatchNorm, published gaps are 20 to 30 points"
TWIN = "the substitute is its target's twin (the same seed, data and architecture), and no arm was tuned"
UNCONVERGED = "training did not converge, and its learning rate was chosen after one epoch, on a handful of rows"


def _unsound(why: str, first: Callable[[Sequence[Records]], str] = lambda records: "") -> Callable[[Sequence[Records]], str]:
    """A guard that nothing gets past, for a reason that lies in how the networks were made; what `first` finds goes before it."""
    return lambda records: first(records) or why


LADDER = ("bn-eighth", "bn-quarter", "bn-half", "bn-standard")  # of clean accuracy


def _trained(record: Mapping[str, Any]) -> float:
    seconds: float = record["training"]["seconds"]
    return seconds


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
        cells=("bn-standard", "bnwot"),
        measure=more_robust("bnwot", "bn-standard"),
        effect=0.1,
        guard=_unsound(ABSENT),
    ),
    Claim(
        number="3a",
        system="robustnorm",
        claim="RobustNorm (tracked) is more robust than BatchNorm at equal clean accuracy",
        paper="tables not available",
        cells=(*LADDER, "rnt-standard"),
        measure=more_robust_at_equal_clean("rnt-standard", LADDER),
        effect=0.02,
        guard=_unsound(UNTUNED, unmatched("rnt-standard", LADDER)),
    ),
    Claim(
        number="3b",
        system="robustnorm",
        claim="RobustNorm (reading the batch) is more robust than BatchNorm at equal clean accuracy",
        paper="tables not available",
        cells=(*LADDER, "rn"),
        measure=more_robust_at_equal_clean("rn", LADDER),
        effect=0.02,
        guard=_unsound(UNTUNED, unmatched("rn", LADDER)),
    ),
    Claim(
        number="4a",
        system="nofrost",
        claim="Without norms, clean accuracy is far higher than with BatchNorm after training on clean and adversarial images",
        paper="ImageNet, ResNet-50: 74.06% against 59.28%",
        cells=("nofrost", "bn-mixed"),
        measure=cleaner("nofrost", "bn-mixed"),
        effect=0.05,
        guard=_unsound(UNTUNED),
    ),
    Claim(
        number="4b",
        system="nofrost",
        claim="Without norms, clean accuracy falls far less than with BatchNorm, each from its own network trained on clean images",
        paper="ImageNet, ResNet-50: to 74.06% against to 59.28%, both from 76.06% (BatchNorm, clean images)",
        cells=("nofrost", "nf-standard", "bn-mixed", "bn-standard"),
        measure=falls_less("nofrost", "nf-standard", "bn-mixed", "bn-standard"),
        effect=0.05,
        guard=_unsound(UNTUNED),
    ),
    Claim(
        number="5",
        system="nofrost",
        claim="Without norms, robustness is higher than with BatchNorm in training on clean and adversarial images",
        paper="ImageNet, ResNet-50, PGD at 8/255: 22.45% (README) or 23.56% (abstract) against 13.57%; AutoAttack 1.28%",
        cells=("nofrost", "bn-mixed"),
        measure=more_robust("nofrost", "bn-mixed"),
        effect=0.02,
        guard=_unsound(UNTUNED),
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
        guard=_unsound(UNTUNED),
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
        guard=_unsound(UNTUNED),
    ),
    Claim(
        number="7",
        system="nofrost",
        claim="With augmentation the network without norms is robust to several natural shifts",
        paper="tables not available",
        cells=("nofrost-star-corrupted", "bn-standard-corrupted"),
        measure=steadier("nofrost-star-corrupted", "bn-standard-corrupted"),
        effect=0.02,
        guard=_unsound(f"{UNTUNED}; an adversarially trained network is compared with a clean one"),
    ),
    Claim(
        number="8",
        system="fragile-features",
        claim="Adversarially fine-tuning BatchNorm's parameters alone gives non-trivial robustness",
        paper="claimed without a figure",
        cells=("affine-fragile", "bn-standard"),
        measure=robust_at_training_radius("affine-fragile", less="bn-standard"),
        effect=0.1,
        guard=_unsound(UNCONVERGED, fragile_start),
    ),
    Claim(
        number="9",
        system="fragile-features",
        claim="Adversarially training BatchNorm's parameters alone from scratch gives no meaningful robustness",
        paper="claimed without a figure",
        cells=("affine-random", "bn-standard"),
        measure=robust_at_training_radius("affine-random", level=0.15, sign=-1),
        effect=0.0,
        guard=_unsound(UNCONVERGED, fragile_start),
    ),
    Claim(
        number="10",
        system="abnn",
        claim="ABNN is more robust than the undefended network to digital attacks",
        paper="14% to 24% against an adversarially trained network; data and attack not stated",
        cells=("abnn", "bn-standard"),
        measure=more_robust("abnn", "bn-standard"),
        effect=0.05,
        guard=_unsound(TWIN),
    ),
    Claim(
        number="11",
        system="abnn",
        claim="ABNN is more robust than the undefended network to physically realizable attacks",
        paper="tables not available",
        cells=("abnn-patch", "bn-standard-patch"),
        measure=more_robust("abnn-patch", "bn-standard-patch", lambda size: f"a patch of {size:g} pixels a side"),
        effect=0.05,
        guard=_unsound(TWIN),
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
        cells=("abnn", "bn-at"),
        measure=cleaner("abnn", "bn-at"),
        effect=0.02,
        guard=_unsound(TWIN),
    ),
    Claim(
        number="14a",
        system="abnn",
        claim="An epoch of ABNN takes far less time than one of adversarial training",
        paper="8 times",
        cells=("abnn", "bn-at"),
        measure=figure(
            "log of the ratio of seconds of training per epoch, bn-at over abnn",
            lambda one: (
                ratio(one["bn-at"], one["abnn"], "training", "seconds")
                - ratio(one["bn-at"], one["abnn"], "training", "epochs")
            ),
        ),
        effect=math.log(3),
    ),
    Claim(
        number="14b",
        system="abnn",
        claim="ABNN trains in far less time than adversarial training, all epochs and its substitute's training counted",
        paper="8 times (what was counted is not known)",
        cells=("abnn", "bn-at", "bn-standard"),
        measure=figure(
            "log of the ratio of seconds of training in all, bn-at over abnn with its substitute",
            lambda one: math.log(_trained(one["bn-at"]) / (_trained(one["abnn"]) + _trained(one["bn-standard"]))),
        ),
        effect=math.log(3),
        guard=_unsound(TWIN),
    ),
)
