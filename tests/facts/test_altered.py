"""Surgery on layers that are not what their class says, or that no longer track what they read."""

from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from normwise.folding import fold
from normwise.limits import unmapped
from normwise.modes import copied, set_mode
from normwise.norms import BN, GN, RNT, StatNorm, norm_reads, reads
from normwise.sharing import share_of, with_share
from normwise.surgery import convert, convert_sync, recalibrate
from worlds import Activated, Rectified, Small, Split, images, trained

CHANNELS = 8


class TwiceActivated(Activated):
    """Has the parts of timm's layer, and uses them otherwise."""

    def forward(self, x):
        return super().forward(x) - 1


class Slower(Activated):
    """Answers as timm's layer does, and keeps other statistics."""

    def forward(self, x):
        y = super().forward(x)
        if self.training:
            self.running_mean.mul_(0.5)
        return y


def replaced():
    layer = nn.BatchNorm2d(CHANNELS)
    own = layer.forward
    layer.forward = lambda x: own(x).relu()
    return layer


def bound():
    layer = nn.BatchNorm2d(CHANNELS)
    layer.forward = MethodType(lambda self, x: type(self).forward(self, x).relu(), layer)
    return layer


ALTERED = {
    "subclass": (lambda: Rectified(CHANNELS), "Rectified"),
    "norm inside": (lambda: Split(CHANNELS), "Split"),
    "parts used otherwise": (lambda: TwiceActivated(CHANNELS), "TwiceActivated"),
    "other statistics": (lambda: Slower(CHANNELS), "Slower"),
    "forward replaced": (replaced, "altered BatchNorm2d"),
    "forward bound": (bound, "altered BatchNorm2d"),
    "parametrized": (lambda: parametrizations.spectral_norm(nn.BatchNorm2d(CHANNELS)), "altered BatchNorm2d"),
    "pruned": (lambda: prune.l1_unstructured(nn.BatchNorm2d(CHANNELS), "weight", 3), "altered BatchNorm2d"),
}


def moved(model):
    """The network away from its start, in evaluation."""
    set_mode(model, "train")
    for seed in range(5):
        model(images(24, seed=seed))
    return set_mode(model, "eval")


