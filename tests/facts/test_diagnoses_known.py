"""Diagnoses, where the figures are known on paper."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn.utils import prune

from normwise import losses
from normwise.data import CORRUPTIONS
from normwise.diagnostics import Drift, Flips, Gamma, Margins, Slices, Smoothness
from normwise.diagnostics.drift import between
from normwise.diagnostics.inputs import pgd_path, shuffled
from normwise.diagnostics.taps import layers_of, moments, unread, with_moments
from normwise.norms import GN, BNwoT, StatNorm
from normwise.norms.surgery.conversion import convert, recalibrate
from normwise.seeding import generator
from normwise.threats import L2, Linf
from normwise.types import Batch
from normwise.utils.per_row import l1, l2, linf
from toys import ChannelsFirst, Linear, Rectified, balanced, batches, images, shortest, trained

EPS = 0.02


def rows(diagnosis, model, parts, threat=None):
    table = diagnosis(model, parts, threat or Linf(eps=EPS), generator=generator(0))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def linear(scale=1.0, count=20):
    """A linear model, and images so far inside the box that nothing is clipped, with the model's own answers as labels."""
    model = Linear((2, 3, 3))
    with torch.no_grad():
        model.w.mul_(scale)
        x = 0.3 + 0.4 * images(count, (2, 3, 3))
        model.w.sub_(model(x)[:, 1].median() / x[0].numel() / 0.5)
        y = model(x).argmax(1)
    return model, [Batch(x, y, torch.arange(count))]


@settings(deadline=None, max_examples=50)
@given(st.floats(-3, 3), st.floats(0.1, 3), st.floats(-3, 3), st.floats(0.1, 3))
def test_distances_are_those_of_gaussians(m, s, m0, s0):
    distance = between(*(torch.tensor([value], dtype=torch.float64) for value in (m, s**2, m0, s0**2)))
    p, q = Normal(torch.tensor(m).double(), s), Normal(torch.tensor(m0).double(), s0)
    assert distance.shift.item() == pytest.approx(abs(m - m0) / s0, rel=2e-3, abs=1e-6)
    assert distance.divergence.item() == pytest.approx(
        (kl_divergence(p, q) + kl_divergence(q, p)).item(), rel=5e-3, abs=1e-6
    )
    levels = torch.linspace(0, 1, 20_001).double()[1:-1]  # Wasserstein-2 in one dimension is that of the quantiles
    quantiles = (p.icdf(levels) - q.icdf(levels)).square().mean().sqrt().item() / s0
    assert distance.wasserstein.item() == pytest.approx(quantiles, rel=5e-2, abs=2e-2)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_noise_has_every_norm_of_the_change(seed, count):
    change = torch.randn(count, 2, 3, 3, generator=generator(seed))
    noise = shuffled(change, generator(seed, "noise"))
    for norm in (l1, l2, linf):
        assert torch.allclose(norm(noise), norm(change))
    assert not torch.equal(noise, change)


def test_noise_is_what_reproduce_drew_before_the_two_shared_it():
    change, rng = torch.randn(3, 2, 4, 4, generator=generator(0)), generator(1)
    order = torch.rand(3, 32, generator=rng).argsort(1)
    signs = torch.randint(0, 2, (3, 32), generator=rng) * 2 - 1
    assert torch.equal(shuffled(change, generator(1)), (change.flatten(1).gather(1, order) * signs).view_as(change))


def test_the_steps_of_the_attack_lie_on_one_path():
    [batch] = batches(1)
    path = pgd_path(balanced(), batch.x, batch.y, Linf(eps=0.1), (1, 2, 4), generator(0))
    sizes = [linf(path[count] - batch.x).max().item() for count in (1, 2, 4)]
    assert sizes == pytest.approx([0.025, 0.05, 0.1], abs=1e-6)
    assert torch.equal(pgd_path(balanced(), batch.x, batch.y, Linf(eps=0.1), (4,), generator(0))[4], path[4])


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, StatNorm])
def test_drift_is_counted_in_running_deviations(layer):
    """The first layer sees the pixels: where their statistics are known, so is the drift."""
    [batch] = batches(1)
    model = nn.Sequential(layer(2), nn.Flatten(), nn.Linear(72, 3)).eval()
    variance, mean = torch.var_mean(batch.x, (0, 2, 3), correction=0)
    model[0].running_mean.copy_(mean - 2 * variance.sqrt())
    model[0].running_var.copy_(variance)
    found = {(row["input"], row["steps"]): row for row in rows(Drift(steps=(1,)), model, [batch])}
    assert found["clean", 0]["reference"] == "running"
    assert found["clean", 0]["shift"] == pytest.approx(2, rel=1e-3)
    assert found["clean", 0]["moved"] == 0
    assert found["clean", 0]["log variance ratio"] == pytest.approx(0, abs=1e-5)
    assert found["clean", 0]["divergence"] == pytest.approx(4, rel=1e-3)
    assert found["adversarial", 1]["moved"] > 0
    assert found["defocus_blur 5", None]["log variance ratio"] > 0.5
    brighter = CORRUPTIONS["brightness"](batch.x, 3, generator=generator(0))  # it draws nothing
    again = rows(Drift(steps=(1,), corruption="brightness", severity=3), model, [batch])
    moved = next(row["moved"] for row in again if row["input"] == "brightness 3")
    assert moved == pytest.approx(float(((brighter.mean((0, 2, 3)) - mean) / variance.sqrt()).abs().mean()), rel=1e-3)
    with pytest.raises(ValueError, match="no corruption is named 'blur'"):
        Drift(corruption="blur")
    with pytest.raises(ValueError, match="a severity is a whole number from 1 to 5"):
        Drift(severity=6)


