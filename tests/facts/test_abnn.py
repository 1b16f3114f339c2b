"""ABNN: formulas, a substitute that never changes and always sees the same input, gradients through both."""

import copy
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normwise.abnn import ABNN, abnn, at_clean, detached
from normwise.attacks import PGD
from normwise.coupling import measure_coupling
from normwise.models import VGG, ResNet
from normwise.modes import digest
from normwise.norms import BN, AdaptiveNorm
from normwise.recipes import Aligned
from normwise.schedule import Schedule
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.training import fit
from normwise.types import Batch
from normwise.verdict import evaluate
from worlds import Stripes, images, labels, trained

TAPS = [("norm", "norm")]
SOURCES = ("features", "statistics", "constant", "fusion", "plain")
SCOPES = ("batch", "channel", "sample")


def pairs(*lists):
    return list(product(*lists))


def made(**options):
    return abnn(trained(), trained(seed=1), images(2), taps=TAPS, **options).eval()


def layer(source, scope, size=0):
    torch.manual_seed(0)
    found = AdaptiveNorm(4, 3, source=source, scope=scope, size=size).double()
    for p in found.parameters():
        nn.init.normal_(p, std=0.5)
    return found


def moments(h, scope, eps=1e-5):
    axes = {"batch": None, "channel": (0, 2, 3), "sample": (2, 3)}[scope]
    mean = h.mean() if axes is None else h.mean(axes)
    variance = (
        ((h - (mean if axes is None else mean.view(-1, 3, 1, 1))) ** 2).mean() if axes is None else h.var(axes, correction=0)
    )
    return mean, (variance + eps).sqrt()


@pytest.mark.parametrize(("scope", "head"), pairs(SCOPES, ("pooled", "flattened")))
def test_features_are_the_authors_formula(scope, head):
    z, h = torch.randn(5, 4, 6, 6).double(), torch.randn(5, 3, 2, 2).double()
    found = layer("features", scope, size=12 if head == "flattened" else 0)
    u = found.norm(z)
    read = h.flatten(1) if head == "flattened" else h.mean((2, 3))
    both = read @ (found.head.weight * (2 / read.shape[1]) ** 0.5).T + found.head.bias
    gamma, beta = both[:, :4, None, None], both[:, 4:, None, None]
    mean, deviation = moments(h, scope)
    if scope != "batch":
        mean = (mean.view(-1, 3) @ found.centre.weight.T + found.centre.bias)[..., None, None]
        deviation = (deviation.view(-1, 3) @ found.spread.weight.T + found.spread.bias)[..., None, None]
    torch.testing.assert_close(found(z, h), gamma * (deviation * u + mean) + beta, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_statistics_are_delivered_and_their_distance_is_the_kl_of_gaussians(scope):
    z, h = torch.randn(5, 4, 6, 6).double(), torch.randn(5, 3, 2, 2).double()
    found = layer("statistics", scope)
    mean, deviation = (one.expand(3) if scope == "batch" else one for one in moments(h, scope))
    centre = mean.view(-1, 3) @ found.centre.weight.T + found.centre.bias
    spread = F.softplus(deviation.view(-1, 3) @ found.spread.weight.T + found.spread.bias) + 1e-5
    u = (z - centre[..., None, None]) / spread[..., None, None]
    expected = u * found.norm.weight.view(1, 4, 1, 1) + found.norm.bias.view(1, 4, 1, 1)
    torch.testing.assert_close(found(z, h), expected, rtol=1e-6, atol=1e-6)
    axes = (2, 3) if scope == "sample" else (0, 2, 3)
    own = torch.distributions.Normal(z.mean(axes), (z.var(axes, correction=0) + 1e-5).sqrt())
    kl = torch.distributions.kl_divergence(own, torch.distributions.Normal(centre, spread)).mean()
    torch.testing.assert_close(found.alignment, kl)


@pytest.mark.parametrize(("source", "scope"), pairs(SOURCES, SCOPES))
def test_gradients_are_right_in_float64_and_constant_features_give_no_nan(source, scope):
    found = layer(source, scope).eval()
    z, h = (torch.randn(3, c, 2).double().requires_grad_() for c in (4, 3))
    assert torch.autograd.gradcheck(found, (z, h))
    z, h = torch.zeros(3, 4, 2).requires_grad_(), torch.zeros(3, 3, 2).requires_grad_()
    grads = torch.autograd.grad(found.float()(z, h).sum(), (z, h), allow_unused=True)
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 3, 3), (4, 2, 3, 3)], ids=len)
@pytest.mark.parametrize("source", SOURCES)
def test_every_rank(source, shape):
    found, x = AdaptiveNorm(4, 4, source=source), torch.randn(3, *shape)
    assert found(x, x).shape == x.shape
    assert found.eval()(x, x).dtype == x.dtype


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("source", ["features", "statistics"])
def test_it_compiles_whole_with_gradients(source, training):
    torch.compiler.reset()
    found = AdaptiveNorm(4, 4, source=source).train(training)
    z, h = torch.randn(3, 4, 3, 3).requires_grad_(), torch.randn(3, 4, 3, 3)
    expected = torch.autograd.grad(copy.deepcopy(found)(z, h).square().sum(), z)[0]
    compiled = torch.compile(found, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(z, h).square().sum(), z)[0], expected)


