"""Normalizer-free networks: timm's names and shapes, the convolution's formula, variances as scheduled, rows alone."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from normwise.experiments.experiment import Experiment, build
from normwise.models import MODELS
from normwise.models.nfresnet import GAMMA, NFBlock, NFResNet, NFResNet26, NFResNet50, ScaledStdConv2d
from normwise.norms import BN, NoNorm, sites

COLOUR = {"classes": 5, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
NAMES = ("nfresnet", "nfresnet26", "nfresnet50")
TIMM = [line.split() for line in (Path(__file__).parent / "given/timm_nf_resnet.txt").read_text().splitlines()[1:]]


def small(name="nfresnet", **options):
    torch.manual_seed(0)
    return MODELS.make({"name": name, "width": 8, **({"depth": 8} if name == "nfresnet" else {}), **options})(**COLOUR)


def opened(model):
    """The model with every last gain at 1, so that its residual branches count."""
    for module in model.modules():
        if isinstance(module, ScaledStdConv2d):
            torch.nn.init.ones_(module.gain)
    return model


@pytest.mark.parametrize(("choice", "theirs"), [(NFResNet26(), "nf_resnet26"), (NFResNet50(), "nf_resnet50")])
def test_names_and_shapes_are_timms_key_for_key(choice, theirs):
    with torch.device("meta"):
        model = choice(classes=1000, mean=(0.5,) * 3, std=(0.5,) * 3)
        known = {key: tuple(map(int, shape.split("x"))) for name, key, shape in TIMM if name == theirs}
        assert {key: tuple(p.shape) for key, p in model.named_parameters()} == known
        model.load_state_dict({key: torch.empty(shape) for key, shape in known.items()}, assign=True)


@pytest.mark.parametrize(("choice", "theirs"), [(NFResNet26(), "nf_resnet26"), (NFResNet50(), "nf_resnet50")])
def test_logits_are_timms(choice, theirs):
    timm = pytest.importorskip("timm", reason="timm, which needs torchvision, is not installed", exc_type=ImportError)
    other = opened(timm.create_model(theirs)).eval()
    model = choice(classes=1000, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    model.load_state_dict(other.state_dict())
    x = torch.rand(2, 3, 95, 95)
    torch.testing.assert_close(model(x), other(x), atol=1e-5, rtol=1e-4)


def test_betas_are_those_of_the_paper():
    with torch.device("meta"):
        model = NFResNet50()(**COLOUR)
    first, increments = [1, 0.9449, 0.9285, 0.898], [0.9806, 0.9623, 0.9449, 0.9285, 0.9129]
    for stage, start, depth in zip(model.stages, first, NFResNet50.depths, strict=True):
        assert [block.beta for block in stage] == pytest.approx([start, *increments[: depth - 1]], abs=1e-4)
    drops = [block.drop for stage in small("nfresnet26", drop_path=0.7).stages for block in stage]
    assert drops == pytest.approx([0.1 * k for k in range(8)])


def test_the_convolution_is_its_formula_and_its_gradient_is_right():
    torch.manual_seed(0)
    layer = ScaledStdConv2d(3, 4, 3, stride=2).double()
    for p in layer.parameters():
        p.data.normal_()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    flat = layer.weight.detach().flatten(1)
    fan_in = flat.shape[1]
    filters = (flat - flat.mean(1, keepdim=True)) / ((flat.var(1, correction=0, keepdim=True) + 1e-5) * fan_in).sqrt()
    filters = layer.gain.detach() * GAMMA * filters.view_as(layer.weight)
    torch.testing.assert_close(layer(x), F.conv2d(x, filters, layer.bias, 2, 1), atol=1e-6, rtol=0)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(function, (x, *layer.parameters()))
    assert pytest.approx((2 / (1 - 1 / torch.pi)) ** 0.5, rel=1e-3) == GAMMA


def test_a_constant_filter_has_finite_gradients():
    layer = ScaledStdConv2d(1, 2, 1)  # a fan-in of one: every filter is constant
    layer(torch.randn(2, 1, 4, 4)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_variances_grow_as_scheduled(name):
    """Counted from the measured variance after a stage's first block: before every further one, and where the stage ends."""
    torch.manual_seed(0)
    options = {"width": 64, "depth": 26} if name == "nfresnet" else {"width": 64}
    model = opened(MODELS[name](**options)(classes=10, mean=(0.0,) * 3, std=(1.0,) * 3)).eval()
    y = model.stem(torch.randn(2, 3, *([32, 32] if name == "nfresnet" else [128, 128])))
    for stage in model.stages:
        y = stage[0](y)
        first = y.var((0, 2, 3)).mean().item()
        for k, block in enumerate(list(stage)[1:], 1):
            assert block.beta == pytest.approx((1 + k * 0.04) ** -0.5)
            y = block(y)
            predicted = first * (1 + (k + 1) * 0.04) / 1.04
            assert y.var((0, 2, 3)).mean().item() == pytest.approx(predicted, rel=0.15)
        assert y.var((0, 2, 3)).mean() > first * (1 + (len(stage) - 1) * 0.02)  # it does grow: at least half as said


