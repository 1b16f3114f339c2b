"""Gradients of convolutions, by processors with AVX2 alone and by this one, against float64."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from normwise import NORMS
from normwise.models import MODELS
from normwise.utils.layout import layout

CPU = torch.device("cpu")
AS_LAPTOPS = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}  # set before torch is imported


def ours():
    """Every convolution of our models, in narrow and usual widths, once each."""
    shapes = set()
    for kind in MODELS.values():
        for width in ({"width": 4}, {"width": 12}, {}):
            try:
                model = kind(**width)
            except TypeError:
                model = kind()
            norm = NORMS.make("bn") if getattr(model, "normalizes", True) else None
            for layer in model(norm, classes=10, mean=(0.5,) * 3, std=(0.2,) * 3).modules():
                if type(layer) is nn.Conv2d:
                    shapes.add((layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.groups))
    return sorted(shapes)


def drawn(count):
    """Random convolutions: narrow ones, strides and kernels of 1 among them."""
    rng = random.Random(0)
    for _ in range(count):
        groups = rng.choice([1, 1, 1, 2, 4])
        yield (
            groups * rng.randint(1, 20),
            groups * rng.randint(1, 20),
            rng.choice([1, 1, 1, 2, 3, 5]),
            rng.choice([1, 2, 2, 3]),
            groups,
        )


def check(shape):
    """Both layouts, the second where it is chosen: answers and all gradients are those of float64."""
    ins, outs, kernel, stride, groups = shape
    torch.manual_seed(0)
    layer = nn.Conv2d(ins, outs, kernel, stride, padding=kernel // 2, groups=groups)
    x = torch.randn(
        16 if ins <= 32 else 2, ins, 8, 8
    )  # with these the process is brought down where the layout is the wrong one
    exact = copy.deepcopy(layer).double()
    given = x.double().requires_grad_()
    answer = exact(given)
    back = torch.randn_like(answer)
    answer.backward(back)
    for form in {torch.contiguous_format, layout(layer, CPU)}:
        made = copy.deepcopy(layer).to(memory_format=form)
        asked = x.clone(memory_format=form).requires_grad_()
        got = made(asked)
        got.backward(back.float().contiguous(memory_format=form))
        for one, other in ((got, answer), (asked.grad, given.grad), (made.weight.grad, exact.weight.grad)):
            assert (one.double() - other).abs().max() <= 1e-5 * other.abs().max() + 1e-6, (shape, form)


@pytest.mark.parametrize(("environment", "threads"), [(AS_LAPTOPS, 1), (None, 2)], ids=["avx2", "as it is"])
def test_gradients_of_every_convolution_are_right(environment, threads):
    """In a process of its own: what goes wrong here brings the process down."""
    code = f"import sys, torch; sys.path.insert(0, {str(Path(__file__).parent)!r}); torch.set_num_threads({threads}); "
    code += "import test_layout as t; [t.check(shape) for shape in (*t.ours(), *t.drawn(200))]"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_layout_is_chosen_by_strided_1_x_1_convolutions_of_few_channels():
    narrow, wide = nn.Conv2d(15, 8, 1, stride=2), nn.Conv2d(16, 8, 1, stride=2)
    assert layout(nn.Sequential(wide, narrow), CPU) == torch.contiguous_format
    assert (
        layout(wide, CPU)
        == layout(nn.Conv2d(4, 8, 1), CPU)
        == layout(nn.Conv2d(4, 8, 3, stride=2), CPU)
        == torch.channels_last
    )
    assert layout(narrow, torch.device("cuda")) == torch.channels_last
