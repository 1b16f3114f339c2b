"""Clips: what their order tells, networks that see it, and one that cannot."""

import pytest
import torch

from normwise.attacks import PGD
from normwise.data import MovingDigits
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.models import FrameResNet, R2Plus1D, ResNet3D
from normwise.models.abnn import abnn
from normwise.norms import BN, RNT, BNwoT
from normwise.norms.surgery.conversion import convert, recalibrate
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.training.recipes import Adversarial, Standard
from normwise.training.schedule import Schedule
from normwise.utils.layout import layout

DATA = MovingDigits(train_limit=64, validation_size=64, test_limit=20)
ABOUT = {"classes": 4, "mean": DATA.mean, "std": DATA.std}


def frames(clip):
    """The pictures of a clip, in an order of their own."""
    return sorted(map(tuple, clip[0].flatten(1).tolist()))


def test_the_frames_of_a_clip_tell_nothing_of_its_class_but_by_their_order():
    given = MovingDigits().arrays()
    x, y = given.test_x, given.test_y
    assert (len(x), x.shape[1:], y.bincount(minlength=4).min() > 100) == (500, (1, 8, 16, 16), True)
    for row in range(20):
        picture = x[row, 0, 0]
        assert frames(x[row]) == sorted(tuple(picture.roll(2 * place, 1).flatten().tolist()) for place in range(8))
        step = (1, 3, 5, 7)[y[row]]
        assert torch.equal(x[row, 0, 1], picture.roll(2 * step, 1))
        backwards = x[row].flip(1)
        assert torch.equal(backwards[0, 1], backwards[0, 0].roll(2 * (1, 3, 5, 7)[3 - y[row]], 1))


def test_the_control_answers_a_clip_and_its_shuffled_frames_alike():
    x = MovingDigits().arrays().test_x[:6].double()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    control = FrameResNet(width=4)(BN(), **ABOUT).double().eval()
    torch.testing.assert_close(control(x[:, :, order]), control(x))
    for kind in (ResNet3D, R2Plus1D):
        model = kind(depth=10, width=4)(BN(), **ABOUT).double().eval()
        assert not torch.allclose(model(x[:, :, order]), model(x))


@pytest.mark.parametrize(("kind", "millions"), [(ResNet3D, 33.37), (R2Plus1D, 31.51)])  # torchvision's r3d_18, r2plus1d_18
def test_the_number_of_parameters_is_about_that_of_the_published_networks(kind, millions):
    with torch.device("meta"):  # the stem differs
        model = kind()(BN(), classes=400, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.08)


def test_a_network_for_clips_is_trained_attacked_converted_and_given_a_substitute():
    model = ResNet3D(depth=10, width=4)(BN(), **ABOUT)
    schedule = Schedule(epochs=1, lr=0.01, batch_size=32)
    made = fit(model, DATA, Adversarial(steps=1), Linf(eps=0.05), schedule, seed=0).model
    parts = DATA.test(batch_size=10)
    found = evaluate(made, parts, AttackPlan(Linf(eps=0.05), [PGD(steps=2)], goal="targeted"))
    assert found.x_adv.shape == (20, 1, 8, 16, 16)
    assert not found.evaluation.coupled
    assert evaluate(convert(made, BNwoT()), parts, Linf(eps=0.05), PGD(steps=1)).evaluation.coupled
    assert recalibrate(convert(made, RNT()), parts)(parts[0].x).shape == (10, 4)
    defended = abnn(ResNet3D(depth=10, width=4)(BN(), **ABOUT), made, shape=DATA.shape)
    assert fit(defended, DATA, Standard(), Linf(eps=0.05), schedule, seed=0).model(parts[0].x).shape == (10, 4)


def test_convolutions_over_time_are_never_laid_out_as_pictures():
    assert layout(ResNet3D(depth=10, width=64)(BN(), **ABOUT), torch.device("cuda")) == torch.contiguous_format


@pytest.mark.parametrize("options", [{"depth": 12}, {"width": 0}])
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ValueError, match=r"give 10 or 18|width of resnet3d counts channels"):
        ResNet3D(**options)
