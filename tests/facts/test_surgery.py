"""Surgery: insertion, routes, synchronized norms, other people's norm layers."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from normwise.norms import (
    BN,
    BNM,
    GN,
    MBN,
    NORMS,
    RNM,
    RNT,
    MedianNorm,
    RobustNorm1d,
    RobustNorm2d,
    RobustNorm3d,
    StatNorm,
    on_route,
    routed,
    sites,
)
from normwise.norms.surgery.adaptation import with_share
from normwise.norms.surgery.conversion import convert, convert_sync, insert, recalibrate
from normwise.norms.surgery.folding import fold
from normwise.norms.surgery.unmapped import unmapped
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.training.recipes import Routes
from normwise.types import Site
from normwise.utils.model_state import answer_for_good, digest, untouched
from toys import Activated, Small, images, labels, trained


@pytest.mark.parametrize(
    ("kind", "shape"), [(RobustNorm1d, (6, 8)), (RobustNorm2d, (6, 8, 3, 3)), (RobustNorm3d, (6, 8, 2, 3, 3))]
)
def test_drop_ins_take_batchnorms_place_and_keep_its_default_the_running_range(kind, shape):
    layer, x = kind(8).double(), torch.randn(shape, dtype=torch.float64)
    y = layer(x)
    axes = [0, *range(2, x.ndim)]
    spread = x.amax(axes) - x.amin(axes)
    view = [1, -1] + [1] * (x.ndim - 2)
    torch.testing.assert_close(y, (x - x.mean(axes).view(view)) / (spread**0.2 + 1e-5).view(view))
    torch.testing.assert_close(layer.running_range, 0.9 + 0.1 * spread)
    torch.testing.assert_close(
        layer.eval()(x), (x - layer.running_mean.view(view)) / (layer.running_range**0.2 + 1e-5).view(view)
    )
    with pytest.raises(ValueError, match="dimensions; got"):
        layer(torch.randn(6, 8, 2, 2, 2, 2))


def test_drop_ins_take_the_power_and_then_batchnorms_arguments_in_their_order():
    layer, x = RobustNorm2d(8, 0.5, 1e-3, 0.2, False, False, "cpu", torch.float64), torch.randn(6, 8, 3, 3).double()
    assert (layer.power, layer.eps, layer.momentum, list(layer.parameters())) == (0.5, 1e-3, 0.2, [])
    expected = layer(x)
    torch.testing.assert_close(layer.eval()(x), expected)  # untracked: it reads the batch


def test_median_and_deviation_are_their_formula_and_equal_values_do_not_explode():
    layer, x = MedianNorm()(Site(3)), torch.randn(5, 3, 3)
    y = layer(x)
    flat = x.transpose(0, 1).flatten(1)
    median = flat.median(1).values
    mad = (flat - median[:, None]).abs().median(1).values
    expected = (x - median[None, :, None]) / ((1.4826 * mad) ** 2 + 1e-5).sqrt()[None, :, None]
    torch.testing.assert_close(y, expected)
    x = torch.zeros(4, 3, 4)
    x[0, :, 0] = 5.0
    x.requires_grad_()
    y = layer(x)
    assert (y == 0).all()
    assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all()


@pytest.mark.parametrize("share", ["none", "statistics", "affine"])
def test_routes_keep_apart_what_they_do_not_share(share):
    model = convert(trained(), MBN(share=share)).train()
    model.drop.eval()
    before = {name: value.clone() for name, value in model.norm.state_dict().items()}
    with routed(model, 1):
        model(images(seed=1)).sum().backward()
    assert model.norm.route == 0
    moved = {name for name, value in model.norm.state_dict().items() if not torch.equal(value, before[name])}
    which = "statistics.0" if share == "statistics" else "statistics.1"
    assert moved == {f"{which}.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    rows = model.norm.weights.grad.abs().sum(1) > 0
    assert rows.tolist() == ([True] if share == "affine" else [False, True])


def test_every_route_starts_as_the_batchnorm_it_replaces_and_back():
    model, x = trained(), images()
    mixed = convert(model, MBN(routes=3))
    for route in range(3):
        with routed(mixed, route):
            torch.testing.assert_close(mixed(x), model(x))
    torch.testing.assert_close(convert(mixed, BN())(x), model(x))
    fresh = Small(MBN())
    fresh.load_state_dict(model.state_dict())  # BatchNorm's keys fit
    torch.testing.assert_close(fresh.eval()(x), model(x))


def test_recalibration_moves_the_route_in_use_alone():
    mixed = convert(trained(), MBN())
    with routed(mixed, 1):
        new = recalibrate(mixed, [images(seed=3)])
    assert torch.equal(new.norm.statistics[0].running_var, mixed.norm.statistics[0].running_var)
    assert not torch.equal(new.norm.statistics[1].running_var, mixed.norm.statistics[1].running_var)


def test_recalibration_averages_what_torchs_instance_norm_tracks():
    batches = [images(8, seed=seed) for seed in range(3)]
    new = recalibrate(nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True)), batches)[0]
    torch.testing.assert_close(new.running_mean, torch.cat(batches).mean((0, 2, 3)))
    torch.testing.assert_close(new.running_var, torch.cat(batches).var((2, 3)).mean(0))
    assert (new.momentum, new.training) == (0.1, True)


def test_clean_images_train_route_0_and_the_attack_meets_route_1():
    model = Routes(steps=1).prepare(convert(trained(), MBN())).train()
    model.drop.eval()
    x = images(16)
    clean, seen = copy.deepcopy(model), []
    clean(x)
    model.conv1.register_forward_hook(lambda module, inputs, y: seen.append((model.norm.route, model.norm.training)))
    Routes(steps=1).loss(model, x, labels(16), Linf(eps=0.1), generator=generator(0))
    ours, expected = model.norm.statistics, clean.norm.statistics
    torch.testing.assert_close(ours[0].running_mean, expected[0].running_mean)
    assert not torch.equal(ours[1].running_mean, expected[1].running_mean)
    assert not torch.equal(ours[1].running_mean, ours[0].running_mean)
    assert seen == [(1, False), (1, True), (0, True)]


def test_a_network_on_another_route_is_a_copy():
    model = convert(trained(), MBN())
    new = on_route(model, 1)
    assert (model.norm.route, new.norm.route) == (0, 1)
    assert convert(trained(), MBN(route=1)).norm.route == 1


def test_a_route_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no route 2 in Small: it has 2 routes"), routed(convert(trained(), MBN()), 2):
        pass
    with pytest.raises(ValueError, match="it has no routes"), routed(trained(), 0):
        pass


def test_insertion_keeps_keys_and_at_its_start_the_function():
    model, x = trained(), images()
    new = insert(model, BN(), after=["conv1", "conv2"])
    assert model.state_dict().keys() < new.state_dict().keys()
    assert [path for path in sites(new) if path.endswith("inserted")] == ["conv1.inserted", "conv2.inserted"]
    torch.testing.assert_close(new(x), model(x), rtol=1e-3, atol=1e-4)  # running mean 0, variance 1
    assert not hasattr(model.conv1, "inserted")
    for where in ("nowhere", "drop"):
        with pytest.raises(ValueError, match=f"cannot insert after '{where}'"):
            insert(model, BN(), after=[where])


@pytest.mark.parametrize("norm", NORMS)
def test_synchronized_norms_have_the_same_keys_and_without_a_process_group_the_same_answers(norm):
    model = trained(NORMS[norm]())
    new = convert_sync(model)
    assert new.norm is not model.norm
    torch.testing.assert_close(new.state_dict(), model.state_dict())
    model.drop.p = new.drop.p = 0.0
    for training in (False, True):
        torch.testing.assert_close(new.train(training)(images()), model.train(training)(images()))


def test_torchs_norms_are_synchronized_as_ours():
    for old in (nn.BatchNorm2d(8, affine=False), nn.SyncBatchNorm(8), nn.BatchNorm2d(8, track_running_stats=False)):
        new = convert_sync(nn.Sequential(old))
        assert (type(new[0]), new[0].synchronized) == (StatNorm, True)
        assert (new[0].weight is None) == (old.weight is None)
    assert isinstance(convert(new, RNT())[0], StatNorm)
    assert convert_sync(nn.Sequential(nn.Linear(2, 2)))[0].weight.shape == (2, 2)


def test_torchs_converter_and_update_bn_leave_our_layers_as_they_are():
    model = trained(BN())
    before = digest(model)
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(model).norm, StatNorm)
    update_bn([images()], model)
    assert digest(model) == before


def test_hooks_and_activations_inside_a_norm_survive_conversion():
    model, x = nn.Sequential(Activated(2)).eval(), images() - 0.5
    seen, fired = [], []
    model[0].register_forward_hook(lambda module, inputs, y: seen.append(y))
    model[0].register_full_backward_hook(lambda *args: fired.append("backward"))
    model[0].register_full_backward_pre_hook(lambda *args: fired.append("before"))
    model[0].register_load_state_dict_pre_hook(lambda module, *args: fired.append(type(module)))
    new = convert(convert(model, RNT()), BN())
    new.load_state_dict(model.state_dict())
    torch.testing.assert_close(new(x.requires_grad_()), model(x))
    torch.testing.assert_close(seen[0], seen[1])
    assert new.state_dict().keys() == model.state_dict().keys()
    new(x).sum().backward()
    assert fired == [StatNorm, "before", "backward"]


UNTRACKED = nn.BatchNorm2d(8, track_running_stats=False)


@pytest.mark.parametrize(
    ("old", "norm", "unknown"),
    [
        (nn.BatchNorm2d(8), BN(), []),
        (nn.BatchNorm2d(8), RNT(), ["running_range"]),
        (RNT()(Site(8)), BN(), ["running_var"]),
        (RNT()(Site(8)), MBN(routes=1), ["running_var"]),
        (nn.GroupNorm(4, 8), BN(), ["running_mean", "running_var"]),
        (nn.GroupNorm(4, 8), RNM(), ["running_mean", "running_range"]),  # the mean alone is read
        (UNTRACKED, BN(), ["running_mean", "running_var"]),
        (convert(UNTRACKED, BN()), RNT(), ["running_mean", "running_range"]),
    ],
    ids=str,
)
def test_statistics_that_nobody_tracked_are_listed_and_refused_until_they_are_known(old, norm, unknown):
    new, x = convert(nn.Sequential(old), norm).eval(), torch.rand(6, 8, 3, 3)
    assert len(unmapped(new)) == bool(unknown)
    if unknown:
        ((path, said),) = unmapped(new).items()
        assert said == f"{', '.join(unknown)} unknown"
        layer = new.get_submodule(path)
        assert sorted(layer.unknown) == unknown
        with untouched(new.train(), generator(0)):  # as an attack in training mode, which makes nothing known
            new(x)
        assert unmapped(new.eval()) == {path: said}
        answer_for_good(moved := copy.deepcopy(new).train(), x, generator(0))
        assert unmapped(moved) == {}
        again = norm(Site(8)).eval()
        again.load_state_dict(new[0].state_dict())  # the doubt survives saving
        for doubtful in (new, again, fold(new)):
            with pytest.raises(ValueError, match=f"does not know its {' and '.join(unknown)}: .*recalibrate"):
                doubtful(x)
        average, known = AveragedModel(new), recalibrate(new, [x])
        average.update_parameters(known)  # it copies buffers alone
        assert unmapped(average.module) == unmapped(known) == {}
        assert known.state_dict().keys() == nn.Sequential(norm(Site(8))).state_dict().keys()
        expected = known.get_submodule(path).get_buffer(unknown[-1])
        new.train()(x)  # the first batch counts whole
        torch.testing.assert_close(layer.get_buffer(unknown[-1]), expected)
    assert torch.isfinite(new.eval()(x)).all()
    assert unmapped(new) == {}


def test_a_layers_own_settings_and_ties_survive_conversion():
    ours = convert(nn.BatchNorm2d(8, eps=0.1, momentum=0.01, affine=False), BN())
    assert (ours.eps, ours.momentum, ours.affine, list(ours.parameters())) == (0.1, 0.01, False, [])
    assert convert(ours, GN()).eps == 0.1
    assert convert(ours, RNT()).eps == RNT.eps  # added to the power of the range, which is another thing
    assert convert(ours, MBN(eps=0.2)).active.eps == 0.2
    assert (convert(ours, BN(eps=0.2)).eps, convert(ours, MBN()).active.momentum) == (0.2, 0.01)
    tied = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    tied[1].weight = tied[0].weight
    new = convert(tied, BN())
    assert new[0].weight is new[1].weight is not tied[0].weight
    assert new[0].bias is not new[1].bias


def test_what_was_inserted_behind_a_norm_is_converted_with_it():
    model, x = insert(trained(), BN(), after=["norm"]), images()
    new = convert(model, BNM())
    assert [new.norm.spread_share, new.norm.inserted.spread_share] == [1, 1]
    back = convert(new, BN())
    torch.testing.assert_close(back(x), model(x))
    assert convert(model, GN(groups=4))(x).shape == (12, 3)


def test_surgery_on_other_layers_leaves_routes_apart():
    old = MBN(route=1)(Site(2))
    for route in (0, 1):
        old.statistics[route].running_mean.fill_(route + 1)
    model = nn.Sequential(old, nn.BatchNorm2d(2)).eval()
    for new in (with_share(model, 0.5), convert(model, MBN())):
        assert [int(one.running_mean[0]) for one in new[0].statistics] == [1, 2]
        assert new[0].route == 1
