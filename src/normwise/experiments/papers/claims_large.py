"""The claims that need capacity, about published networks: size L."""

from __future__ import annotations

from .claims import CLAIMS, ON_CLIPS
from .decide import Claim
from .measures import above_constant, more_robust
from .premises import close, fragile, trains
from .scale import EIGHTH, SCALES


def _large(depth: int) -> tuple[Claim, ...]:
    """The claims that need capacity, about a published network of this depth."""
    start, fine, listening = (f"{kind}-published-{depth}" for kind in ("bn", "affine", "abnn"))
    return (
        Claim(
            number=f"8-{depth}",
            system="fragile-features",
            claim=f"Adversarially fine-tuning BatchNorm's parameters alone gives non-trivial robustness, ResNet-{depth}",
            paper="claimed without a figure",
            cells=(fine,),
            measure=above_constant(fine),
            effect=0.1,
            premises=(fragile(start), trains(fine)),
        ),
        Claim(
            number=f"10-{depth}",
            system="abnn",
            claim=f"ABNN with a published ResNet-{depth} as substitute is more robust than that network",
            paper="14% to 24% against an adversarially trained network; data and attack not stated",
            cells=(listening, start),
            measure=more_robust(listening, start, EIGHTH),
            effect=0.05,
            premises=(close(listening, start, 0.05),),
        ),
    )


LARGE = tuple(claim for depth in (20, 32, 56) for claim in _large(depth))


def claims_of(preset: str) -> tuple[Claim, ...]:
    """The claims that are decided at a size: one family. On clips only where the size has some."""
    if preset == "l":
        return LARGE
    clips = preset in SCALES and SCALES[preset]().clips
    return tuple(ON_CLIPS if clips and claim.number == ON_CLIPS.number else claim for claim in CLAIMS)
