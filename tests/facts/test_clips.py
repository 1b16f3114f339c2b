"""Clips: what their order tells, networks that see it, and one that cannot."""

import pytest
import torch

from normwise.attacks import PGD
from normwise.data import Digits, MovingDigits
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.experiments.experiment import Experiment, prepared
from normwise.models import FrameResNet, OverViews, R2Plus1D, ResNet, ResNet3D, ResNet18, inflate
from normwise.models.abnn import Adaptive, abnn, detached, fixed_at
from normwise.norms import BN, RNT, BNwoT
from normwise.norms.surgery.conversion import convert, recalibrate
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.training.recipes import Adversarial, AlignedBN, Standard
from normwise.training.schedule import Schedule
from normwise.utils.layout import layout
from normwise.utils.model_state import digest
from toys import filmed, images

DATA = MovingDigits(train_limit=64, validation_size=64, test_limit=20)
ABOUT = {"classes": 4, "mean": DATA.mean, "std": DATA.std}


def frames(clip):
    """The pictures of a clip, in an order of their own."""
    return sorted(map(tuple, clip[0].flatten(1).tolist()))


@pytest.mark.parametrize(("axis", "along"), [("horizontal", 1), ("vertical", 0)])
def test_the_frames_of_a_clip_tell_nothing_of_its_class_but_by_their_order(axis, along):
    given = MovingDigits(axis=axis).arrays()
    x, y = given.test_x, given.test_y
    assert (len(x), x.shape[1:], y.bincount(minlength=4).min() > 100) == (500, (1, 8, 16, 16), True)
    for row in range(20):
        picture = x[row, 0, 0]
        assert frames(x[row]) == sorted(tuple(picture.roll(2 * place, along).flatten().tolist()) for place in range(8))
        step = (1, 3, 5, 7)[y[row]]
        assert torch.equal(x[row, 0, 1], picture.roll(2 * step, along))
        backwards = x[row].flip(1)
        assert torch.equal(backwards[0, 1], backwards[0, 0].roll(2 * (1, 3, 5, 7)[3 - y[row]], along))


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


READINGS = {  # of ABNN: the authors' code, the abstract, the formula
    "features": Adaptive(scope="sample"),
    "statistics": Adaptive(source="statistics", scope="sample"),
    "formula": Adaptive(scope="channel", affine=False),
}


@pytest.mark.parametrize("reading", READINGS)
def test_abnn_takes_a_substitute_for_clips_in_each_reading(reading):
    few = MovingDigits(train_limit=32, validation_size=0, test_limit=8)
    given = filmed(seed=1, classes=4)
    model = abnn(filmed(classes=4), given, READINGS[reading], shape=few.shape)
    assert len(model.adaptive) == 5  # behind the stem and behind each stage
    threat, schedule = Linf(eps=0.03), Schedule(epochs=2, batch_size=16, lr=0.05)
    made = fit(model, few, AlignedBN(), threat, schedule, seed=0).model
    assert digest(made.substitute.network) == digest(given)
    assert all((a != b).any() for a, b in zip(made.adaptive.parameters(), model.adaptive.parameters(), strict=True))
    (part,) = few.test(batch_size=8)
    assert (made.aligned(part.x).alignment > 0) == (reading == "statistics")
    noisy = (0.9 * part.x + 0.1 * images(8, few.shape)).requires_grad_()
    torch.testing.assert_close(fixed_at(made, part.x)(noisy), made.answer(noisy, part.x).logits)
    grads = [
        torch.autograd.grad(net(noisy).logsumexp(1).sum(), noisy)[0]
        for net in (made, detached(made), fixed_at(made, part.x))
    ]
    least = 1e-3 * grads[0].abs().amax()  # of what goes through the substitute too, in every frame of every clip
    assert ((grads[0] - grads[1]).abs() > least).flatten(3).any(3).all()
    assert all((grad != 0).flatten(3).any(3).all() for grad in grads)
    found = evaluate(made, [part], AttackPlan(threat, [PGD(steps=2)]))
    assert found.evaluation.coupled == (reading == "formula")


def test_convolutions_over_time_are_never_laid_out_as_pictures():
    assert layout(ResNet3D(depth=10, width=64)(BN(), **ABOUT), torch.device("cuda")) == torch.contiguous_format


@pytest.mark.parametrize("options", [{"depth": 12}, {"width": 0}, {"depth": 101, "width": 8}])
def test_impossible_sizes_are_refused(options):
    with pytest.raises(ValueError, match=r"give 10, 18, 20, 32, 56 or 101|width of resnet3d counts channels|multiple of 16"):
        ResNet3D(**options)


