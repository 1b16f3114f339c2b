"""ABNN: the layers' formulas, a substitute that never changes, gradients through both networks, and the weaker views."""

import copy
from itertools import product

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normwise.attacks import PGD
from normwise.evaluation.coupling import measure_coupling
from normwise.evaluation.evaluator import evaluate
from normwise.experiments.papers.controls import randomized, with_batchnorm
from normwise.models import VGG, NFResNet, ResNet, ResNet18
from normwise.models.abnn import Adaptive, abnn, detached, find_taps, fixed_at
from normwise.norms import FRN, GN, BNwoT, sites
from normwise.norms.adaptive import AdaptiveNorm
from normwise.norms.surgery.conversion import convert, recalibrate
from normwise.norms.surgery.folding import fold
from normwise.norms.surgery.trainable import frozen_statistics
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.training.recipes import AlignedBN
from normwise.training.schedule import Schedule
from normwise.utils.model_state import digest, untouched
from toys import THREAT, Small, Stripes, agreeing, batches, images, labels, some, trained

SCOPES = ("batch", "channel", "sample")
CASES = [
    *product(["features"], SCOPES, ["pooled", "flattened"]),
    *product(["statistics", "constant"], SCOPES, ["pooled"]),
    *product(["fusion"], [None], ["pooled", "flattened"]),
    ("plain", None, "pooled"),
]
TAPS = ("norm", "conv2")


def shaken(model, seed=0):
    """Parameters that train, and statistics, away from their start: maps that start at zero pass nothing on."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and not name.startswith("substitute"):
                tensor.add_((0.2 * torch.randn_like(tensor)).abs() if "var" in name else 0.2 * torch.randn_like(tensor))
    return model


def made(source="features", scope=None, head="pooled", taps=TAPS):
    options = Adaptive(source=source, scope=scope, head=head, taps=taps)
    return shaken(abnn(trained(), trained(seed=1), options, shape=(2, 6, 6))).eval()


@pytest.fixture
def plain_calls():
    """The run-time checker of types is no part of what is compiled or traced."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def naive(layer, z, h, training):
    """The formulas, element by element, with numpy's definitions."""
    z, h = z.detach().numpy(), h.detach().numpy()
    p = {name: value.detach().numpy() for name, value in layer.state_dict().items()}
    b, c = z.shape[:2]
    rows = h.reshape(b, h.shape[1], -1)

    def read(i):
        if layer.scope == "batch":
            return h.mean(keepdims=True).reshape(1), h.var(ddof=1, keepdims=True).reshape(1)
        if layer.scope == "channel":
            return rows.mean((0, 2)), rows.var((0, 2))
        return rows[i].mean(1), rows[i].var(1)

    def normalized(k):
        mean, variance = (
            (z[:, k].mean(), z[:, k].var()) if training else (p["norm.running_mean"][k], p["norm.running_var"][k])
        )
        return (z[:, k] - mean) / (variance + 1e-5) ** 0.5 * p["norm.weight"][k] + p["norm.bias"][k]

    out = z.copy()
    for i, k in product(range(b), range(c)):
        if layer.source == "plain":
            out[i, k] = normalized(k)[i]
            continue
        mean, variance = read(i)
        seen = h[i].ravel() if layer.head == "flattened" else rows[i].mean(1)
        if layer.source == "fusion":
            out[i, k] = normalized(k)[i] + p["style.weight"][k] @ seen + p["style.bias"][k]
        elif layer.source == "features":
            gamma, beta = ((2 / len(seen)) ** 0.5 * p["style.weight"][j] @ seen + p["style.bias"][j] for j in (k, k + c))
            root = (variance + 1e-5) ** 0.5
            if layer.scope != "batch":
                mean, root = p["match.weight"] @ mean, p["match.weight"] @ root
            j = 0 if layer.scope == "batch" else k
            out[i, k] = gamma * (root[j] * normalized(k)[i] + mean[j]) + beta
        else:
            if layer.source == "constant" and not training:
                mean, variance = p["running_mean"], p["running_var"]
            said = torch.cat([torch.tensor(mean), torch.tensor(variance + 1e-5).sqrt()]).numpy()
            centre, log_spread = (p["map.weight"][j] @ said + p["map.bias"][j] for j in (k, k + c))
            out[i, k] = (z[i, k] - centre) / (torch.tensor(log_spread).exp().item() ** 0.5) * p["weight"][k] + p["bias"][k]
    return torch.tensor(out)


