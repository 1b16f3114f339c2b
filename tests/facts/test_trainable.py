"""What may train moves; what may not keeps its bits, whatever the optimizer does."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from normwise.models import checkpoints
from normwise.models.abnn import Adaptive, abnn
from normwise.norms import BN, GN, MBN
from normwise.norms.surgery.conversion import convert
from normwise.norms.surgery.trainable import frozen_statistics, materialized, only, redrawn_scales, shuffled
from normwise.threats import Linf
from normwise.training.loop import fit
from normwise.training.options import FitOptions
from normwise.training.recipes import Adversarial, Standard
from normwise.training.schedule import Schedule
from normwise.utils.model_state import digest
from toys import Stripes, images, trained

# weight decay and momentum move whatever the optimizer holds
HARSH = Schedule(epochs=1, batch_size=16, lr=0.1, momentum=0.9, weight_decay=0.1, validate_every=0)
MOVES = {
    "affine": {"norm.weight", "norm.bias"},
    "scale": {"norm.weight"},
    "shift": {"norm.bias"},
    "head": {"linear.weight", "linear.bias"},
    "affine+head": {"norm.weight", "norm.bias", "linear.weight", "linear.bias"},
}


@pytest.mark.parametrize("what", MOVES)
@pytest.mark.parametrize("statistics", ["batch", "frozen"])
@pytest.mark.parametrize("kind", [Standard, Adversarial])
def test_only_what_may_train_moves(kind, what, statistics):
    model = trained()
    recipe = kind(trains=what, statistics=statistics)
    fitted = fit(model, Stripes(), recipe, Linf(eps=0.02), HARSH, seed=0).model
    moved = {name for name, value in fitted.state_dict().items() if not torch.equal(value, model.state_dict()[name])}
    tracked = set() if statistics == "frozen" else {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert moved == MOVES[what] | tracked


def test_a_subset_is_as_large_as_the_norms_parameters_and_nothing_else_moves():
    model = trained()
    fitted = fit(model, Stripes(), Standard(trains="subset", statistics="frozen"), Linf(), HARSH, seed=0)
    assert fitted.training.trained_parameters == model.norm.weight.numel() + model.norm.bias.numel()
    old, new = model.state_dict(), fitted.model.state_dict()
    assert old.keys() == new.keys()
    assert 1 <= sum(int((old[name] != new[name]).sum()) for name in old) <= 16
    assert fitted.training.trained_parameters == 16


def test_baking_keeps_the_function_and_leaves_plain_models_as_they_are():
    model = only(trained(), "subset")
    torch.testing.assert_close(materialized(model)(images()), model(images()))
    plain = trained()
    assert materialized(plain) is plain


@pytest.mark.parametrize("what", ["affine", "head", "subset", "all"])
def test_a_frozen_substitute_stays_so_whatever_trains(what):
    options = Adaptive(source="statistics", taps=("conv2",))
    model = abnn(trained(), trained(seed=1), options, shape=(2, 6, 6)).requires_grad_(True)
    fitted = fit(model, Stripes(), Adversarial(trains=what, steps=1), Linf(eps=0.02), HARSH, seed=0).model
    for other in (fitted, shuffled(model), redrawn_scales(model)):
        assert digest(other.substitute.network) == digest(model.substitute.network)
    opened = {name for name, p in only(model, "head").named_parameters() if p.requires_grad}
    assert opened == {"target.linear.weight", "target.linear.bias"}  # nor a map of the adaptive layers


def test_the_networks_own_parametrizations_are_trained_and_saved_as_they_are(tmp_path):
    def own():
        model = trained()
        weight_norm(model.conv2)
        return model

    fitted = fit(own(), Stripes(), Standard(), Linf(), HARSH, seed=0, options=FitOptions(folder=tmp_path)).model
    saved = own()
    checkpoints.load_into(saved, checkpoints.weights(tmp_path / "model.safetensors"))
    assert digest(saved) == digest(fitted)


def test_first_and_last_count_norms_from_either_side():
    model = nn.Sequential(
        *(layer for width in (2, 3, 4, 5) for layer in (nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)))
    )
    found = only(model, "affine", first=1, last=2)
    assert [m.weight.requires_grad for m in found if isinstance(m, nn.BatchNorm2d)] == [True, False, True, True]


@pytest.mark.parametrize("what", ["all", "head"])
def test_first_and_last_are_refused_where_they_choose_nothing(what):
    for ask in (lambda: only(trained(), what, last=1), lambda: Adversarial(trains=what, last=1)):
        with pytest.raises(ValueError, match=r"'affine' .* or leave first and last out"):
            ask()


@pytest.mark.parametrize("norm", [GN(groups=4), MBN()], ids=lambda norm: norm.name)
def test_the_affine_parameters_of_any_norm_may_train_alone(norm):
    found = only(convert(trained(), norm), "affine")
    assert {name.split(".")[0] for name, p in found.named_parameters() if p.requires_grad} == {"norm"}


def test_a_group_norm_behind_frozen_layers_trains_in_channels_last_too():  # torch 2.13 ends the process there
    model = only(convert(trained(), GN(groups=4)), "affine").to(memory_format=torch.channels_last)
    model(images().contiguous(memory_format=torch.channels_last)).square().sum().backward()
    assert model.norm.weight.grad.abs().sum() > 0


def test_frozen_statistics_are_read_and_not_moved_while_dropout_stays_on():
    model = trained().train()
    before = digest(model)
    with frozen_statistics(model):
        assert not model.norm.training
        assert model.drop.training
        model(images())
    assert digest(model) == before
    assert model.norm.training


def test_shuffling_keeps_every_weight_and_no_place():
    model = trained()
    new = shuffled(model)
    assert torch.equal(new.conv1.weight.flatten().sort().values, model.conv1.weight.flatten().sort().values)
    assert not torch.equal(new.conv1.weight, model.conv1.weight)
    assert torch.equal(new.norm.weight, model.norm.weight)
    assert torch.equal(shuffled(model).conv1.weight, new.conv1.weight)


def test_redrawn_scales_lie_between_0_and_1():
    new = redrawn_scales(trained(BN()))
    assert ((new.norm.weight >= 0) & (new.norm.weight < 1)).all()
    assert (new.norm.bias == 0).all()


@pytest.mark.parametrize(
    ("model", "what", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "affine", "nothing that 'affine' lets train; it has 0 norms"),
        (nn.Sequential(nn.Linear(2, 2)), "subset", "a subset of 0 weights"),
    ],
)
def test_what_cannot_train_is_named(model, what, message):
    with pytest.raises(ValueError, match=message):
        only(model, what)
