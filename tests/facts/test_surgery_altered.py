"""Surgery on layers that are not what their class says, or that no longer track what they read."""

from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from normwise.norms import BN, GN, RNT, StatNorm
from normwise.norms.surgery.adaptation import share_of, with_share
from normwise.norms.surgery.conversion import convert, convert_sync, recalibrate
from normwise.norms.surgery.folding import fold
from normwise.norms.surgery.unmapped import unmapped
from toys import CHANNELS, Activated, Rectified, Small, Split, beside, images, settled, trained


class TwiceActivated(Activated):
    """Has the parts of timm's layer, and uses them otherwise."""

    def forward(self, x):
        return super().forward(x) - 1


class Slower(Activated):
    """Answers as timm's layer does, and keeps other statistics."""

    def forward(self, x):
        y = super().forward(x)
        if self.training:
            self.running_mean.mul_(0.5)
        return y


def replaced():
    layer = nn.BatchNorm2d(CHANNELS)
    own = layer.forward
    layer.forward = lambda x: own(x).relu()
    return layer


def bound():
    layer = nn.BatchNorm2d(CHANNELS)
    layer.forward = MethodType(lambda self, x: type(self).forward(self, x).relu(), layer)
    return layer


ALTERED = {
    "subclass": (lambda: Rectified(CHANNELS), "Rectified"),
    "norm inside": (lambda: Split(CHANNELS), "Split"),
    "parts used otherwise": (lambda: TwiceActivated(CHANNELS), "TwiceActivated"),
    "other statistics": (lambda: Slower(CHANNELS), "Slower"),
    "forward replaced": (replaced, "altered BatchNorm2d"),
    "forward bound": (bound, "altered BatchNorm2d"),
    "parametrized": (lambda: parametrizations.spectral_norm(nn.BatchNorm2d(CHANNELS)), "altered BatchNorm2d"),
    "pruned": (lambda: prune.l1_unstructured(nn.BatchNorm2d(CHANNELS), "weight", 3), "altered BatchNorm2d"),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_a_layer_that_does_more_than_its_class_is_kept_and_named(kind):
    make, name = ALTERED[kind]
    model, x = beside(make()), images()
    for new in (convert(model, BN()), with_share(model, 0.0)):
        torch.testing.assert_close(new(x), model(x))
        assert type(new[3]) is StatNorm
        assert unmapped(new)["1"] == f"{name} left as it is"
    assert unmapped(convert(model, GN(groups=2)))["1"] == f"{name} left as it is"
    torch.testing.assert_close(fold(model)(x), model(x))
    assert unmapped(fold(model))["1"] == f"not folded: of kind {name}"
    with pytest.raises(ValueError, match=r"^1, a .* cannot be synchronized"):
        convert_sync(model)
    alone = model[:3]
    with pytest.raises(ValueError, match="no norm layer to convert; it has: "):
        convert(alone, BN())
    with pytest.raises(ValueError, match=rf"could be mixed; 1 \({name}\).* cannot; there is nothing to adapt"):
        with_share(alone, 0.5)
    assert share_of(alone) is None


def test_a_layer_with_a_norm_inside_is_kept_whole():
    model = beside(Split(CHANNELS))
    new = convert(model, GN(groups=2))
    assert (type(new[1]), type(new[1].aux_bn[0])) == (Split, nn.BatchNorm2d)
    assert unmapped(new).keys() == {"1", "1.aux_bn.0", "3"}
    torch.testing.assert_close(new[:2](images()), model[:2](images()))


class Fused(nn.Conv2d):
    """As a convolution that is trained for quantization: it reads its norm's numbers by name."""

    def __init__(self):
        super().__init__(2, CHANNELS, 3)
        self.bn = nn.BatchNorm2d(CHANNELS)

    def forward(self, x):
        return self.bn(super().forward(x)) * self.bn.running_var.view(-1, 1, 1).sqrt()


def test_a_norm_in_the_hands_of_a_convolution_is_left_to_it():
    model, x = settled(nn.Sequential(Fused(), nn.BatchNorm2d(CHANNELS))), images()
    for new in (convert(model, BN()), with_share(model, 0.0)):
        torch.testing.assert_close(new(x), model(x))
        assert unmapped(new) == {"0.bn": "BatchNorm2d left as it is"}
    assert torch.isfinite(convert(model, GN(groups=2))(x)).all()
    with pytest.raises(ValueError, match=r"^0\.bn, a BatchNorm2d .* cannot be synchronized"):
        convert_sync(model)


def test_what_a_layers_hooks_call_comes_with_it():
    layer = nn.BatchNorm2d(CHANNELS)
    layer.observer = nn.ReLU()
    layer.register_forward_hook(lambda module, args, y: module.observer(y))
    model, x = beside(layer), images()
    for new in (convert(model, BN()), convert_sync(model)):
        torch.testing.assert_close(new(x), model(x))
    assert (convert(model, GN(groups=2))[:2](x) >= 0).all()


def test_what_has_only_a_constructor_of_its_own_is_converted():
    class Named(nn.BatchNorm2d):
        def __init__(self):
            super().__init__(CHANNELS, eps=0.1)

    model = beside(Named())
    new = convert(model, BN())
    assert (type(new[1]), new[1].eps, unmapped(new)) == (StatNorm, 0.1, {})
    torch.testing.assert_close(new(images()), model(images()))
    assert unmapped(fold(model)) == {}


class Listed(nn.Module):
    """Runs its layers from a plain list, and has one of them under two names."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.body = nn.Sequential(nn.Conv2d(2, CHANNELS, 3), self.norm, nn.Flatten(), nn.Linear(16 * CHANNELS, 3))
        self.order = list(self.body)

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return x


def test_a_layer_is_replaced_wherever_it_is_held():
    model, x = settled(Listed()), images()
    new = convert(model, RNT())
    assert new.order[1] is new.norm is new.body[1]
    assert type(new.norm) is StatNorm
    with pytest.raises(ValueError, match="running_range"):
        new(x)
    folded = fold(model)
    assert isinstance(folded.order[1], nn.Identity)
    torch.testing.assert_close(folded(x), model(x))


def test_norms_that_are_called_by_the_inputs_name_are_converted():
    class Named(Small):
        def forward(self, x):
            return self.linear(self.norm(input=self.conv1(x)).relu().mean((2, 3)))

    model = Named().eval()
    for norm in (BN(), GN(groups=4), RNT(power=0.5)):
        new = recalibrate(convert(model, norm), [images()]) if norm.name == "rnt" else convert(model, norm)
        assert torch.isfinite(new(images())).all()


def test_shares_of_half_precision_are_mixed():
    model = trained().bfloat16()
    x = images().bfloat16()
    wanted = with_share(trained(), 0.5)(images())
    torch.testing.assert_close(with_share(model, 0.5)(x).float(), wanted, atol=0.05, rtol=0.05)