def test_what_tracks_nothing_is_compared_with_the_clean_batch():
    found = rows(Drift(steps=(1,)), trained(GN(groups=2)), batches(1))
    assert {row["reference"] for row in found} == {"clean"}
    clean = next(row for row in found if row["input"] == "clean")
    assert (clean["shift"], clean["log variance ratio"], clean["divergence"], clean["Wasserstein-2"]) == (0, 0, 0, 0)
    assert all(row["shift"] == pytest.approx(row["moved"], rel=1e-4) for row in found)
    assert max(row["moved"] for row in found) > 1e-3


def test_a_range_is_compared_with_the_running_range():
    [batch] = batches(1)
    model = nn.Sequential(StatNorm(2, measure="range", power=0.2), nn.Flatten(), nn.Linear(72, 3)).eval()
    model[0].running_range.fill_(math.e)  # pixels span 1, to either end of the box
    found = rows(Drift(steps=(1,)), model, [batch])
    assert found[0]["reference"] == "running mean, clean variance"
    assert found[0]["log range ratio"] == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("by_row", [False, True], ids=["batch", "rows"])
def test_swapped_inputs_have_the_wanted_moments(by_row):
    model, x, other = trained(), images(), images(seed=1)
    layers, seen = layers_of(model, x), []
    wanted = moments(model, layers, other, 0)
    hook = model.norm.register_forward_hook(lambda module, inputs, y: seen.append(inputs[0]))
    with_moments(model, layers, wanted, x, 0, by_row)
    hook.remove()
    axes = (2, 3) if by_row else (0, 2, 3)
    variance, mean = torch.var_mean(model.conv1(other), axes, correction=0)
    assert torch.allclose(seen[0].mean(axes), mean, atol=1e-4)
    assert torch.allclose(seen[0].var(axes, correction=0), variance, rtol=1e-2)


def swapped_axes(axis):
    """A norm of the channels on another axis, by exchanging it with the second before and after."""

    class Elsewhere(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x.transpose(1, axis)).transpose(1, axis)

    return Elsewhere


class Conditioned(nn.BatchNorm2d):
    def forward(self, x, condition):
        return super().forward(x) * condition


class Flat(nn.Sequential):
    def forward(self, x):
        more = (x.mean(),) if isinstance(self[0], Conditioned) else ()
        return self[0](x, *more).flatten(1)[:, :3]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("norm", "shape", "axis"),
    [
        (lambda affine: ChannelsFirst(6, elementwise_affine=affine), (2, 6, 6, 6), 1),
        (lambda affine: ChannelsFirst(6, elementwise_affine=affine), (2, 6, 5, 4), 1),
        (lambda affine: swapped_axes(2)(6, affine=affine), (2, 6, 6, 6), 2),
        (lambda affine: swapped_axes(3)(6, affine=affine), (2, 4, 5, 6), 3),
        (lambda affine: Rectified(6, affine=affine), (2, 6, 6, 6), 1),
        (lambda affine: prune.l1_unstructured(nn.BatchNorm2d(6), "weight", 2), (2, 6, 6, 6), 1),
        (lambda affine: Conditioned(6), (2, 6, 6, 6), None),
        (lambda affine: nn.LayerNorm(6, elementwise_affine=affine), (2, 6, 6, 6), -1),
        (lambda affine: nn.LayerNorm((6, 5, 4), elementwise_affine=affine), (2, 6, 5, 4), -3),
        (lambda affine: nn.RMSNorm(6, elementwise_affine=affine), (2, 7, 6), -1),
        (lambda affine: nn.GroupNorm(2, 6, affine=affine), (2, 6, 6), 1),
        (lambda affine: nn.InstanceNorm2d(6, affine=affine), (2, 6, 6, 6), 1),
    ],
)
def test_the_axis_of_channels_is_known_or_measured(norm, shape, axis, affine):
    model, x = Flat(norm(affine)).eval(), torch.rand(shape, generator=generator(0))
    kind = type(model[0])
    known = axis is not None and (affine or shape.count(6) == 1 or kind.__module__.startswith("torch"))
    found = layers_of(model, x)
    assert [layer.axis for layer in found.values()] == [axis] * known
    if not known:
        assert unread(model, x) == f"not measured, because these layers cannot be read: 0 ({kind.__name__})"
        return
    [row] = rows(Gamma(), model, [Batch(x, torch.zeros(2).long(), torch.arange(2))])
    assert row["channels"] == 6
    wanted, seen = torch.rand(shape, generator=generator(1)), []
    model[0].register_forward_hook(lambda module, inputs, y: seen.append(inputs[0]))
    with_moments(model, found, moments(model, found, wanted, 0), x, 0)
    axes = [at for at in range(len(shape)) if at != axis % len(shape)]
    torch.testing.assert_close(seen[-1].mean(axes), wanted.mean(axes), atol=1e-4, rtol=1e-3)


