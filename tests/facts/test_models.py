"""Networks: sizes known from the papers, standardization first, any norm anywhere."""

import pytest
import torch

from normwise.models import MODELS, VGG, ResNet, ResNet18, WideResNet
from normwise.norms import BN, NORMS, ChannelAffine, sites

COLOUR = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


@pytest.mark.parametrize(
    ("choice", "millions"),
    [  # ResNet-20/32/56 with option A: He et al. 2016, table 6; WRN-28-10: Zagoruyko and Komodakis 2016, table 4
        (ResNet(depth=20, shortcut="pad"), 0.27),
        (ResNet(depth=32, shortcut="pad"), 0.46),
        (ResNet(depth=56, shortcut="pad"), 0.85),
        (WideResNet(), 36.5),
        (ResNet18(), 11.17),
        (VGG(depth=16), 14.72),
    ],
    ids=str,
)
def test_the_number_of_parameters_is_the_papers(choice, millions):
    with torch.device("meta"):
        model = choice(BN(), classes=10, **COLOUR)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.012)


def small(name):
    known = {"wrn": {"depth": 10, "widen": 1}, "resnet": {"depth": 8}, "nfresnet": {"depth": 8}, "vgg": {"depth": 11}}
    return (known | {"vit": {"side": 16, "width": 24, "depth": 1}}).get(name, {"width": 8})


def images_for(name):
    """Two pictures or clips; VGG halves five times, and instance norm needs positions."""
    side = 32 if name == "vgg" else 16
    return torch.rand(2, 3, *[8] * getattr(MODELS[name], "clips", False), side, side)


NORMALIZE = [name for name in MODELS if getattr(MODELS[name], "normalizes", True)]
KINDS = ("resnet", "resnet3d", "vit", "convnext")  # what makes networks differ for a norm: these take all, the others two
TRIED = [(name, norm) for name in NORMALIZE for norm in NORMS if name in KINDS or norm in ("bn", "gn")]


@pytest.mark.parametrize(("name", "norm"), TRIED)
def test_every_network_takes_every_norm_and_gives_logits(name, norm):
    model = MODELS[name](**small(name))(NORMS[norm](), classes=7, **COLOUR)
    if (name, norm) in [("convnext", "in"), *(("vit", positions) for positions in ("frn", "grn", "evonorm-s0"))]:
        with pytest.raises(ValueError, match=r"reads the positions|reads height and width"):
            model(images_for(name))
        return
    assert model(images_for(name)).shape == (2, 7)
    for path, site in sites(model).items():
        assert type(model.get_submodule(path)) is type(NORMS[norm]()(site))


@pytest.mark.parametrize("name", MODELS)
def test_the_first_layer_standardizes_pixels(name):
    model = MODELS[name](**small(name))(NORMS["none"](), classes=7, **COLOUR).eval()
    bare = MODELS[name](**small(name))(NORMS["none"](), classes=7, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).eval()
    own = bare.state_dict()
    bare.load_state_dict(model.state_dict() | {k: v for k, v in own.items() if "standardize." in k})
    x = images_for(name)
    shape = [3] + [1] * (x.ndim - 2)
    mean, std = torch.tensor(COLOUR["mean"]).view(shape), torch.tensor(COLOUR["std"]).view(shape)
    torch.testing.assert_close(model(x), bare((x - mean) / std))


def test_residual_branches_start_at_zero_whatever_the_norm():
    for norm in (norm for norm in NORMS.values() if norm.name != "grn"):  # which keeps what it reads
        model = ResNet(depth=8)(norm(), classes=2, mean=(0.5,), std=(0.5,)).eval()
        block, x = model.layer1[0], torch.randn(2, 16, 8, 8)
        torch.testing.assert_close(block(x), x.relu())


def test_no_norm_has_the_scale_and_shift_of_batchnorm_and_nothing_else():
    plain = ResNet(depth=8)(NORMS["none"](), classes=2, mean=(0.5,), std=(0.5,))
    normed = ResNet(depth=8)(BN(), classes=2, mean=(0.5,), std=(0.5,))
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in normed.named_parameters()]
    assert isinstance(plain.bn1, ChannelAffine)
    assert set(plain.state_dict()) < set(normed.state_dict())


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet", {"depth": 21}), ("wrn", {"depth": 27}), ("vgg", {"depth": 13}), ("resnet18", {"width": 0})],
)
def test_impossible_sizes_are_refused(name, options):
    with pytest.raises(ValueError, match=f"of {name}"):
        MODELS.make({"name": name, **options})


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="cannot divide a site of 16 channels"):
        ResNet(depth=8)(NORMS["gn"](groups=5), classes=2, mean=(0.5,), std=(0.5,))
