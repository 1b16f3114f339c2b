"""The faster way back through an image's first convolution is the same way."""

import pytest
import torch
from torch import nn

from normwise.evaluation.acceleration import EAGER, FAST, Speed, faster
from normwise.evaluation.input_conv import lighter
from toys import images

SHAPES = {  # kernel, stride, padding, size of the image
    "patches": (4, 4, 0, 12),
    "patches and a rest": (4, 4, 0, 14),
    "overlapping": (4, 2, 1, 12),
    "wide": (7, 2, 3, 13),
    "far edge never read": (6, 3, 0, 14),
    "oblong": ((5, 4), 2, (2, 0), 11),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_answers_are_the_same_to_the_bit_and_gradients_up_to_rounding(shape, channels):
    kernel, stride, padding, size = shape
    model = nn.Sequential(nn.Conv2d(channels, 5, kernel, stride, padding), nn.Tanh()).double()
    x = images(4, (channels, size, size + 3)).double().requires_grad_()
    expected = model(x)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    gradient = torch.autograd.grad((expected * weights).sum(), x)[0]
    lighter(model)
    assert type(model[0]) is not nn.Conv2d
    got = model(x)
    assert torch.equal(got, expected)
    torch.testing.assert_close(torch.autograd.grad((got * weights).sum(), x)[0], gradient)


def test_only_plain_strided_convolutions_that_read_images_are_replaced():
    hooked = nn.Conv2d(3, 4, 4, 2)
    hooked.register_forward_hook(lambda *report: None)
    kept = [
        hooked,
        nn.Conv2d(3, 4, 3, 1),
        nn.Conv2d(3, 4, 3, 2),
        nn.Conv2d(8, 4, 4, 2),
        nn.Conv2d(2, 4, 4, 2, groups=2),
        nn.Conv2d(3, 4, 4, 2, dilation=2),
        nn.Conv2d(3, 4, 4, 2, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 4, 2, (2, 1)),
    ]
    assert all(type(layer) is nn.Conv2d for layer in lighter(nn.Sequential(*kept)))


def test_a_search_has_it_unless_it_is_switched_off():
    model = nn.Sequential(nn.Conv2d(2, 4, 2, 2), nn.Flatten(), nn.Linear(36, 3)).eval()
    for speed, there in ((FAST, True), (Speed(first_layer=False), False), (Speed(precision="bfloat16"), True)):
        (made,) = faster(model, speed, images(), 0).made
        assert any(type(one).__name__ == "_ImageConv" for one in made.modules()) == there
        x = images().requires_grad_()
        gradient, expected = (torch.autograd.grad(one(x).square().sum(), x)[0] for one in (made, model))
        assert (gradient - expected).abs().max() < 0.05 * expected.abs().max()
    assert faster(model, EAGER, images(), 0).made == ()
    assert type(model[0]) is nn.Conv2d
