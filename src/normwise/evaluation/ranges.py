"""Does a network expect pixels of another range than those of [0, 1] that it is given?"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..records import Check
from ..types import Images, Labels, Logits

NAME = "range of the pixels"
CLEARLY, NARROW = 0.1, 0.5  # what another range must gain to be suspected; pixels that span less are suspected too
WHY = (
    "eps is in pixels of [0, 1]: a network that expects another range is attacked where it does not work; normalize inside the "
    "model, by nw.Standardize(mean, std) in front of it; one that was trained on these pixels has learned too little"
)


def accuracies(logits: Callable[[Images], Logits], x: Images, y: Labels, size: int) -> dict[str, float]:
    """Accuracy on images (n, c, ...) as they are, and in other usual ranges, asked in batches of `size`; a range that the network refuses is left out."""
    std, mean = torch.std_mean(x, dim=[0, *range(2, x.ndim)], keepdim=True)
    ways = {
        "as they are": x,
        "times 255": 255 * x,
        "from -1 to 1": 2 * x - 1,
        "standardized": (x - mean) / std.clamp_min(1e-6),
    }
    right = {}
    for name, way in ways.items():
        try:
            answers = torch.cat([logits(part).argmax(1).cpu() for part in way.split(size)])
        except (RuntimeError, ValueError):
            if way is x:
                raise
            continue
        right[name] = float((answers == y.cpu()).float().mean())
    return right


def better_elsewhere(right: dict[str, float], n: int) -> bool:
    """Whether the accuracy of n images is clearly higher in another range, by more than chance gives where they are few."""
    return max(right.values()) - right["as they are"] > max(CLEARLY, 2 * math.sqrt(0.5 / n))


def narrow(x: Images) -> bool:
    """Whether the pixels span less than half of [0, 1], as if they were divided twice."""
    return float(x.max() - x.min()) < NARROW


def describe(right: dict[str, float], x: Images) -> str:
    """The accuracies in words."""
    each = ", ".join(f"{100 * share:.1f}% {name}" for name, share in right.items())
    return f"pixels from {float(x.min()):.3g} to {float(x.max()):.3g}; accuracy: {each}"


def check_range(logits: Callable[[Images], Logits], x: Images, y: Labels) -> Check:
    """Warn if the network is better in another range by 10 points, of few images by more than chance gives, and if pixels span little."""
    right = accuracies(logits, x, y, len(y))
    wrong = better_elsewhere(right, len(y)) or narrow(x)
    return Check(name=NAME, status="warn" if wrong else "pass", measured=describe(right, x), why=WHY, n=len(y))
