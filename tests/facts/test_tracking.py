"""What surgery makes of running statistics that are read, tracked, both or neither."""

import pytest
import torch
from torch import nn

from normwise.norms import BN, norm_reads, reads
from normwise.norms.surgery.adaptation import share_of, unshared, with_share
from normwise.norms.surgery.conversion import convert, convert_sync, recalibrate
from normwise.norms.surgery.folding import fold
from normwise.norms.surgery.unmapped import unmapped
from normwise.utils.model_state import copied
from toys import CHANNELS, Rectified, beside, images


class Stuck(nn.BatchNorm2d):
    """Reads its statistics in training too, as a quantized one, and never moves them."""

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var)


def test_statistics_that_no_batch_moves_are_kept_and_named():
    model = beside(Stuck(CHANNELS))
    model.unused = nn.BatchNorm2d(4)
    for kept in (model[1], model.unused):
        kept.running_mean.fill_(7.0)
    model.forward = lambda x, layers=list(model)[:-1]: [x := layer(x) for layer in layers][-1]
    new = recalibrate(model, [images(seed=3)])
    assert unmapped(new) == dict.fromkeys(("1", "unused"), "running statistics kept: no batch moved them")
    assert (new[1].running_mean == 7).all()
    assert not torch.equal(new[3].running_mean, model[3].running_mean)
    with pytest.raises(ValueError, match="moves no running statistics in training"):
        recalibrate(nn.Sequential(Stuck(2)), [images()])


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


def test_norms_of_other_kinds_that_keep_statistics_are_named_where_shares_are_given():
    class FrozenBatchNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(2))

        def forward(self, x):
            return x - self.running_mean.view(-1, 1, 1)

    model = nn.Sequential(FrozenBatchNorm(), nn.BatchNorm2d(2)).eval()
    assert unmapped(with_share(model, 0.5)) == {"0": "FrozenBatchNorm left as it is"}
    assert (share_of(model), unshared(model)) == (0.0, "0 (FrozenBatchNorm)")


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
