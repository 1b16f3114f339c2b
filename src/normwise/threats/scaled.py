"""The attackers of the papers on adversarial videos, scaled to any pictures and to any radius."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal, get_args

from ..types import ThreatModel
from .lp import L2, Linf
from .masked import Frame, Patch
from .multav import MultAV
from .spa import SPA

Kind = Literal["linf", "l2", "multav", "roa", "af", "spa"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIDE = 112  # of the papers' frames, in pixels
RADIUS = 4 / 255  # of their linf, at which the others are as below
REACH = 5 / sqrt(3 * 40 * SIDE**2)  # of their l2, per root of a pixel: 5 steps of length 1 in clips of 40 frames
RATIO, STICKER, BORDER, PIXELS = 0.04, 30, 10, 100  # of MultAV, ROA, AF and SPA


def scaled(kind: str, threat: ThreatModel, shape: Sequence[int]) -> ThreatModel:
    """The attacker of this kind for images (c, h, w) or clips (c, t, h, w), as strong as the papers' beside a threat model in linf.

        linf    the threat model itself, of radius eps
        l2      eps * 65 / sqrt(40 * 3 * 112^2) per root of a pixel: their 5 steps of length 1 beside 4/255
        multav  ratios up to 1 + 0.04 * eps / (4/255)
        roa     a patch whose side is 30/112 of the picture's
        af      a frame whose width is 10/112 of it
        spa     100 of 112^2 pixels, of each frame of a clip

    Sizes are at least 1 pixel. The last three may change pixels to any colour. Raises ValueError for a threat model that is
    not in linf, and for what is no image or clip.
    Source: Lo and Patel 2021, arXiv:2009.05244 and arXiv:2009.08058, and Lo et al. 2021 (OUDefend). Differs: the attacker
    chooses places and pixels; their l2 bound of 160 never binds, since 5 steps of length 1 end before it.
    """
    if not isinstance(threat, Linf):
        raise ValueError(f"attackers are scaled beside a radius in linf; got {threat.name}; give the threat model linf")
    if len(shape) not in (3, 4):
        raise ValueError(
            f"attackers are scaled to images or clips; got rows of shape {tuple(shape)}; give (c, h, w) or (c, t, h, w)"
        )
    side, count = min(shape[-2:]), shape[-1] * shape[-2]
    values = count * shape[0] * (shape[1] if len(shape) == 4 else 1)

    def pixels(of: float) -> int:
        return max(1, round(of))

    made: dict[str, ThreatModel] = {
        "linf": threat,
        "l2": L2(eps=threat.eps / RADIUS * REACH * sqrt(values)),
        "multav": MultAV(eps=threat.eps / RADIUS * RATIO),
        "roa": Patch(size=pixels(side * STICKER / SIDE)),
        "af": Frame(width=pixels(side * BORDER / SIDE)),
        "spa": SPA(pixels=pixels(count * PIXELS / SIDE**2), per_frame=len(shape) == 4),
    }
    return made[kind]
