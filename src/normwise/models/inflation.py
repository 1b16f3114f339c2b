"""From weights of an image network to a network for clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Taps = Literal["all", "middle"]


def inflate(images: Mapping[str, Tensor], model: nn.Module, taps: Taps = "all") -> list[str]:
    """Give a network for clips, in place, the weights of an image network with the same names, such as `resnet18` to `resnet3d`.

    A kernel (o, i, h, w) becomes (o, i, t, h, w). "all": it is at each of the t taps, divided by t. So the answer to a
    picture that stands still is the image network's, where a convolution meets no padding in time (clips that stay long
    through the network). "middle": it is at the middle tap, beside zeros. So this holds for clips of any length, and
    training has to find the other taps. All other tensors are copied. The last linear layer stays as it is if it has another
    number of classes; returns the names of what stayed. Raises ValueError for weights that are missing, left over, or of
    another shape.

    Source: Carreira and Zisserman 2017, arXiv:1705.07750, sec. 2.4 (all taps).
    """
    own = model.state_dict()
    head = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
    kept = [f"{name}.{part}" for name in head for part in ("weight", "bias")]
    kept = [name for name in kept if name in own and name in images and own[name].shape != images[name].shape]
    for what, names in (("lack", own.keys() - images.keys()), ("have no place for", images.keys() - own.keys())):
        if names:
            problem = f"{what} {sorted(names)[0]} ({len(names)} in all)"
            raise ValueError(
                f"weights to inflate must have the names of the network; they {problem}; give the network of these weights"
            )
    for name in own.keys() - set(kept):
        own[name] = _inflated(name, images[name].to(own[name]), own[name], taps)
    model.load_state_dict(own)
    return kept


def _inflated(name: str, image: Tensor, clip: Tensor, taps: Taps) -> Tensor:
    """One tensor in the shape of the other. Raises ValueError where it has none."""
    if image.shape == clip.shape:
        return image
    if clip.ndim != 5 or image.shape != clip.shape[:2] + clip.shape[3:]:
        shapes = f"{tuple(image.shape)} for {tuple(clip.shape)}"
        raise ValueError(
            f"weights to inflate must have the sizes of the network; {name} has {shapes}; give a network of these widths"
        )
    length = clip.shape[2]
    if taps == "all":
        return (image / length)[:, :, None].expand_as(clip).clone()
    inflated = torch.zeros_like(clip)
    inflated[:, :, length // 2] = image
    return inflated