def beside(norm):
    """A network whose first norm is this one, and whose second is plain."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(2, CHANNELS, 3),
            norm,
            nn.Conv2d(CHANNELS, 4, 1),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(64, 3),
        )
        return moved(nn.Sequential(*layers))


@pytest.mark.parametrize("kind", ALTERED)
def test_a_layer_that_does_more_than_its_class_is_kept_and_named(kind):
    make, name = ALTERED[kind]
    model, x = beside(make()), images()
    for new in (convert(model, BN()), with_share(model, 0.0)):
        torch.testing.assert_close(new(x), model(x))
        assert type(new[3]) is StatNorm
        assert unmapped(new)["1"] == f"{name} left as it is"
    assert unmapped(convert(model, GN(groups=2)))["1"] == f"{name} left as it is"
    torch.testing.assert_close(fold(model)(x), model(x))
    assert unmapped(fold(model))["1"] == f"not folded: of kind {name}"
    with pytest.raises(ValueError, match=r"^1, a .* has no synchronized kind"):
        convert_sync(model)
    alone = model[:3]
    with pytest.raises(ValueError, match="no norm layer to convert; it has: "):
        convert(alone, BN())
    with pytest.raises(ValueError, match=rf"could be mixed; 1 \({name}\).* cannot; there is nothing to adapt"):
        with_share(alone, 0.5)
    assert share_of(alone) is None


def test_a_layer_with_a_norm_inside_is_kept_whole():
    model = beside(Split(CHANNELS))
    new = convert(model, GN(groups=2))
    assert (type(new[1]), type(new[1].aux_bn[0])) == (Split, nn.BatchNorm2d)
    assert unmapped(new).keys() == {"1", "1.aux_bn.0", "3"}
    torch.testing.assert_close(new[:2](images()), model[:2](images()))


def test_what_has_only_a_constructor_of_its_own_is_converted():
    class Named(nn.BatchNorm2d):
        def __init__(self):
            super().__init__(CHANNELS, eps=0.1)

    model = beside(Named())
    new = convert(model, BN())
    assert (type(new[1]), new[1].eps, unmapped(new)) == (StatNorm, 0.1, {})
    torch.testing.assert_close(new(images()), model(images()))
    assert unmapped(fold(model)) == {}


def test_statistics_of_a_subclass_are_recalibrated():
    batches = [images(8, seed=seed) for seed in (1, 2)]
    new = recalibrate(nn.Sequential(Rectified(2)).eval(), batches)
    torch.testing.assert_close(new[0].running_mean, torch.cat(batches).mean((0, 2, 3)))
    assert new[0].momentum == 0.1


def switched_off():
    """A trained network whose norms no longer track what they read."""
    model = beside(nn.BatchNorm2d(CHANNELS))
    for norm in model:
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
    return model


@pytest.mark.parametrize(
    "work",
    [lambda model: convert(model, BN()), convert_sync, lambda model: with_share(model, 0.0)],
    ids=["bn", "sync", "share"],
)
def test_statistics_that_are_read_and_no_longer_tracked_stay_so(work):
    model, x = switched_off(), images()
    assert norm_reads(model) == {"running": 2}
    new = work(model)
    torch.testing.assert_close(new(x), model(x))
    torch.testing.assert_close(new.train()(x), model.train()(x))
    for name, value in new.state_dict().items():
        assert "num_batches" in name or torch.equal(value, model.state_dict()[name]), name


def test_what_is_read_and_not_tracked_is_recalibrated_all_the_same():
    model, batches = switched_off(), [images(seed=7)]
    tracked = copied(model)
    for norm in (tracked[1], tracked[3]):
        norm.track_running_stats = True
    new = recalibrate(model, batches)
    assert not torch.equal(new[1].running_mean, model[1].running_mean)
    torch.testing.assert_close(new.state_dict(), recalibrate(tracked, batches).state_dict())
    assert not new[1].track_running_stats


def test_layers_whose_statistics_were_taken_away_read_the_batch():
    model, x = beside(nn.BatchNorm2d(CHANNELS)), images()
    for norm in (model[1], model[3]):
        norm.running_mean = norm.running_var = None
    assert norm_reads(model) == {"batch": 2}
    for new in (convert_sync(model), fold(model)):
        torch.testing.assert_close(new(x), model(x))
    assert torch.isfinite(convert_sync(model).train()(x)).all()
    for work in (lambda: recalibrate(model, [x]), lambda: with_share(model, 0.0)):
        with pytest.raises(ValueError, match="no norms with running statistics"):
            work()


def test_instance_norm_reads_what_its_switch_says():
    layer = nn.InstanceNorm2d(2, track_running_stats=True).eval()
    assert reads(layer) == {"running"}
    assert (reads(layer, training=True), unmapped(with_share(nn.Sequential(layer, nn.BatchNorm2d(2)), 1.0))) == (
        {"sample"},
        {"0": "InstanceNorm2d left as it is"},
    )
    layer.track_running_stats = False
    assert reads(layer) == {"sample"}
    with pytest.raises(ValueError, match="nothing to recalibrate"):
        recalibrate(nn.Sequential(layer), [images()])


def test_plain_averages_and_buffers_that_are_not_saved_survive_conversion():
    layer = nn.BatchNorm2d(CHANNELS, momentum=None)
    layer._non_persistent_buffers_set = set(layer._buffers)
    model = beside(layer)
    for new in (convert(model, BN()), convert_sync(model), with_share(model, 0.0)):
        assert new.state_dict().keys() == model.state_dict().keys()
        assert new[1].momentum is None
        torch.testing.assert_close(new(images()), model(images()))
        new.load_state_dict(model.state_dict())


class Listed(nn.Module):
    """Runs its layers from a plain list, and has one of them under two names."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.body = nn.Sequential(nn.Conv2d(2, CHANNELS, 3), self.norm, nn.Flatten(), nn.Linear(16 * CHANNELS, 3))
        self.order = list(self.body)

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return x


def test_a_layer_is_replaced_wherever_it_is_held():
    model, x = moved(Listed()), images()
    new = convert(model, RNT())
    assert new.order[1] is new.norm is new.body[1]
    assert type(new.norm) is StatNorm
    with pytest.raises(ValueError, match="running_range"):
        new(x)
    folded = fold(model)
    assert isinstance(folded.order[1], nn.Identity)
    torch.testing.assert_close(folded(x), model(x))


def test_norms_that_are_called_by_the_inputs_name_are_converted():
    class Named(Small):
        def forward(self, x):
            return self.linear(self.norm(input=self.conv1(x)).relu().mean((2, 3)))

    model = Named().eval()
    for norm in (BN(), GN(groups=4), RNT(power=0.5)):
        new = recalibrate(convert(model, norm), [images()]) if norm.name == "rnt" else convert(model, norm)
        assert torch.isfinite(new(images())).all()


def test_shares_of_half_precision_are_mixed():
    model = trained().bfloat16()
    x = images().bfloat16()
    wanted = with_share(trained(), 0.5)(images())
    torch.testing.assert_close(with_share(model, 0.5)(x).float(), wanted, atol=0.05, rtol=0.05)
