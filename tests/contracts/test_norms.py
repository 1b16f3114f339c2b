"""What every norm promises, in a network of its own and in place of BatchNorm in another's."""

import copy

import pytest
import torch
from torch import nn

from normwise.evaluation.coupling import measure_coupling
from normwise.norms import NORMS, norm_reads
from normwise.norms.surgery.conversion import convert, recalibrate
from normwise.types import Norm, Site
from normwise.utils.model_state import digest
from toys import Small, images, labels, some, trained


@pytest.fixture(params=NORMS, ids=str)
def norm(request):
    return NORMS[request.param]()


POSITIONS = ("frn", "grn", "evonorm-s0")  # they read the height and width of a channel


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5), (6, 8, 4, 4), (6, 8, 2, 3, 3)], ids=len)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_shape_dtype_and_gradient_in_every_rank(norm, shape, training):
    assert isinstance(norm, Norm)
    layer = norm(Site(8)).double().train(training)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    refused = {"in": "one value per channel; use ln or bn"} if len(shape) == 2 else {}
    refused |= dict.fromkeys(POSITIONS, f"{norm.name} reads height and width, .* use layernorm2d") if len(shape) < 4 else {}
    if norm.name in refused:
        with pytest.raises(ValueError, match=refused[norm.name]):
            layer(x)
        return
    y = layer(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert (grad != 0).any()
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_tokens_and_pictures_with_channels_last_are_the_same_moved(norm, training):
    torch.manual_seed(0)
    for shape in ((6, 5, 8), (6, 4, 3, 8)):
        layer, last = norm(Site(8)).train(training), norm(Site(8, axis=-1)).train(training)
        last.load_state_dict(shaken(layer).state_dict())
        x = torch.randn(shape)
        if norm.name in POSITIONS and len(shape) == 3:
            with pytest.raises(ValueError, match=rf"^{norm.name} reads height and width, .*; got \(6, 5, 8\)"):
                last(x)
            continue
        y = last(x)
        torch.testing.assert_close(y, layer(x.movedim(-1, 1)).movedim(1, -1))
        assert y.is_contiguous(), "a linear layer would multiply row by row"


def shaken(layer):
    """The layer with scale and shift away from 1 and 0."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p))
    return layer


def moments(x):
    mean = x.mean((0, 2, 3), keepdim=True)
    return mean, (x - mean).square().mean((0, 2, 3), keepdim=True)


def extent(x):
    ordered = x.transpose(0, 1).flatten(1).sort(1).values
    return x.mean((0, 2, 3), keepdim=True), (ordered[:, -1] - ordered[:, 0]).view(-1, 1, 1)


def median(x):
    def middle(x):  # of an even number the lower one, as torch has it
        ordered = x.transpose(0, 1).flatten(1).sort(1).values
        return ordered[:, (ordered.shape[1] - 1) // 2].view(-1, 1, 1)

    return middle(x), (1.4826 * middle((x - middle(x)).abs())) ** 2


def shrunk_moments(x):
    def stein(values):  # of eight channels
        return (1 - 6 / 9 * (values - values.mean()).square().sum() / values.square().sum()) * values

    return tuple(map(stein, moments(x)))


def root(variance):
    return (variance + 1e-5) ** 0.5


def fifth(extent):
    return extent**0.2 + 1e-5


BY_CHANNEL = {  # what is measured, by what is divided, and the shares of centre and spread read from the batch in evaluation
    "bn": (moments, root, 0, 0),
    "bnwot": (moments, root, 1, 1),
    "bnm": (moments, root, 0, 1),
    "alphabn": (moments, root, 0.5, 0.5),
    "mbn": (moments, root, 0, 0),
    "multibn": (moments, root, 0, 0),
    "powerbn": (moments, lambda variance: (variance + 1e-5) ** (0.2 / 2), 0, 0),
    "meanonly": (moments, torch.ones_like, 0, 0),
    "median": (median, root, 0, 0),
    "rnt": (extent, fifth, 0, 0),
    "rn": (extent, fifth, 1, 1),
    "rnm": (extent, fifth, 0, 1),
    "jsbn": (shrunk_moments, root, 0, 0),
    "batchrenorm": (moments, root, 0, 0),  # in evaluation
}
GROUPS = {"gn": 8, "in": 8, "ln": 1, "wsgn": 8}


def whole(layer, x):
    """The whole formula of a layer that is no scale and shift of something normalized, in the papers' letters."""
    g, b, *more = (p.detach().view(-1, 1, 1) for p in layer.parameters())
    name = type(layer).__name__
    if name == "FilterResponseNorm":
        return torch.maximum(g * x / (x.square().mean((2, 3), keepdim=True) + 1e-6).sqrt() + b, more[0])
    if name == "GlobalResponseNorm":
        size = x.square().sum((2, 3), keepdim=True).sqrt()
        return x + g * x * size / (size.mean(1, keepdim=True) + 1e-6) + b
    return g * {"DynamicTanh": lambda: (more[0] * x).tanh(), "DynamicErf": lambda: (more[0] * x + more[1]).erf()}[name]() + b


def formula(name, x, seen, layer=None):
    """What scale and shift are applied to. `seen`: what one step of training has seen before evaluation; None in training."""
    if name == "none":
        return x
    if name == "layernorm2d":
        return (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    if name == "rmsnorm":
        return x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
    if name == "evonorm-s0":  # eight groups of one channel
        v = layer.v.detach().view(-1, 1, 1)
        return x / (1 + (-v * x).exp()) / root(x.var((2, 3), correction=0, keepdim=True))
    if name == "batchrenorm" and seen is None:  # running mean 0 and variance 1
        mean, variance = moments(x)
        s, start = root(variance), (1 + 1e-5) ** 0.5
        r, d = (s / start).clamp(1 / 3, 3), (mean / start).clamp(-5, 5)
        return (x - mean) / s * r + d
    if name in GROUPS:
        rows = x.reshape(len(x), GROUPS[name], -1)
        centred = rows - rows.mean(2, keepdim=True)
        return (centred / root(centred.square().mean(2, keepdim=True))).view_as(x)
    measure, divisor, *shares = BY_CHANNEL[name]
    centre, spread = measure(x)
    if seen is not None:
        centre_seen, spread_seen = measure(seen)
        n = seen.numel() // 8
        spread_seen = (
            spread_seen * n / (n - 1) if measure in (moments, shrunk_moments) else spread_seen
        )  # the unbiased one is tracked
        centre = shares[0] * centre + (1 - shares[0]) * 0.1 * centre_seen
        spread = shares[1] * spread + (1 - shares[1]) * (0.9 + 0.1 * spread_seen)
    return (x - centre) / divisor(spread)


@pytest.mark.parametrize("rows", [5, 1])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_it_is_its_formula_for_one_row_too(norm, training, rows):
    layer, x = shaken(norm(Site(8)).double()), 1 + 2 * torch.randn(rows, 8, 3, 4, dtype=torch.float64)
    seen = None if training else torch.randn(6, 8, 3, 4, dtype=torch.float64) - 1
    if seen is not None:
        layer(seen)
    if norm.name in ("dyt", "derf", "frn", "grn"):
        expected = whole(layer, x)
    else:
        shift = 0 if norm.name == "rmsnorm" else layer.bias.view(-1, 1, 1)
        expected = formula(norm.name, x, seen, layer) * layer.weight.view(-1, 1, 1) + shift
    torch.testing.assert_close(layer.train(training)(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_in_input_scale_and_shift_are_those_of_finite_differences(norm, training):
    layer = shaken(norm(Site(8)).double()).train(training)
    x = torch.randn(3, 8, *[2] * (1 + (norm.name in POSITIONS)), dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]
    if norm.name == "batchrenorm" and training:
        pytest.skip("its corrections have no gradient: another test")

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(function, (x, *layer.parameters()))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_channel_without_spread_gives_the_shift_and_no_gradient_through_its_spread(norm, training):
    layer = shaken(norm(Site(8))).train(training)
    torchs = BY_CHANNEL.get(norm.name, [None])[:2] == (moments, root) and (training or norm.name == "bnwot")
    x, way = torch.randn(4, 8, 3, 3), torch.randn(4, 8, 3, 3)
    x[:, 0] = 0.0 if torchs else 0.1  # of others than 0, torch's kernel leaves 316 times (1 / sqrt(eps)) their rounding
    x[:2, 1] = 0.1  # half are equal: enough for the deviation from the median
    x.requires_grad_()
    y = layer(x)
    grad, scale, *others = torch.autograd.grad(y, (x, *layer.parameters()), way)
    assert all(torch.isfinite(values).all() for values in (y, grad, scale, *others))
    if norm.name not in BY_CHANNEL or not (training or BY_CHANNEL[norm.name][3] == 1):
        return  # its spread is that of the sample, or what was seen before
    if norm.name in ("jsbn", "batchrenorm"):  # centred elsewhere: no gradient through the spread is all
        assert scale.abs()[0] <= way[:, 0].abs().sum() * 0.1
        return
    for channel in (0, 1) if norm.name == "median" else (0,):
        assert (y[:, channel] == layer.bias[channel]).all()
        assert scale.view(-1, 8)[0, channel] == 0
        centred = way[:, channel] - way[:, channel].mean()  # all that is left is the gradient through the mean
        slope = layer.weight[channel] * (1e-5**-0.5 if torchs else norm.name == "meanonly")
        torch.testing.assert_close(grad[:, channel], slope * centred, rtol=1e-5, atol=1e-4 if torchs else 0)


def test_half_precision_stays_half_and_finite(norm):
    layer = norm(Site(8)).train()
    x, other = 200 * torch.randn(4, 8, 3, 3), copy.deepcopy(layer)
    y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), other(x), rtol=0.05, atol=0.05 * float(y.detach().abs().max()))


def test_channels_last_gives_the_same_and_stays(norm):
    layer, x = norm(Site(8)).eval(), torch.randn(4, 8, 3, 3)
    y = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_it_reads_what_it_says_it_reads(norm):
    """Coupled exactly if it says that it reads the batch, in evaluation and in training."""
    if norm.name == "batchrenorm":  # it reads the batch beyond its bounds, and in its gradient
        inside = trained(norm).train()
        inside.drop.eval()
        assert not measure_coupling(inside, [images(32)]).coupled
        norm = NORMS["batchrenorm"](r_max=1.0, d_max=0.0)
    for model in (trained(norm), trained(norm).train()):
        model.drop.eval()
        said = any("batch" in what for what in norm_reads(model))
        assert measure_coupling(model, [images(), images(seed=1)]).coupled == said


def test_conversion_keeps_the_model_given_and_what_both_layers_know(norm):
    model = trained()
    model.norm.weight.requires_grad_(False)
    model.double()
    before = digest(model)
    new = convert(model, norm)
    assert digest(model) == before
    assert isinstance(model.norm, nn.BatchNorm2d)
    assert not isinstance(new.norm, nn.BatchNorm2d)
    assert torch.equal(new.norm.weight, model.norm.weight)
    assert norm.name == "rmsnorm" or torch.equal(new.norm.bias, model.norm.bias)
    assert not new.norm.weight.requires_grad
    assert norm.name == "rmsnorm" or new.norm.bias.requires_grad
    assert {t.dtype for t in new.state_dict().values() if t.is_floating_point()} == {torch.float64}
    assert not new.norm.training
    assert new.train().norm.training
    assert torch.equal(new.conv1.weight, model.conv1.weight)


def test_conversion_keeps_tied_layers_tied(norm):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.BatchNorm2d(8)
            self.b = self.a  # two names under one parent
            self.inner = nn.Sequential(self.a)  # and a second parent

        def forward(self, x):
            return self.inner(self.b(self.a(x)))

    new = convert(Tied(), norm)
    assert new.a is new.b is new.inner[0]
    assert not isinstance(new.a, nn.BatchNorm2d)


def test_a_bare_layer_is_converted_too(norm):
    assert norm_reads(convert(nn.BatchNorm2d(8), norm)) == norm_reads(norm(Site(8)))


LOSES = ("rmsnorm", "wsgn")  # the one has no shift, the other standardizes the weights before it


@pytest.mark.parametrize("norm", [name for name in NORMS if name not in LOSES], indirect=True)
def test_there_and_back_is_the_same_network(norm):
    model, x, seen = trained(), images(), [images(32, seed=k) for k in range(3)]
    shaken(model.norm)
    back = convert(convert(model, norm), NORMS["bn"]())
    torch.testing.assert_close(recalibrate(back, seen)(x), recalibrate(model, seen)(x))


def test_a_converted_layer_may_be_recalibrated_trained_and_evaluated(norm):
    new = convert(trained(), norm)
    again = recalibrate(new, [images(16, seed=k) for k in range(4)]) if hasattr(new.norm, "reset_running_stats") else new
    assert torch.isfinite(again(images())).all()
    new.train()(images()).sum().backward()
    assert torch.isfinite(new.eval()(images())).all()


def test_conversion_says_what_it_did_not_find():
    with pytest.raises(ValueError, match="no norm layer to convert; it has: Linear, ReLU"):
        convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), NORMS["bn"]())


