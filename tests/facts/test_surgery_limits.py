"""Surgery says what it could not do, in one line or by the layers concerned; and it does what it can to timm's layers."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import TensorDataset

from normwise.models.abnn import Adaptive, abnn
from normwise.norms import BN, GN, MBN, NORMS, RN, RNT, NoNorm, RobustNorm2d, sites
from normwise.norms.surgery.conversion import convert, insert, recalibrate
from normwise.norms.surgery.folding import fold
from normwise.norms.surgery.trainable import only
from normwise.norms.surgery.unmapped import unmapped
from normwise.types import Site
from normwise.utils.model_state import digest
from toys import Activated, Small, images, trained


class FrozenNorm(nn.Module):
    """A norm of a kind that nobody knows, by its name alone."""


class NormBlock(nn.Sequential):
    """A block with layers in it, and a name that could mislead."""


class Normalize(nn.Identity):
    """What makes pixels ready."""


def test_conversion_names_what_it_left_and_dropped():
    block = NormBlock(weight_norm(nn.Conv2d(8, 8, 1)), FrozenNorm(), Normalize())
    model = nn.Sequential(nn.BatchNorm2d(8), nn.LayerNorm((6, 6)), nn.LocalResponseNorm(2), block)
    left = {"1": "LayerNorm left as it is", "2": "LocalResponseNorm left as it is", "3.1": "FrozenNorm left as it is"}
    for norm, said in (
        (GN(), {"0": "running_mean, running_var dropped"}),
        (NoNorm(), {"0": "running_mean, running_var dropped"}),
        (RNT(), {"0": "running_range unknown"}),
        (BN(), {}),
    ):
        assert unmapped(convert(model, norm)) == said | left
    assert unmapped(model) == {}
    assert unmapped(convert(convert(nn.Sequential(RNT()(Site(8))), GN()), BN())) == {
        "0": "running_mean, running_var unknown"
    }
    assert unmapped(convert(nn.Sequential(MBN(route=1)(Site(8))), BN())) == {"0": "routes other than 1 dropped"}
    assert (
        "biases dropped"
        in unmapped(convert(nn.Sequential(MBN(of="rmsnorm", share="statistics")(Site(8))), NORMS.make("rmsnorm")))["0"]
    )
    adapted = abnn(trained(), trained(seed=1), Adaptive(source="statistics", taps=("conv1",)), shape=(2, 6, 6))
    assert unmapped(convert(adapted, BN())) == {
        "adaptive.0": "AdaptiveNorm left as it is",
        "substitute.network.norm": "BatchNorm2d left as it is",
    }


class Asks(Small):
    def forward(self, x):
        return super().forward(x if x.mean() > 0.5 else 1 - x)


@pytest.mark.parametrize(
    ("norm", "why"),
    [
        (nn.BatchNorm2d(8), None),
        (RobustNorm2d(8), None),
        (RN()(Site(8)), "it reads the batch"),
        (RobustNorm2d(8, track_running_stats=False), "it reads the batch"),
        (nn.GroupNorm(4, 8), "it reads the sample"),
        (MBN()(Site(8)), "of kind Routed"),
        (Activated(8), "of kind Activated"),
        (convert(nn.BatchNorm2d(8), RNT()), "running_range unknown"),
    ],
    ids=str,
)
def test_folding_names_what_it_left(norm, why):
    model = nn.Sequential(nn.Conv2d(2, 8, 1), norm)
    assert (unmapped(fold(model)).get("1", "").rpartition("not folded: ")[2] or None) == why
    assert unmapped(fold(fold(model))) == unmapped(fold(model))


def test_folding_says_why_a_fixed_norm_stayed():
    ahead = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 8, 1))
    assert unmapped(fold(ahead)) == {"0": "not folded: no convolution before it that it alone reads"}
    assert unmapped(fold(Asks())) == {"norm": "not folded: the network cannot be traced"}


@pytest.mark.parametrize(
    "work",
    [
        lambda model: convert(model, BN()),
        lambda model: recalibrate(model, [images()]),
        lambda model: insert(model, BN(), after=["0"]),
        lambda model: only(model, "all"),
        fold,
    ],
)
def test_lazy_layers_are_refused(work):
    for lazy in (nn.LazyBatchNorm2d(), nn.LazyConv2d(3, 1)):
        with pytest.raises(ValueError, match=r"^0 is lazy and does not know its channels yet; run one batch"):
            work(nn.Sequential(lazy, nn.BatchNorm2d(3)))


def test_routes_that_know_nothing_are_measured_on_rows_in_any_form():
    model, x = convert(nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4)), MBN()), images()
    found = [recalibrate(model, rows) for rows in ([x], x, TensorDataset(x, torch.zeros(len(x), dtype=torch.long)))]
    assert len({digest(one) for one in found}) == 1


def test_recalibration_wants_batches_and_something_to_recalibrate():
    with pytest.raises(ValueError, match="got no batches"):
        recalibrate(trained(), [])
    for free in (nn.Conv2d(2, 2, 1), nn.GroupNorm(2, 2), nn.BatchNorm2d(2, track_running_stats=False)):
        with pytest.raises(ValueError, match=r"^Sequential has no norms with running statistics; there is nothing"):
            recalibrate(nn.Sequential(free), [images()])


def test_timms_activated_norms_are_converted_trained_and_named():
    layers = pytest.importorskip(
        "timm.layers", reason="timm, which needs torchvision, is not installed", exc_type=ImportError
    )
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(2, 8, 3), layers.BatchNormAct2d(8), layers.FrozenBatchNormAct2d(8)), images()
    model(x)  # away from its start
    model.eval()
    for norm in (BN(), MBN()):
        torch.testing.assert_close(convert(model, norm)(x), model(x))
    assert unmapped(convert(model, BN())) == {"2": "FrozenBatchNormAct2d left as it is"}
    assert (convert(model, GN())(x) >= 0).all()  # the activation stays
    assert unmapped(fold(model)) == {
        "1": "not folded: of kind BatchNormAct2d",
        "2": "not folded: of kind FrozenBatchNormAct2d",
    }
    torch.testing.assert_close(fold(model)(x), model(x))
    assert sites(insert(model, BN(), after=["1"])).keys() == {"1", "1.inserted"}
    trains = [name for name, p in only(model, "affine").named_parameters() if p.requires_grad]
    assert trains == ["1.weight", "1.bias"]
