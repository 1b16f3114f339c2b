"""What the attacker is free to choose, where that is the pixels of each image."""

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