def layer_and_features(source, scope, head, positions=(3, 2)):
    torch.manual_seed(0)
    layer = shaken(AdaptiveNorm(4, (3, *positions), source=source, scope=scope, head=head).double())
    z, h = torch.randn(5, 4, *[2] * len(positions)).double(), torch.randn(5, 3, *positions).double().relu()
    return layer, z.requires_grad_(), h.requires_grad_()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("positions", [(3, 2), (2, 3, 2)], ids=["image", "clip"])
@pytest.mark.parametrize(("source", "scope", "head"), CASES)
def test_the_layer_is_its_formula(source, scope, head, positions, training):
    layer, z, h = layer_and_features(source, scope, head, positions)
    layer.train(training)
    torch.testing.assert_close(layer(z, h), naive(layer, z, h, training), rtol=1e-6, atol=1e-6)


def test_without_its_own_affine_the_layer_is_the_papers_formula():
    """gamma (sigma(h) (z - mean) / deviation + mu(h)) + beta, moments per channel; option and source go together."""
    torch.manual_seed(0)
    layer = AdaptiveNorm(3, (3, 4, 4), scope="channel", affine=False).double().train()
    z, h = torch.randn(5, 3, 6, 6).double(), torch.randn(5, 3, 4, 4).double()
    own = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    mean, deviation = h.mean((0, 2, 3)), (h.var((0, 2, 3), unbiased=False) + 1e-5).sqrt()
    gamma, beta = layer.style(h.mean((2, 3)))[:, :, None, None].chunk(2, 1)
    expected = gamma * (deviation[:, None, None] * own + mean[:, None, None]) + beta
    torch.testing.assert_close(layer(z, h), expected)
    assert {name for name, _ in layer.named_parameters()} == {"style.weight", "style.bias"}
    assert "affine=False" in repr(layer)
    assert "affine" not in repr(AdaptiveNorm(3, (3,)))
    with pytest.raises(ValueError, match="affine is an option of source features; got source statistics"):
        Adaptive(source="statistics", affine=False)


@pytest.mark.parametrize(("source", "scope", "head"), CASES)
def test_gradients_of_the_layer_are_right(source, scope, head):
    layer, z, h = layer_and_features(source, scope, head, positions=(2,))
    inputs = z[:2].detach().requires_grad_(), h[:2].detach().requires_grad_()
    assert torch.autograd.gradcheck(layer.eval(), inputs)
    assert torch.autograd.gradgradcheck(layer, inputs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("source", "scope", "head"), some(CASES, CASES[0], CASES[-1]))
def test_the_layer_compiles_whole(source, scope, head, training, plain_calls):
    layer, z, h = layer_and_features(source, scope, head)
    layer.train(training)
    twin = copy.deepcopy(layer)
    torch._dynamo.reset()
    out, expected = torch.compile(layer, fullgraph=True, backend="aot_eager")(z, h), twin(z, h)
    inputs = (z,) if source == "plain" or (source == "constant" and not training) else (z, h)
    torch.testing.assert_close(out, expected)
    pairs = zip(torch.autograd.grad(out.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs), strict=True)
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("source", ["features", "statistics"])
def test_the_whole_model_compiles_whole_with_gradients_in_pixels(source, training, plain_calls):
    model, x, y = made(source).train(training), images(4).requires_grad_(), labels(4)
    model.target.drop.eval()
    twin = copy.deepcopy(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(slope(compiled, x, y), slope(twin, x, y))


@pytest.mark.parametrize(("source", "scope", "head"), CASES)
def test_the_layout_of_memory_changes_nothing(source, scope, head):
    model, x = made(source, scope, head).double(), images().double()
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for training in (True, False):
        for network in (model, last):
            network.train(training).target.drop.eval()
        torch.testing.assert_close(last(x.contiguous(memory_format=torch.channels_last)), model(x))


@pytest.mark.parametrize(("source", "scope", "head"), CASES)
def test_constant_features_and_batches_of_one_give_finite_gradients(source, scope, head):
    layer, z, _ = layer_and_features(source, scope, head)
    h = torch.ones(1, 3, 3, 2).double().requires_grad_()
    layer.train()
    out = layer(z[:1], h)
    (out.sum() + layer.divergence(z[:1], h)).backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(g).all() for g in (z.grad, h.grad, *(p.grad for p in layer.parameters())) if g is not None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_are_read_in_float32(dtype):
    layer, z, h = layer_and_features("statistics", "sample", "pooled")
    layer, z, h = layer.float(), z.detach().to(dtype), (1000 * h.detach()).to(dtype)  # whose squares float16 lacks
    assert layer(z, h).dtype == dtype
    torch.testing.assert_close(layer(z, h), layer(z.float(), h.float()).to(dtype))


@pytest.mark.parametrize(("source", "scope", "head"), CASES)
def test_a_whole_abnn_of_half_precision_answers_as_in_full(source, scope, head):
    model, x = made(source, scope, head), images()
    half = copy.deepcopy(model).bfloat16()
    for training in (True, False):
        for network in (model, half):
            network.train(training).target.drop.eval()
        got, expected = half(x.bfloat16()), model(x)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), expected, rtol=0.1, atol=0.1 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("scope", SCOPES)
