"""The gradient in pixels of a convolution that reads the image, by a faster way on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHANNELS = 4  # an image's, at most: where there are more, torch's own way back is as fast


def lighter(model: nn.Module) -> nn.Module:
    """Give, in this model, strided convolutions that read images a faster way back; returns the model.

    They answer as before. On the way back every sub-pixel of a stride's cell is a channel of one dense convolution, and the
    channels are shuffled into place: no time goes into zeros between strides, nor into filling few channels up to a
    register. Weights must not change afterwards.
    Source: Shi et al. 2016, arXiv:1609.05158, sec. 3.2 (what a strided transposed convolution is the same as).
    """
    for layer in model.modules():
        if type(layer) is nn.Conv2d and _suits(layer):
            layer.__class__ = _ImageConv  # whoever reads its weights or its stride still finds them
            layer.register_buffer("shifted", _by_sub_pixel(layer.weight.detach(), layer.stride[0]), persistent=False)
    return model


def _suits(layer: nn.Conv2d) -> bool:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return False
    # else a good part of the sub-pixels' kernels would be zeros
    whole = all(k >= 2 * s or k % s == 0 for k, s in zip(layer.kernel_size, layer.stride, strict=True))
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.in_channels <= CHANNELS
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    square = len(set(layer.stride)) == 1 < layer.stride[0]
    return square and whole and plain and not hooks


class _ImageConv(nn.Conv2d):
    shifted: Tensor

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = _Apply.apply(x, self.weight, self.bias, self.shifted, self.stride[0], self.padding)
        return answer


def _by_sub_pixel(weight: Tensor, stride: int) -> Tensor:
    """Weights (out, in, kh, kw) as those of a convolution from `out` to in * stride^2 channels."""
    outs, ins, *sides = weight.shape
    th, tw = (-(-side // stride) for side in sides)
    filled = F.pad(weight, (0, tw * stride - sides[1], 0, th * stride - sides[0]))
    cells = filled.reshape(outs, ins, th, stride, tw, stride).flip(2, 4)
    return cells.permute(1, 3, 5, 0, 2, 4).reshape(ins * stride**2, outs, th, tw).contiguous()


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shifted: Tensor, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(shifted)
        ctx.settings = stride, padding, x.shape[2:]
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (shifted,), (stride, (top, left), (height, width)) = ctx.saved_tensors, ctx.settings
        taps = shifted.shape[2] - 1, shifted.shape[3] - 1
        cells = F.pixel_shuffle(F.conv2d(grad, shifted.to(grad.dtype), padding=taps), stride)
        pixels = cells[:, :, top : top + height, left : left + width]
        short = 0, width - pixels.shape[3], 0, height - pixels.shape[2]  # pixels at the far edges that no window reached
        return F.pad(pixels, short), None, None, None, None, None