def test_state_survives_saving_and_loading(norm):
    one, two = trained(norm), Small(norm, seed=1)
    two.load_state_dict(one.state_dict())
    assert torch.equal(two.eval()(images()), one(images()))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("norm", some(NORMS, "bn", "rnt", "median", "dyt", "batchrenorm"), indirect=True)
def test_it_compiles_whole_with_gradients_in_pixels(norm, mode):
    if norm.name == "batchrenorm" and mode == "train":
        pytest.skip("it is not compiled")
    torch.compiler.reset()
    model = trained(norm).train(mode == "train")
    model.drop.eval()
    x = images().requires_grad_()
    expected = torch.autograd.grad(nn.functional.cross_entropy(copy.deepcopy(model)(x), labels()), x)[0]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(nn.functional.cross_entropy(compiled(x), labels()), x)[0]
    torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of what torch.compile looks at
def test_batch_renormalization_is_right_within_what_is_compiled():
    layer, x, way = NORMS["batchrenorm"]()(Site(8)).train(), torch.randn(5, 8, 3, requires_grad=True), torch.randn(5, 8, 3)
    layer(x + 1)
    answers = [one(x) for one in (copy.deepcopy(layer), torch.compile(copy.deepcopy(layer), backend="aot_eager"))]
    torch.testing.assert_close(*(torch.autograd.grad(y, x, way)[0] for y in answers))


def test_batch_renormalization_has_the_gradient_of_fixed_corrections():
    layer = shaken(NORMS["batchrenorm"]()(Site(8)).double()).train()
    layer(torch.randn(6, 8, 3, dtype=torch.float64) + 1)
    running, mean = (layer.running_var + layer.eps).sqrt().view(-1, 1), layer.running_mean.clone().view(-1, 1)
    x, way = (torch.randn(5, 8, 3, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    centre, s = x.mean((0, 2), keepdim=True), (x.var((0, 2), correction=0, keepdim=True) + layer.eps).sqrt()
    r, d = (s / running).clamp(1 / 3, 3).detach(), ((centre - mean) / running).clamp(-5, 5).detach()
    expected = ((x - centre) / s * r + d) * layer.weight.view(-1, 1) + layer.bias.view(-1, 1)
    y = layer(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y, x, way), torch.autograd.grad(expected, x, way))