def test_the_alignment_is_the_divergence_of_two_gaussians(scope):
    layer, z, h = layer_and_features("statistics", scope, "pooled")
    expected = []
    for i in range(5 if scope == "sample" else 1):
        own = z[i : i + 1] if scope == "sample" else z
        mean, variance = own.mean((0, 2, 3)), own.var((0, 2, 3), correction=0) + 1e-5
        centre, log_spread = (part[i] for part in layer._delivered(h))
        normal = torch.distributions.Normal
        expected.append(
            torch.distributions.kl_divergence(normal(mean, variance.sqrt()), normal(centre, (log_spread / 2).exp())).mean()
        )
    torch.testing.assert_close(layer.divergence(z, h), torch.stack(expected).mean())


def test_the_features_layer_starts_with_unit_variance_weights_and_a_scale_of_one():
    torch.manual_seed(0)
    layer = AdaptiveNorm(4, (300,), source="features")
    assert float(layer.style.weight.detach().std()) == pytest.approx(1, abs=0.05)
    assert layer.style.bias.tolist() == [1.0] * 4 + [0.0] * 4


@pytest.mark.parametrize("scope", SCOPES)
def test_the_constant_control_keeps_a_running_average_of_what_it_read_in_training(scope):
    layer, z, h = layer_and_features("constant", scope, "pooled")
    before = layer.running_mean.clone()
    layer.eval()(z, 2 * h)
    assert torch.equal(layer.running_mean, before)
    layer.train()(z, h)
    read = h.mean().view(1) if scope == "batch" else h.mean((0, 2, 3))
    torch.testing.assert_close(layer.running_mean, 0.9 * before + 0.1 * read)
    assert torch.equal(layer.eval()(z, h), layer(z, 2 * h))
    layer.momentum = None  # a plain average, whose first batch counts whole, whatever passes an attack made
    layer._averaged = 0
    with untouched(layer.train(), torch.Generator()):
        layer(z, 3 * h)
    layer(z, h)
    torch.testing.assert_close(layer.running_mean, read)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_constant_controls_averages_are_recalibrated_and_frozen_like_a_norms(scope):
    model, x = made("constant", scope), images(16)
    again = recalibrate(model, [x, x])
    fresh = copy.deepcopy(again).train().requires_grad_(False)
    for layer in fresh.adaptive:
        layer.momentum = 1.0
    fresh(x)
    for layer, one in zip(again.adaptive, fresh.adaptive, strict=True):
        torch.testing.assert_close(layer.running_var, one.running_var)
        assert layer.momentum == 0.1
    before = digest(model)
    with frozen_statistics(model.train()):
        model(x)
    assert digest(model) == before


def test_the_statistics_layer_starts_as_the_identity_and_so_the_abnn_as_its_target():
    model = abnn(trained(), trained(seed=1), Adaptive(source="statistics", taps=TAPS), shape=(2, 6, 6))
    torch.testing.assert_close(model(images()), trained()(images()))


@pytest.mark.parametrize("source", ["features", "statistics", "constant", "fusion"])
def test_training_leaves_the_substitute_and_the_given_networks_to_the_bit(source):
    target, substitute = trained(), trained(seed=1).train()
    before = digest(target), digest(substitute)
    model = abnn(target, substitute, Adaptive(source=source, taps=TAPS), shape=(2, 6, 6))
    fitted = fit(model, Stripes(), AlignedBN(), Linf(), Schedule(epochs=2, batch_size=16, lr=0.05, decay="constant"), seed=0)
    assert (digest(target), digest(substitute)) == before
    assert digest(fitted.model.substitute.network) == before[1]
    assert digest(fitted.model.target) != before[0]
    assert substitute.training
    assert fitted.training.forwards == 2 * fitted.training.backwards == 2 * 2 * 96
    assert fitted.training.trained_parameters == fitted.training.parameters - sum(p.numel() for p in substitute.parameters())
    fitted.model.train()
    fitted.model.substitute.train()
    assert not any(module.training for module in fitted.model.substitute.modules())
    assert fitted.model.target.training
    fitted.model.requires_grad_(True)
    assert not any(p.requires_grad for p in AlignedBN().prepare(fitted.model).substitute.parameters())


