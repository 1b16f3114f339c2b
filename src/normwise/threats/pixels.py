"""What the attacker is free to choose, where that is the pixels of each image, and what a clip is."""

from __future__ import annotations

from torch import Tensor

from ..types import Images


class OwnPixels:
    """A region whose parameters are the images themselves: every image has pixels of its own."""

    def parameters(self, x_adv: Images) -> Tensor:
        """The images."""
        return x_adv

    def images(self, parameters: Tensor) -> Images:
        """The images."""
        return parameters


def clip_or_refuse(x: Images, threat: str) -> None:
    """Refuse what is no batch of clips (b, c, t, h, w). Raises ValueError."""
    if x.ndim != 5:
        raise ValueError(
            f"{threat} changes frames of clips (b, c, t, h, w); got images of shape {tuple(x.shape)}; give clips"
        )
