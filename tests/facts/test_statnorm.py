"""StatNorm is BatchNorm at share 0, and the published layers at the other points of the square."""

import copy
import shutil

import pytest
import torch
from torch import nn

from normwise.norms import BN, BNM, RN, RNM, RNT, BNwoT, StatNorm
from normwise.types import Site

KINDS = [
    (nn.BatchNorm1d, (6, 5)),
    (nn.BatchNorm1d, (6, 5, 4)),
    (nn.BatchNorm2d, (6, 5, 4, 3)),
    (nn.BatchNorm3d, (4, 5, 2, 3, 3)),
]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("generic", [False, True], ids=["native", "generic"])
@pytest.mark.parametrize(("kind", "shape"), KINDS, ids=str)
def test_share_zero_is_batchnorm_with_its_buffers_and_gradients(kind, shape, momentum, generic):
    theirs, ours = kind(5, momentum=momentum).double(), StatNorm(5, momentum=momentum).double()
    ours._is_batchnorm = not generic  # both ways of computing it
    for model in (theirs, ours):
        nn.init.uniform_(model.weight, generator=torch.Generator().manual_seed(0))
        nn.init.uniform_(model.bias, generator=torch.Generator().manual_seed(1))
    for step in range(6):
        training = step < 4
        x = (3 * torch.randn(shape, dtype=torch.float64) + 1).requires_grad_()
        outcomes = []
        for model in (theirs, ours):
            y = model.train(training)(x)
            outcomes.append((y, *torch.autograd.grad(y.pow(3).sum(), (x, model.weight, model.bias))))
        for a, b in zip(*outcomes, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        assert theirs.state_dict().keys() == ours.state_dict().keys()
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shares", [(0, 0), (1, 1), (0, 1), (0.3, 0.6)], ids=str)
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4, 3), (4, 5, 2, 3, 3)], ids=len)
def test_robustnorm_is_its_formula(shape, shares, training):
    """gamma (x - mean) / (range ** p + eps) + beta; running mean from 0 and running range from 1, momentum 0.1."""
    layer = RNT(power=0.2, centre_share=shares[0], spread_share=shares[1])(Site(5)).double()
    nn.init.uniform_(layer.weight)
    nn.init.uniform_(layer.bias)
    x, axes = torch.randn(shape, dtype=torch.float64), [0, *range(2, len(shape))]
    view = [1, 5] + [1] * (len(shape) - 2)
    mean, spread = x.mean(axes), x.amax(axes) - x.amin(axes)
    running_mean, running_range = 0.1 * mean, 0.9 + 0.1 * spread
    layer.train()(x)
    torch.testing.assert_close(layer.running_mean, running_mean)
    torch.testing.assert_close(layer.running_range, running_range)
    assert "running_var" not in layer.state_dict()
    if not training:
        mean = (1 - shares[0]) * running_mean + shares[0] * mean
        spread = (1 - shares[1]) * running_range + shares[1] * spread
    expected = layer.weight.view(view) * (x - mean.view(view)) / (spread.view(view) ** 0.2 + 1e-5) + layer.bias.view(view)
    torch.testing.assert_close(layer.train(training)(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("choice", "measure", "shares"),
    [
        (BN, "moments", (0, 0)),
        (BNwoT, "moments", (1, 1)),
        (BNM, "moments", (0, 1)),
        (RNT, "range", (0, 0)),
        (RN, "range", (1, 1)),
        (RNM, "range", (0, 1)),
    ],
)
def test_the_named_points_of_the_square(choice, measure, shares):
    layer = choice()(Site(3))
    assert (layer.measure, layer.centre_share, layer.spread_share) == (measure, *shares)


def test_reading_the_batch_ignores_what_was_tracked():
    x = torch.randn(8, 5, 3, 3)
    layer = BNwoT()(Site(5)).eval()
    layer.running_mean.fill_(100)
    torch.testing.assert_close(layer(x), nn.BatchNorm2d(5).train()(x))


def test_one_value_per_channel_is_refused_in_training_and_gives_the_shift_when_reading_the_batch():
    for choice in (BN, RNT):
        with pytest.raises(ValueError, match="more than one value per channel"):
            choice()(Site(3)).train()(torch.randn(1, 3))
    for choice in (BNwoT, RN):
        assert torch.equal(choice()(Site(3)).eval()(torch.randn(1, 3)), torch.zeros(1, 3))


def test_batchnorms_weights_load_into_robustnorm_which_then_asks_for_recalibration():
    theirs, x = nn.BatchNorm2d(5), torch.randn(8, 5, 3, 3)
    theirs(x)
    layer = RNT()(Site(5))
    layer.load_state_dict(theirs.state_dict())
    assert torch.equal(layer.running_mean, theirs.running_mean)
    with pytest.raises(ValueError, match="recalibrate"):
        layer.eval()(x)
    again = RNT()(Site(5))
    again.load_state_dict(layer.state_dict())  # the doubt survives saving
    with pytest.raises(ValueError, match="recalibrate"):
        again.eval()(x)
    layer.train()(x)  # the first batch it sees counts whole
    torch.testing.assert_close(layer.running_range, x.amax((0, 2, 3)) - x.amin((0, 2, 3)))
    assert torch.isfinite(layer.eval()(x)).all()


@pytest.mark.parametrize("choice", [BN, RNT])
def test_what_a_state_dict_lacks_stays_as_it_is(choice):
    layer = choice()(Site(5))
    layer(torch.randn(8, 5, 3, 3))
    layer.expect_recalibration(choice is RNT)
    before = copy.deepcopy(layer.state_dict())
    layer.load_state_dict({"weight": torch.full((5,), 2.0)}, strict=False)
    torch.testing.assert_close(layer.state_dict(), before | {"weight": torch.full((5,), 2.0)})
    assert bool(layer.unknown) == (choice is RNT)


def test_the_authors_weights_load_with_their_range_under_batchnorms_name():
    state = nn.BatchNorm2d(5).state_dict() | {"running_var": torch.full((5,), 4.0)}
    layer = StatNorm(5, measure="range", power=0.2, eps_inside=False, legacy=True)
    layer.load_state_dict(state)
    assert (layer.running_range == 4).all()
    layer.eval()(torch.randn(2, 5, 3, 3))


@pytest.mark.parametrize(
    "options", [{"centre_share": 1.5}, {"spread_share": -0.1}, {"power": -1.0}, {"measure": "rang"}], ids=str
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"give a number|did you mean 'range'"):
        StatNorm(3, **options)


def test_a_wrong_number_of_channels_is_named():
    with pytest.raises(ValueError, match=r"StatNorm of 3 channels got shape \(2, 4, 1\)"):
        StatNorm(3)(torch.zeros(2, 4, 1))


@pytest.mark.skipif(
    not shutil.which("g++") and not shutil.which("clang++"), reason="inductor needs a C++ compiler; none here"
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # by torch, of itself
def test_code_generated_by_inductor_is_the_eager_layer():
    """One layer, both modes, with the gradient in its input: what `speed.compile` and training under compile rely on."""
    torch.compiler.reset()
    eager = StatNorm(3, power=0.2, centre_share=0.25, spread_share=0.5)
    compiled = torch.compile(twin := copy.deepcopy(eager), fullgraph=True, backend="inductor")
    for training in (True, False):
        x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(int(training)), requires_grad=True)
        weights = torch.linspace(-1, 2, x.numel()).view_as(x)
        outcomes = []
        for module in (eager.train(training), compiled.train(training)):
            y = module(x)
            outcomes.append((y, *torch.autograd.grad((y * weights).sum(), x)))
        for a, b in zip(*outcomes, strict=True):
            assert a.abs().max() > 0.1
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value)


@pytest.mark.parametrize("training", [True, False])
def test_power_zero_centres_and_divides_by_one_plus_eps_also_without_spread(training):
    layer = RNT(power=0.0)(Site(2)).train(training)
    layer.running_range.copy_(torch.tensor([0.0, 2.0]))
    x = torch.stack([torch.full((6,), 1.0), torch.arange(6.0)], dim=1)
    mean = x.mean(0) if training else torch.zeros(2)
    torch.testing.assert_close(layer(x), (x - mean) / (1 + layer.eps))