def test_recalibration_and_conversion_leave_the_substitute_alone():
    model = made()
    before = digest(model.substitute)
    assert digest(recalibrate(model, [images(16)]).substitute) == before
    converted = convert(abnn(trained(), trained(seed=1), Adaptive(taps=("conv1:in", "conv2")), shape=(2, 6, 6)), BNwoT())
    assert digest(converted.substitute) == before
    assert isinstance(converted.substitute.network.norm, nn.BatchNorm2d)
    assert converted(images()).shape == (12, 3)
    for norm in (BNwoT(), GN(groups=2), FRN()):
        assert convert(model, norm)(images()).shape == (12, 3)  # hooks, taps among them, survive conversion


def slope(model, x, y):
    return torch.autograd.grad(F.cross_entropy(model(x), y), x)[0]


@pytest.mark.parametrize(
    ("source", "scope", "head"), [case for case in CASES if case[0] in ("features", "statistics", "fusion")]
)
def test_the_gradient_in_the_pixels_flows_through_both_networks(source, scope, head):
    model = made(source, scope, head).double()
    x, y = images(4).double().requires_grad_(), labels(4)
    whole, way = slope(model, x, y), torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        up, down = (F.cross_entropy(model(x + t * way), y) for t in (1e-6, -1e-6))
    assert float((whole * way).sum()) == pytest.approx(float(up - down) / 2e-6, rel=1e-4)
    weaker = detached(model)
    torch.testing.assert_close(weaker(x), model(x))
    assert (slope(weaker, x, y) - whole).norm() > 0.02 * whole.norm()


def test_the_fixed_view_reads_the_clean_statistics_whatever_rows_are_left():
    model, clean = made(scope="sample"), images(12)
    x = (clean + 0.03 * images(12, seed=3)).requires_grad_()
    view = fixed_at(model, clean)
    torch.testing.assert_close(view(x), model.answer(x, clean).logits)
    assert not torch.allclose(view(x), model(x))
    rows = torch.tensor([7, 2, 5])
    torch.testing.assert_close(view(x[rows]), view(x)[rows])
    torch.testing.assert_close(slope(view, x, labels()), slope(lambda x: model.answer(x, clean).logits, x, labels()))


@pytest.mark.parametrize("view", [detached, lambda model: fixed_at(model, images(40))])
def test_weaker_views_craft_and_the_model_judges(view):
    model = made(scope="sample")
    parts = agreeing(model, batches(2, 20))
    verdict = evaluate(model, parts, THREAT, [PGD(steps=3)], craft_on=view(model))
    assert verdict.evaluation.clean_accuracy.value == 1
    judged = torch.cat([model(verdict.adversarial(i)).argmax(1) for i in range(2)])
    assert torch.equal(judged, verdict.rows.predictions)


@pytest.mark.parametrize("source", ["features", "statistics"])
@pytest.mark.parametrize("scope", SCOPES)
def test_rows_are_coupled_unless_statistics_are_of_the_row(source, scope):
    assert measure_coupling(made(source, scope), [images(12)]).coupled == (scope != "sample")
    assert not measure_coupling(made("constant", scope), [images(12)]).coupled


def test_copies_are_independent_and_weights_load():
    model, x = made(), images()
    twin = copy.deepcopy(model)
    before = model(x)
    shaken(twin, seed=1)
    assert torch.equal(model(x), before)
    assert not torch.allclose(twin(x), before)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), before)
    copy.deepcopy(model)  # after a pass: nothing of its graph is left in it


@pytest.mark.parametrize("source", ["features", "statistics", "plain"])
def test_networks_of_ours_find_their_taps_whatever_their_depth_width_and_classes(source):
    stats = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    for target, substitute in [
        (ResNet(depth=8, width=4)(classes=3, **stats), ResNet(depth=14, width=6)(classes=7, mean=(0, 0, 0), std=(1, 1, 1))),
        (ResNet18(width=4)(classes=3, **stats), VGG(depth=11)(classes=5, **stats)),
    ]:
        model = shaken(abnn(target, substitute, Adaptive(source=source), shape=(3, 16, 16)))
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)
        assert len(model.adaptive) == len(find_taps(substitute))
        assert (model.substitute is None) == (source == "plain")


