"""Several attackers at once: how they are scaled, training against their mean and their worst, routes that a detector weights."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normwise.attacks import PGD
from normwise.models import FrameResNet, ResNet, ResNet3D, Standardize, checkpoints
from normwise.norms import BN, GN, MBN, MultiBN, Routed, on_route, routed
from normwise.norms.surgery.conversion import convert, recalibrate
from normwise.registry import plain
from normwise.seeding import generator
from normwise.threats import L2, SPA, Frame, Linf, MultAV, Patch
from normwise.threats.scaled import KINDS, scaled
from normwise.training import recipes
from normwise.training.recipes import Multi
from toys import Watched, images, labels, trained

THREAT, X, Y = Linf(eps=0.05), images(8), labels(8)
ABOUT = {"classes": 4, "mean": (0.5,), "std": (0.25,)}


def test_attackers_have_the_sizes_of_the_papers_at_theirs_and_scale_with_the_picture_and_the_radius():
    papers = [scaled(kind, Linf(4 / 255), (3, 40, 112, 112)) for kind in KINDS]
    assert papers[0] == Linf(4 / 255)
    assert [one.eps for one in papers[1:3]] == pytest.approx([5, 0.04])
    assert papers[3:] == [Patch(size=30), Frame(width=10), SPA(pixels=100, per_frame=True)]
    ours = [scaled(kind, Linf(8 / 255), (3, 32, 32)) for kind in KINDS]
    assert [type(one) for one in ours] == [Linf, L2, MultAV, Patch, Frame, SPA]
    assert [one.eps for one in ours[1:3]] == pytest.approx([10 * math.sqrt(32**2 / (40 * 112**2)), 0.08])
    assert ours[3:] == [Patch(size=9), Frame(width=3), SPA(pixels=8)]
    assert [scaled(kind, THREAT, (1, 4, 4)) for kind in KINDS[3:]] == [Patch(size=1), Frame(width=1), SPA(pixels=1)]
    with pytest.raises(ValueError, match="scaled beside a radius in linf; got l2"):
        scaled("roa", L2(), (3, 32, 32))


@pytest.mark.parametrize("over", ["mean", "max"])
def test_training_against_several_attackers_is_its_formula(over):
    model = trained()
    watched = Watched(model)
    cost = Multi(over=over, steps=2, kinds=("linf", "roa", "spa")).loss(watched, X, Y, THREAT, generator=generator(0))
    looks = watched.asked[-1]
    if over == "max":
        crafted = watched.asked[-4:-1]
        each = torch.stack([F.cross_entropy(model(one), Y, reduction="none") for one in crafted])
        assert len(set(each.argmax(0).tolist())) > 1
        assert torch.equal(looks, torch.stack([crafted[k][row] for row, k in enumerate(each.argmax(0))]))
        torch.testing.assert_close(cost.loss, each.amax(0).mean())
        assert (cost.forwards, cost.backwards) == (8 * (3 * 3 + 1), 8 * (3 * 2 + 1))
        return
    parts = looks.split(8)
    for kind, part in zip(("linf", "roa", "spa"), parts, strict=True):
        assert scaled(kind, THREAT, X.shape[1:]).around(X, generator=generator(0)).contains(part).all()
    torch.testing.assert_close(cost.loss, torch.stack([F.cross_entropy(model(part), Y) for part in parts]).mean())
    assert torch.equal(
        cost.logits.argmax(1) == Y,
        torch.stack([model(part).argmax(1) == Y for part in parts])[
            torch.stack([F.cross_entropy(model(part), Y, reduction="none") for part in parts]).argmax(0), torch.arange(8)
        ],
    )


def shaken():
    """A network with three routes that differ, and a detector that is not sure."""
    model = recalibrate(convert(trained(), MultiBN()), [images()]).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm." in name or "detector" in name:
                p.add_(torch.randn(p.shape, generator=generator(0, name)).to(p) * (0.5 if "norm." in name else 0.2))
        for layer in model.norm.statistics[1:]:
            layer.running_mean.add_(0.3)
    return model


def test_the_detector_weights_the_routes_row_by_row_and_gradients_go_through_it():
    model, x = shaken(), X.double().requires_grad_()
    seen = []
    model.norm.register_forward_hook(lambda module, args, out: seen.append(out))
    model(x)
    shares = model.detector(x).softmax(1)
    assert (shares.amax(1) < 0.999).all()
    (mixed,) = seen
    for route in range(3):
        with routed(model, route):
            model(x)
    expected = torch.einsum("br,rbchw->bchw", shares, torch.stack(seen[1:]))
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(model(x[:1]), model(x)[:1])  # no row asks its neighbours
    assert model.norm.shares is None
    direction = torch.randn(x.shape, generator=generator(0, "direction"), dtype=torch.float64)
    (grad,) = torch.autograd.grad(F.cross_entropy(model(x), Y), x)
    step = 1e-6 * direction
    with torch.no_grad():
        slope = (F.cross_entropy(model(x + step), Y) - F.cross_entropy(model(x - step), Y)) / 2e-6
    torch.testing.assert_close((grad * direction).sum(), slope, rtol=1e-4, atol=1e-8)


def test_who_takes_one_route_asks_no_detector():
    model = shaken()
    oracle = on_route(model, 1)
    x = X.double()
    assert not torch.allclose(oracle(x), model(x))
    model.detector.forward = None
    with routed(model, 1):
        assert torch.equal(oracle(x), model(x))
    with pytest.raises(TypeError):
        model(x)
    assert model.norm.shares is None
    assert convert(oracle, MBN(routes=3))(x).shape == (8, 3)
    again = convert(shaken(), MultiBN())  # keeps what its detector has learned
    assert torch.equal(again(x), shaken()(x))


@pytest.mark.parametrize("norm", [MultiBN(), MBN(route=1)], ids=str)
def test_routes_that_know_no_statistics_are_measured(norm):
    model = convert(trained(GN(groups=2)), norm)
    with pytest.raises(ValueError, match="does not know"):
        model.eval()(X)
    ready = recalibrate(model, iter([X, images(8, seed=3)])).eval()
    assert ready(X).shape == (8, 3)
    for layer in (module for module in ready.modules() if isinstance(module, Routed)):
        means = [one.running_mean for one in layer.statistics]
        assert all(torch.equal(mean, means[0]) for mean in means)


def test_the_detector_stands_in_the_module_that_holds_the_layers():
    model = convert(nn.Sequential(Standardize((0.5, 0.5), (0.2, 0.2)), trained()), MultiBN())
    assert list(model[1]._modules)[-1] == "detector"
    assert model(X).shape == (8, 3)
    frames = convert(FrameResNet(width=4)(BN(), **ABOUT), MultiBN())
    assert frames(torch.rand(2, 1, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"would run it as a layer; put the layers into a class"):
        convert(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), MultiBN())


@pytest.mark.parametrize("clips", [False, True])
def test_images_and_clips_train_routes_and_detector_and_the_network_is_built_again_from_its_card(clips):
    kind = ResNet3D(depth=10, width=4) if clips else ResNet(depth=8, width=4)
    norm = MultiBN(kinds=("linf", "af", "spa"))
    model = kind(norm, **ABOUT)
    x = images(6, (1, 4, 8, 8) if clips else (1, 8, 8))
    recipe = recipes.MultiRoutes(steps=1)
    ready = recipe.prepare(model).train()
    recipe.loss(ready, x, labels(6), THREAT, generator=generator(0)).loss.backward()
    layer = next(module for module in ready.modules() if isinstance(module, Routed))
    means = [one.running_mean for one in layer.statistics]
    assert all(not torch.equal(a, b) for n, a in enumerate(means) for b in means[:n])  # each route saw its own images
    assert all((p.grad != 0).any() for p in ready.detector.parameters())
    card = {"norm": plain(norm), "model": plain(kind), **ABOUT}
    again = checkpoints.build(card, "here")
    again.load_state_dict(ready.state_dict())
    assert torch.equal(again.eval()(x), ready.eval()(x))
    found = PGD(steps=2)(again, x, labels(6), THREAT, generator=generator(0))
    assert (found.x_adv != x).any()


def test_wrong_choices_are_refused_in_one_line():
    for wrong in (lambda: Multi(kinds=()), lambda: Multi(kinds=("roa", "roa"))):
        with pytest.raises(
            ValueError, match=r"kinds of multi are .*; give some of linf, l2, multav, roa, af, spa, each once"
        ):
            wrong()
    with pytest.raises(ValueError, match="kinds are none; give some"):
        MultiBN(kinds=())
    with pytest.raises(ValueError, match="kinds of the norm multibn are elsewhere"):
        recipes.MultiRoutes().prepare(convert(trained(), MultiBN(kinds=("elsewhere",))))
    with pytest.raises(ValueError, match="multibn trains networks with routes by attack"):
        recipes.MultiRoutes().prepare(ResNet(depth=8, width=4)(BN(), **ABOUT))