def test_hooks_are_heard_in_a_network_that_was_compiled_before():
    model, [batch] = trained(), batches(1)
    compiled = torch.compile(trained(), backend="eager")
    with torch.no_grad():
        compiled(batch.x)
    plain, other = (rows(Gamma(), one, [batch]) for one in (model, compiled))
    assert [{**row, "site": ""} for row in plain] == [{**row, "site": ""} for row in other]


@pytest.mark.parametrize("answer", [dict, tuple], ids=["dict", "tuple"])
def test_networks_that_answer_more_and_write_into_their_input_are_looked_into(answer):
    class Rich(type(trained())):
        def forward(self, x):
            logits = super().forward(x.mul_(2).sub_(0.5))
            return {"features": x, "logits": logits} if answer is dict else (logits, x)

    [batch] = batches(1)
    model, before = Rich().eval(), batch.x.clone()
    plain = nn.Sequential(Scaled(), model.conv1, model.norm, nn.Flatten(), nn.Linear(288, 3))
    [row], [other] = rows(Gamma(), model, [batch]), rows(Gamma(), plain, [batch])
    assert {**row, "site": ""} == {**other, "site": ""}
    assert torch.equal(batch.x, before)
    new = recalibrate(model, [batch.x])
    torch.testing.assert_close(new.norm.running_mean, model.conv1(2 * before - 0.5).mean((0, 2, 3)))
    assert torch.equal(batch.x, before)


class Scaled(nn.Module):
    def forward(self, x):
        return 2 * x - 0.5


class Pooled(nn.Module):
    """The answer follows from the channel means behind the one norm layer alone."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.linear = norm, nn.Linear(2, 3)

    def forward(self, x):
        return self.linear(self.norm(x).mean((2, 3)))


def answered(model, count=6, alike=True):
    """Images, all the same or not, with the model's own answers as labels: every row is right."""
    x = images(1 if alike else count).expand(count, -1, -1, -1).clone()
    with torch.no_grad():
        return [Batch(x, model(x).argmax(1), torch.arange(count))]


def test_an_answer_that_follows_from_one_sites_moments_is_flipped_there():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Pooled(nn.BatchNorm2d(2)).eval()
    for row in rows(Flips(steps=5), model, answered(model), Linf(eps=1.0)):
        assert (row["right"], row["fell"]) == (6, 6)
        assert (row["repaired"], row["by row"], row["broken"]) == (1, 1, 1)
    other = rows(Flips(steps=5), model, answered(model, alike=False), Linf(eps=1.0))
    assert other[0]["by row"] == 1  # rows that differ are repaired by their own means for sure


def test_a_norm_of_the_batch_does_not_see_that_its_inputs_moments_are_swapped():
    model = convert(balanced(), BNwoT())
    parts = answered(model, 10, alike=False)
    [site, everywhere] = rows(Flips(steps=10), model, parts, Linf(eps=0.5))
    assert site["fell"] > 0
    assert (site["repaired"], site["broken"], site["reread"]) == (0, 0, None)
    assert everywhere["site"] == "all sites"


def test_reading_the_batch_is_what_the_layer_does_in_training():
    """The attack moves all rows alike: where the layer reads the batch, nothing is left of it, and class 2 wins again."""
    model = Pooled(nn.BatchNorm2d(2)).eval()
    parts = answered(model)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        model.linear.bias.copy_(torch.tensor([0.0, -1.0, 0.05]))
        model.norm.running_mean.copy_(parts[0].x.mean((0, 2, 3)))
    labelled = [parts[0]._replace(y=torch.full_like(parts[0].y, 2))]
    [site, everywhere] = rows(Flips(steps=10), model, labelled, Linf(eps=1.0))
    assert (site["right"], site["fell"], site["reread"], everywhere["reread"]) == (6, 6, 1, 1)
    labelled = [parts[0]._replace(x=parts[0].x.clamp(0.4, 0.6), y=torch.zeros_like(parts[0].y))]
    with torch.no_grad():
        model.norm.running_mean.sub_(1)
    [site, _] = rows(Flips(steps=10), model, labelled, Linf(eps=1.0))
    assert (site["fell"], site["reread"]) == (0, None)  # nothing fell: of no rows there is no share


