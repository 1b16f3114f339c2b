"""Several clips of one video, answered as one."""

from __future__ import annotations

from math import log
from typing import Literal

from torch import Tensor, nn

Mean = Literal["logits", "probabilities"]


class OverViews(nn.Module):
    """A network asked about each of the clips of a video (b, c, views x t, h, w), one after the other in time: the mean of its answers.

    The mean is of logits, or of probabilities, and then its logarithm: logits too. Gradients go through it, so that attacks
    are after the answer to the whole video.

    >>> OverViews(nn.Identity(), 2).extra_repr()
    'views=2, mean=logits'
    """

    def __init__(self, network: nn.Module, views: int, mean: Mean = "logits") -> None:
        super().__init__()
        if views < 1:
            raise ValueError(f"views counts clips of a video; got {views}; give a whole number >= 1")
        if mean not in ("logits", "probabilities"):
            raise ValueError(f"mean is {mean!r}; give 'logits' or 'probabilities'")
        self.network, self.views, self.mean = network, views, mean

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.shape[2] % self.views:
            raise ValueError(
                f"videos must be (b, c, {self.views} x t, h, w); got {tuple(x.shape)}; give {self.views} clips of one length"
            )
        clips = x.unflatten(2, (self.views, -1)).transpose(1, 2)
        logits: Tensor = self.network(clips.flatten(0, 1)).unflatten(0, (len(x), self.views))
        if self.mean == "logits":
            return logits.mean(1)
        return logits.log_softmax(2).logsumexp(1) - log(self.views)

    def extra_repr(self) -> str:
        return f"views={self.views}, mean={self.mean}"


def over_views(model: nn.Module, views: int) -> nn.Module:
    """The network as rows of so many clips need it: put in `OverViews`, unless it is already, or a row is one clip.

    Raises ValueError for a network that answers another number of clips.
    """
    own = next((module.views for module in model.modules() if isinstance(module, OverViews)), 1)
    if own == views:
        return model
    if own > 1:
        raise ValueError(f"the network answers {own} clips of each video, and data.views is {views}; give data.views {own}")
    return OverViews(model, views).train(model.training)
