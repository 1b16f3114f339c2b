"""What a clip is."""

from __future__ import annotations

from ..types import Images


def clip_or_refuse(x: Images, threat: str) -> None:
    """Refuse what is no batch of clips (b, c, t, h, w). Raises ValueError."""
    if x.ndim != 5:
        raise ValueError(
            f"{threat} changes frames of clips (b, c, t, h, w); got images of shape {tuple(x.shape)}; give clips"
        )
