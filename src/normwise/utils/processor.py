"""What the processor can do."""

from __future__ import annotations

import torch


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether it computes bfloat16 without instructions for it, many times as slowly as float32: processors with AVX2 alone."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