def test_depth_101_is_the_resnext_of_the_paper():
    """Counted by hand: Hara et al. 2018, table 1, with projections, for 400 classes."""
    with torch.device("meta"):
        model = ResNet3D(depth=101, stem="large")(BN(), classes=400, mean=(0.5,) * 3, std=(0.5,) * 3)
    count, inputs = 3 * 64 * 343 + 128, 64
    for stage, blocks in enumerate((3, 4, 23, 3)):
        inner, outputs = 128 * 2**stage, 256 * 2**stage
        count += inputs * outputs + 2 * outputs
        for block in range(blocks):
            count += (inputs if block == 0 else outputs) * inner + 2 * inner
            count += 27 * inner * inner // 32 + 2 * inner + inner * outputs + 2 * outputs
        inputs = outputs
    assert sum(p.numel() for p in model.parameters()) == count + 2048 * 400 + 400
    small = ResNet3D(depth=101, width=16, stem="large")(BN(), **ABOUT).eval()
    assert small(torch.rand(2, 1, 8, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize("taps", ["all", "middle"])
def test_inflated_weights_answer_a_picture_that_stands_still_as_the_image_network_does(taps):
    images = ResNet18(width=4)(BN(), classes=3, mean=(0.4,), std=(0.2,)).double().eval()
    clips = ResNet3D(depth=18, width=4)(BN(), classes=3, mean=(0.1,), std=(0.3,)).double().eval()
    with torch.no_grad():
        for p in images.parameters():
            p.normal_(0, 0.3)
    assert inflate(images.state_dict(), clips, taps) == []
    x = torch.rand(2, 1, 16, 16).double()
    still = x[:, :, None].expand(-1, -1, 5 if taps == "middle" else 65, -1, -1)
    if taps == "middle":
        torch.testing.assert_close(clips(still), images(x))
        return
    for module in clips.modules():  # in the middle of time, no convolution has met padding; time is not shortened
        if isinstance(module, torch.nn.Conv3d):
            module.stride = (1, *module.stride[1:])
    seen = []
    clips.layer4.register_forward_hook(lambda module, args, out: seen.append(out[:, :, 32]))
    images.layer4.register_forward_hook(lambda module, args, out: seen.append(out))
    clips(still), images(x)
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize(("depth", "shortcut"), [(20, "pad"), (32, "projection"), (56, "pad")])
def test_published_depths_inflate(depth, shortcut):
    images = ResNet(depth=depth, width=4, shortcut=shortcut)(BN(), classes=3, mean=(0.4,), std=(0.2,)).double().eval()
    clips = ResNet3D(depth=depth, width=4, shortcut=shortcut)(BN(), classes=3, mean=(0.1,), std=(0.3,)).double().eval()
    with torch.no_grad():
        for p in images.parameters():
            p.normal_(0, 0.3)
    assert inflate(images.state_dict(), clips, "middle") == []
    x = torch.rand(2, 1, 16, 16).double()
    torch.testing.assert_close(clips(x[:, :, None].expand(-1, -1, 5, -1, -1)), images(x))


def test_inflation_names_what_does_not_fit():
    images = ResNet18(width=4)(BN(), classes=3, mean=(0.4,), std=(0.2,)).state_dict()
    clips = ResNet3D(depth=18, width=4)(BN(), **ABOUT)
    assert sorted(inflate(images, clips)) == ["linear.bias", "linear.weight"]
    for state, says in (
        ({name: value for name, value in images.items() if name != "conv1.weight"}, "they lack conv1.weight"),
        (images | {"more": torch.zeros(1)}, "they have no place for more"),
        (ResNet18(width=8)(BN(), **ABOUT).state_dict(), "has .* give a network of these widths"),
    ):
        with pytest.raises(ValueError, match=says):
            inflate(state, clips)


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_a_video_is_answered_by_the_mean_over_its_clips_and_attacked_through_it(mean):
    network = ResNet3D(depth=10, width=4)(BN(), **ABOUT).double().eval()
    x = torch.rand(2, 1, 12, 16, 16, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    whole = OverViews(network, 3, mean)
    parts = torch.stack([network(part) for part in x.split(4, dim=2)])
    expected = parts.mean(0) if mean == "logits" else parts.softmax(2).mean(0).log()
    torch.testing.assert_close(whole(x), expected)
    (grad,) = torch.autograd.grad(whole(x)[:, 0].sum(), x)
    assert all((part != 0).flatten(1).any(1).all() for part in grad.split(4, dim=2))
    with pytest.raises(ValueError, match=r"videos must be \(b, c, 3 x t, h, w\)"):
        whole(x[:, :, :10])


def test_what_is_mirrored_may_have_another_class():
    with pytest.raises(
        ValueError, match=r"a mirrored row of moving-digits may have another class; leave schedule\.flip out"
    ):
        fit(
            ResNet3D(depth=10, width=4)(BN(), **ABOUT),
            DATA,
            Standard(),
            Linf(eps=0.1),
            Schedule(epochs=1, flip=True),
            seed=0,
        )
    x, y = DATA.test(batch_size=20)[0][:2]
    named = MovingDigits().names
    assert {(named[a], named[b]) for a, b in zip(y.tolist(), motions(x.flip(-1)), strict=True)} <= set(
        zip(named, named[::-1], strict=True)
    )


def motions(x):
    """The class of each clip, by which shift makes the second frame of the first."""
    return [
        next(k for k, step in enumerate((1, 3, 5, 7)) if torch.equal(clip[0, 1], clip[0, 0].roll(2 * step, 1))) for clip in x
    ]


@pytest.mark.parametrize(
    ("data", "model", "says"),
    [
        (DATA, ResNet(depth=8), "model resnet reads images, and the rows of moving-digits are clips"),
        (Digits(), ResNet3D(depth=10, width=4), "model resnet3d reads clips, and the rows of digits are images"),
        (DATA, ResNet3D(depth=10, width=4, views=2), "data.views is 1, and model.views 2"),
    ],
)
def test_a_network_and_rows_of_another_kind_are_refused_in_one_line(data, model, says):
    with pytest.raises(ValueError, match=says):
        prepared(Experiment(data=data, model=model))