@pytest.mark.parametrize("source", SOURCES)
def test_training_moves_the_target_and_nothing_of_the_substitute(source):
    model = made(source=source)
    before = digest(model.substitute)
    quick = Schedule(epochs=1, batch_size=16, lr=0.05, weight_decay=0.1, validate_every=0)
    new = fit(model, Stripes(), Aligned(), Linf(), quick, seed=0).model
    assert isinstance(new, ABNN)
    assert digest(new.substitute) == before
    assert digest(new.target) != digest(model.target)
    assert not any(module.training for module in new.train().substitute.modules())
    assert new.target.training


@pytest.mark.parametrize(("source", "scope"), pairs(("features", "statistics"), SCOPES))
def test_the_gradient_goes_through_both_networks(source, scope):
    model, x = made(source=source, scope=scope).double(), images(3).double()
    for p in model.layers.parameters():
        nn.init.normal_(p, std=0.3, generator=generator(0))

    def grad(model):
        z = x.clone().requires_grad_()
        return torch.autograd.grad(model(z).square().sum(), z)[0]

    direction = torch.randn(x.shape, generator=generator(1)).double()
    h = 1e-6
    slope = (model(x + h * direction).square().sum() - model(x - h * direction).square().sum()) / (2 * h)
    torch.testing.assert_close((grad(model) * direction).sum(), slope, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(detached(model)(x), model(x))
    assert not torch.allclose((grad(detached(model)) * direction).sum(), slope, rtol=1e-2)


def test_the_substitute_sees_what_the_target_sees_but_in_the_labelled_view():
    model, x = made(), images(4)
    moved = (x + 0.1).clamp(0, 1)
    view = at_clean(model, x)
    assert not torch.allclose(model(moved), view(moved))
    torch.testing.assert_close(model(x), view(x))
    assert model.clean is None


@pytest.mark.parametrize(("scope", "coupled"), [("batch", True), ("channel", True), ("sample", False)])
@pytest.mark.parametrize("source", ["features", "statistics"])
def test_rows_are_coupled_where_statistics_are_the_batchs(source, scope, coupled):
    model = made(source=source, scope=scope)
    for p in model.layers.parameters():
        nn.init.normal_(p, generator=generator(0))
    assert measure_coupling(model, [images(), images(seed=1)]).coupled == coupled
    assert torch.isfinite(model(images(1))).all()


def test_weaker_views_may_be_crafted_on_while_the_model_judges():
    model, x, y = made(scope="sample"), images(20), labels(20)
    batch = Batch(x, y, torch.arange(20))
    found = evaluate(model, [batch], Linf(eps=0.05), [PGD(steps=5)], craft_on=detached(model)).evaluation
    assert found.digest_before == found.digest_after


def test_our_residual_networks_are_tapped_at_the_stem_and_each_stage():
    nets = [ResNet(depth=8, width=w)(BN(), classes=5, mean=(0.5,) * 2, std=(0.2,) * 2) for w in (4, 8)]
    model = abnn(nets[0], nets[1], images(2))
    assert model.taps == [("bn1", "bn1"), ("layer1", "layer1"), ("layer2", "layer2"), ("layer3", "layer3")]
    assert [layer.channels for layer in model.layers] == [4, 4, 8, 16]
    assert model(images(3)).shape == (3, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy.deepcopy(model).load_state_dict(before)


@pytest.mark.parametrize(
    ("substitute", "taps", "message"),
    [
        (trained(), (), "no stem and stages that are known; give taps"),
        (VGG()(BN(), classes=3, mean=(0.5,) * 2, std=(0.2,) * 2), (), "no stem and stages"),
        (trained(), [("norm", "nothing")], "Small has no module 'nothing' to tap; give paths such as its conv1"),
        (trained(), [("conv1", "drop.x")], "no module 'drop.x'"),
    ],
)
def test_a_substitute_that_cannot_be_tapped_is_named(substitute, taps, message):
    target = ResNet(depth=8, width=4)(BN(), classes=5, mean=(0.5,) * 2, std=(0.2,) * 2) if not taps else trained()
    with pytest.raises(ValueError, match=message):
        abnn(target, substitute, images(2), taps=taps)


def test_a_copy_may_be_made_between_a_forward_in_training_and_its_backward():
    model = made(source="statistics").train()
    model(images())
    assert model.alignment.requires_grad
    assert not copy.deepcopy(model).alignment.requires_grad


def test_abnn_trains_nothing_else():
    with pytest.raises(ValueError, match="abnn trains a target with a substitute; got Small"):
        Aligned().prepare(trained())
