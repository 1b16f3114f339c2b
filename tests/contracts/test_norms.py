"""What every norm promises, in a network of its own and in place of BatchNorm in another's."""

import copy

import pytest
import torch
from torch import nn

from normwise.coupling import measure_coupling
from normwise.modes import digest
from normwise.norms import NORMS, norm_reads
from normwise.surgery import convert, recalibrate
from normwise.types import Norm, Site
from worlds import Small, images, labels, trained


@pytest.fixture(params=NORMS, ids=str)
def norm(request):
    return NORMS[request.param]()


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5), (6, 8, 4, 4), (6, 8, 2, 3, 3)], ids=len)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_shape_dtype_and_gradient_in_every_rank(norm, shape, training):
    assert isinstance(norm, Norm)
    layer = norm(Site(8)).double().train(training)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    if norm.name == "in" and len(shape) == 2:
        with pytest.raises(ValueError, match="one value per channel; use ln or bn"):
            layer(x)
        return
    y = layer(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert (grad != 0).any()
    assert torch.isfinite(grad).all()


def test_gradient_is_that_of_finite_differences(norm):
    layer = norm(Site(8)).double().eval()
    x = torch.randn(3, 8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_a_constant_channel_gives_the_shift_and_no_nan(norm):
    layer = norm(Site(8)).train()
    x = torch.randn(4, 8, 3, 3)
    x[:, 0] = 2.0
    x.requires_grad_()
    y = layer(x)
    (grad,) = torch.autograd.grad(y.sum() + y.square().sum(), x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(grad).all()
    if "batch" in norm_reads(layer):
        assert (y[:, 0] == 0).all()


def test_half_precision_stays_half_and_finite(norm):
    layer = norm(Site(8)).train()
    x = 200 * torch.randn(4, 8, 3, 3)
    y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), copy.deepcopy(layer)(x), rtol=0.05, atol=0.05 * float(y.detach().abs().max()))


def test_channels_last_gives_the_same_and_stays(norm):
    layer, x = norm(Site(8)).eval(), torch.randn(4, 8, 3, 3)
    y = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_it_reads_what_it_says_it_reads(norm):
    """Coupled exactly if it says that it reads the batch, in evaluation and in training."""
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
    assert torch.equal(new.norm.bias, model.norm.bias)
    assert not new.norm.weight.requires_grad
    assert new.norm.bias.requires_grad
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


def test_there_and_back_is_the_same_network(norm):
    model, x = trained(), images()
    back = convert(convert(model, norm), NORMS["bn"]())
    if "running_mean" in dict(convert(model, norm).norm.named_buffers()):
        recalibrated = recalibrate(back, [images(32, seed=k) for k in range(3)])
        expected = recalibrate(model, [images(32, seed=k) for k in range(3)])
        torch.testing.assert_close(recalibrated(x), expected(x))


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
def test_it_compiles_whole_with_gradients_in_pixels(norm, mode):
    torch.compiler.reset()
    model = trained(norm).train(mode == "train")
    model.drop.eval()
    x = images().requires_grad_()
    expected = torch.autograd.grad(nn.functional.cross_entropy(copy.deepcopy(model)(x), labels()), x)[0]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(nn.functional.cross_entropy(compiled(x), labels()), x)[0]
    torch.testing.assert_close(got, expected)