def test_smoothness_of_a_linear_model():
    model, parts = linear()
    found = {row["figure"]: row for row in rows(Smoothness(), model, parts)}
    w, logits = model.w.detach().abs().sum().item(), model(parts[0].x).detach()
    losing = losses.margin(logits, parts[0].y).sigmoid()  # the cross-entropy's slope in the margin
    assert found["gradient norm"]["median"] == pytest.approx((losing * w).double().quantile(0.5).item(), rel=1e-4)
    assert found["gradient norm"]["unit"].endswith("l1")
    for mark in ("5%", "median", "95%"):
        assert found["Lipschitz estimate"][mark] == pytest.approx(w / logits.std(correction=0).item(), rel=1e-3)
        assert found["gradient similarity"][mark] == pytest.approx(1, abs=1e-5)
    u = 0.5 * EPS * w  # along the gradient's sign the margin rises by this much
    bend = (losses.margin(logits, parts[0].y) + u).sigmoid() - losing
    expected = bend * model.w.detach().norm() / (0.5 * EPS * math.sqrt(18))
    assert found["curvature"]["median"] == pytest.approx(expected.double().quantile(0.5).item(), rel=1e-2)


def test_scaled_logits_are_as_smooth():
    figures = [
        {row["figure"]: row["mean"] for row in rows(Smoothness(), *linear(scale))}["Lipschitz estimate"] for scale in (1, 50)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)


@pytest.mark.parametrize("threat", [Linf(), L2()], ids=["linf", "l2"])
def test_margins_of_a_linear_model(threat):
    model, parts = linear()
    exact = shortest(model, parts[0].x, threat.name).quantile(0.5).item()
    found = rows(Margins(), model, parts, threat)
    assert [row["quantile"] for row in found] == [5, 25, 50, 75, 95]
    assert (found[2]["n"], found[2]["found"], found[2]["geometry"]) == (20, 20, threat.name)
    assert exact * (1 - 1e-4) <= found[2]["distance"] <= 1.05 * exact


def test_a_network_that_is_never_wrong_has_no_margin_and_one_never_right_no_rows():
    model, parts = linear()
    with torch.no_grad():
        model.w.fill_(0.0)
    model.w.data += 1e-12
    wrong = [parts[0]._replace(y=torch.zeros_like(parts[0].y))]
    assert {(row["distance"], row["n"]) for row in rows(Margins(steps=2), model, wrong)} == {(None, 0)}
    always = [parts[0]._replace(y=torch.ones_like(parts[0].y))]
    assert {(row["distance"], row["found"]) for row in rows(Margins(steps=2), model, always)} == {(None, 0)}


def test_a_slice_of_a_linear_model_rises_along_the_attack():
    model, parts = linear()
    found = rows(Slices(rows=2, cells=5), model, parts)
    assert len(found) == 2 * 25
    w, margin = model.w.detach().abs().sum().item(), losses.margin(model(parts[0].x), parts[0].y).tolist()
    for row in found:
        if row["b"] == 0:
            assert row["margin"] == pytest.approx(margin[row["row"]] + row["a"] * EPS * w, abs=1e-4)
        assert (row["margin"] > 0) == (row["class"] != row["label"])


def test_dead_and_tiny_scales_and_channels_that_never_change():
    model = trained()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.1, 0.1, 1e-4, 0.0]))
        model.norm.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 99.0, 0.0, 0.0, -1.0, -1.0]))
    [row] = rows(Gamma(), model, batches(2))
    assert (row["channels"], row["largest"]) == (8, 2)
    assert (row["dead"], row["tiny"]) == (2 / 8, 4 / 8)
    assert (row["constant"], row["off"]) == (1 / 8, 2 / 8)
    assert row["median"] == pytest.approx(0.1)


def test_scales_that_are_all_zero_are_dead():
    model = trained()
    torch.nn.init.zeros_(model.norm.weight)
    [row] = rows(Gamma(), model, batches(1))
    assert (row["dead"], row["tiny"], row["constant"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Drift(steps=()), "steps of drift"),
        (lambda: Flips(steps=-1), "steps of pgd"),
        (lambda: Smoothness(reach=0), "reach 0"),
        (lambda: Margins(quantiles=(101.0,)), "quantiles of margins"),
        (lambda: Slices(cells=4), "cells 4"),
        (lambda: Gamma(dead=0.5), "dead of gamma is 0.5"),
    ],
)
def test_options_that_cannot_be_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
