"""Which memory layout a network may be asked and trained in."""

from __future__ import annotations

import torch
from torch import nn

BLOCK = 16  # floats in a vector register of AVX-512; of AVX2 8


def layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """channels_last, which convolutions like, or contiguous where that is not safe.

    On a CPU the weight gradient of a strided 1 x 1 convolution with fewer input channels than a vector register holds floats
    writes past its workspace in channels_last: crashes, or wrong gradients without a word (oneDNN issue 6035, open in torch
    2.13). Fewer than 16 are taken for too few on every CPU. Contiguous images and weights take another way, and so does
    stride 1. Convolutions over time have weights of rank 5, which channels_last does not know.
    """
    clips = any(weight.ndim == 5 for weight in model.parameters())
    unsafe = device.type == "cpu" and any(map(_unsafe, model.modules()))
    return torch.contiguous_format if clips or unsafe else torch.channels_last


def _unsafe(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return False
    return set(layer.kernel_size) == {1} and max(layer.stride) > 1 and layer.in_channels // layer.groups < BLOCK