@pytest.mark.parametrize("mode", [True, False])
def test_half_precision_stays_half_and_near(mode):
    model, x = opened(small()).train(mode), torch.rand(4, 3, 32, 32, requires_grad=True)
    half = copy.deepcopy(model).bfloat16()
    y = half(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), model(x), rtol=0.05, atol=0.05 * float(model(x).detach().abs().max()))
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.isfinite(grad).all()
    assert grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_branches_start_at_zero_and_nothing_normalizes(name):
    model = small(name)
    assert not sites(model)
    for block in (module for module in model.modules() if isinstance(module, NFBlock)):
        assert not block.branch(torch.randn(2, block.conv1.in_channels, 8, 8)).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [True, False])
def test_a_row_knows_nothing_of_its_batch(name, mode):
    model, x = opened(small(name)).train(mode).double(), torch.rand(5, 3, 32, 32, dtype=torch.float64)
    alone = torch.cat([model(row[None]) for row in x])
    torch.testing.assert_close(model(x), alone, atol=1e-12, rtol=0)


def test_dropped_rows_lose_the_branch_and_the_others_make_up_for_it():
    block = opened(NFBlock(8, 8, 1, bottleneck=False, alpha=0.5, beta=1.0, drop=0.25)).double().train()
    x = torch.randn(400, 8, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    kept = (block(x) - x).flatten(1).abs().sum(1) > 0
    assert 0.65 < kept.double().mean() < 0.85
    whole = block.eval()(x) - x
    torch.manual_seed(0)
    torch.testing.assert_close((block.train()(x) - x)[kept], (whole / 0.75)[kept])


@pytest.mark.parametrize("mode", [True, False])
def test_it_compiles_whole_with_gradients_in_pixels(mode):
    model = opened(small(drop_path=0.1 * mode)).train(mode)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for network in (model, compiled):
        x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        torch.manual_seed(0)
        network(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


def test_the_layout_of_memory_changes_nothing():
    model, x = opened(small("nfresnet26")).double(), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected)


@pytest.mark.parametrize("name", NAMES)
def test_norms_are_refused_in_one_line(name):
    model = MODELS[name](width=8)
    with pytest.raises(ValueError, match=f"^{name} normalizes nothing and has no place for norm bn; .*$"):
        model(BN(), **COLOUR)
    assert not sites(model(NoNorm(), **COLOUR))


def test_an_experiment_needs_no_norm_where_the_network_has_none():
    assert not sites(build(Experiment(model=NFResNet(depth=8, width=4), norm=None)))
    with pytest.raises(ValueError, match="norm is null"):
        Experiment(norm=None)


@pytest.mark.parametrize("options", [{"depth": 21}, {"width": 0}, {"alpha": 0.0}, {"drop_path": 1.0}, {"dropout": -0.1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match="of nfresnet"):
        NFResNet(**options)