def test_a_folded_copy_answers_alike(plain_calls):
    networks = (ResNet(depth=8, width=w)(classes=3, mean=(0.5,), std=(0.2,)) for w in (4, 6))
    model, x = shaken(abnn(*networks, shape=(1, 8, 8))).double(), torch.rand(3, 1, 8, 8).double()
    folded = fold(model)
    torch.testing.assert_close(folded(x), model(x))
    assert isinstance(folded.target.bn1, nn.Identity)
    assert isinstance(folded.substitute.network.layer1[0].bn2, nn.Identity)


class Clips(nn.Module):
    def __init__(self, width, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layer1, self.layer2 = nn.Conv3d(2, width, 3, padding=1), nn.Conv3d(width, width, 3, 2)
        self.linear = nn.Linear(width, 3)

    def forward(self, x):
        return self.linear(self.layer2(self.layer1(x).relu()).mean((2, 3, 4)))


def test_clips_go_through():
    model = shaken(abnn(Clips(4, 0), Clips(6, 1), Adaptive(source="statistics"), shape=(2, 4, 5, 5)))
    x = torch.rand(2, 2, 4, 5, 5, requires_grad=True)
    assert slope(model, x, torch.tensor([0, 2])).abs().sum() > 0


REFUSED = [
    (Adaptive(), r"the target, a Small, has no taps that are known .* name modules of it: taps"),
    (Adaptive(taps=("nrom",)), r"no module of the target is named 'nrom'; did you mean 'norm'\? "),
    (
        Adaptive(taps=("norm",), substitute_taps=("conv1", "norm")),
        "the target has 1 taps .* the substitute 2 .* expected as many",
    ),
    (Adaptive(taps=("linear", "twice")), "tap twice of the target was passed 2 times; expected once"),
    (Adaptive(taps=("two",)), r"tap two of the target gives tuple; expected features \(b, c, \.\.\.\)"),
    (Adaptive(taps=("norm", "norm")), "expected each once"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_networks_that_cannot_be_tapped_are_refused_in_one_line(options, message):
    class Odd(Small):
        def __init__(self):
            super().__init__()
            self.twice, self.two = nn.Identity(), nn.Module()
            self.two.forward = lambda x: (x, x)

        def forward(self, x):
            return super().forward(self.twice(self.twice(self.two(x)[0])))

    target = Small() if not options.taps else Odd()
    with pytest.raises(ValueError, match=message) as caught:
        abnn(target, trained(), options, shape=(2, 6, 6))
    assert "\n" not in str(caught.value)


def test_options_that_do_not_go_together_are_refused():
    for bad in ({"source": "plain", "scope": "batch"}, {"source": "statistics", "head": "flattened"}):
        with pytest.raises(ValueError, match=r"reads no statistics|has no head"):
            Adaptive(**bad)
    with pytest.raises(ValueError, match="reads a substitute; got None"):
        abnn(trained(), None, Adaptive(taps=TAPS), shape=(2, 6, 6))
    with pytest.raises(ValueError, match=r"cannot take images of shape \(5, 6, 6\)"):
        abnn(trained(), trained(), Adaptive(taps=TAPS), shape=(5, 6, 6))
    with pytest.raises(ValueError, match=r"substitute's features \(2, 8, 7, 7\); expected \(2, 8, 6, 6\)"):
        made(head="flattened")(torch.rand(2, 2, 7, 7))
    with pytest.raises(ValueError, match="got a Small, which has no substitute"):
        detached(trained())


def test_batchnorm_in_the_layout_without_norms_stands_behind_every_convolution():
    free = NFResNet(depth=8, width=4)(None, classes=3, mean=(0.5,), std=(0.5,))
    shapes = [tuple(m.weight.shape) for m in free.modules() if isinstance(m, nn.Conv2d)]
    model = with_batchnorm(free)
    assert [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Conv2d)] == shapes
    norms = [model.get_submodule(path) for path in sites(model)]
    assert [one.num_features for one in norms] == [shape[0] for shape in shapes]
    assert sum(not one.weight.any() for one in norms) == 3  # residual branches start at 0
    assert model(torch.rand(2, 1, 16, 16)).shape == (2, 3)


def test_controls():
    model, twin = trained(), randomized(trained(), seed=1)
    assert digest(twin) == digest(randomized(trained(seed=2), seed=1)) != digest(model)
    assert torch.equal(twin.norm.running_mean, torch.zeros(8))
    free = NFResNet(depth=8, width=8)(classes=3, mean=(0.5,), std=(0.2,))
    for p in free.parameters():
        p.data.fill_(7.0)
    assert not any((p == 7).any() for p in randomized(free).parameters())
