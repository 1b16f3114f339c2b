"""What every threat model promises."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normwise.seeding import generator
from normwise.threats import L1, L2, THREATS, Linf, Normalized
from normwise.types import Region, ThreatModel
from normwise.utils.per_row import over
from toys import fitting, images, scene, takes

SHAPES = [(5,), (3, 4), (2, 6, 6), (2, 3, 4, 4)]


@pytest.fixture(params=THREATS, ids=str)
def threat(request):
    return fitting(THREATS[request.param])


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_the_clean_image_and_random_starts_are_allowed(threat, shape):
    assert isinstance(threat, ThreatModel)
    x = images(8, shape)
    if not takes(threat, shape):
        with pytest.raises(
            ValueError, match=rf"{threat.name} changes frames of clips \(b, c, t, h, w\); got .*; give clips"
        ):
            threat.around(x, generator=generator(0))
        return
    region = threat.around(x, generator=generator(0))
    assert isinstance(region, Region)
    start = region.start()
    assert region.contains(x).all()
    assert region.contains(start).all()
    assert not torch.equal(start, x)
    assert start.shape == x.shape


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0, 100), shape=st.sampled_from(SHAPES))
@pytest.mark.parametrize("name", THREATS)
def test_projection_lands_inside_is_idempotent_and_leaves_the_inside_alone(name, seed, scale, shape):
    x = images(4, scene(THREATS[name], shape) if len(shape) == 3 else shape, seed)
    if not takes(THREATS[name], x.shape[1:]):
        return
    region = fitting(THREATS[name]).around(x, generator=generator(seed))
    outside = x + scale * torch.randn(x.shape, generator=generator(seed, "far"))
    inside = region.project(outside)
    assert region.contains(inside).all()
    torch.testing.assert_close(region.project(inside), inside, rtol=0, atol=1e-6)


def test_outside_is_told_from_inside(threat):
    x = images(6, scene(threat))
    region = threat.around(x, generator=generator(0))
    assert not region.contains(1 - x.round()).any()  # the far corner of the box
    assert not region.contains(torch.full_like(x, torch.nan)).any()
    assert not region.contains(x - 1e-3 - x.amin()).any()  # below 0
    assert (region.distance(region.project(1 - x.round())) > 0.9 * region.radius).all()


def test_a_step_of_ascent_raises_a_linear_loss_by_the_most_a_step_can(threat):
    x = images(6, scene(threat)).clamp(0.3, 0.7)
    region = threat.around(x, generator=generator(0))
    grad = torch.randn(x.shape, generator=generator(1))
    size = 0.5 * region.radius
    step = region.ascend(x, grad, size) - x
    torch.testing.assert_close(region.distance(x + step), torch.full((6,), size), rtol=1e-4, atol=1e-6)
    random = region.start() - x
    random *= over(size / region.distance(x + random), x)
    assert ((grad * step).flatten(1).sum(1) >= (grad * random).flatten(1).sum(1)).all()
    assert torch.equal(region.ascend(x, torch.zeros_like(x), size), x)


def test_selected_rows_are_the_same_region(threat):
    x = images(6, scene(threat))
    rows = torch.tensor([True, False, True, True, False, False])
    region = threat.around(x, generator=generator(0))
    far = torch.rand(x.shape, generator=generator(2))
    assert torch.equal(region.select(rows).project(far[rows]), region.project(far)[rows])


@pytest.mark.parametrize("threat", [L2(eps=0.4), L1(eps=0.4), L1(eps=1.5)], ids=str)
@pytest.mark.parametrize("scale", [0.1, 2])
def test_projection_is_the_nearest_point_of_ball_and_box(threat, scale):
    x = images(5, (7,)).double()
    region = threat.around(x, generator=generator(0))
    far = x + scale * torch.randn(x.shape, generator=generator(3), dtype=torch.float64)
    nearest = region.project(far)
    for k in range(2000):  # no allowed point is nearer
        other = region.project(nearest + 0.05 * torch.randn(x.shape, generator=generator(4, k), dtype=torch.float64))
        assert ((far - nearest).norm(dim=1) <= (far - other).norm(dim=1) + 1e-6).all()


@pytest.mark.parametrize(
    ("make", "eps"),
    [(Linf, -0.1), (Linf, float("nan")), (Linf, 1.5), (L2, -1.0), (L2, float("inf")), (L1, -1.0), (L1, float("nan"))],
)
def test_a_radius_that_cannot_be_is_refused(make, eps):
    with pytest.raises(ValueError, match=r"eps of .* is a radius in pixels"):
        make(eps=eps)


@pytest.mark.parametrize(("make", "diameter"), [(L2, 72**0.5), (L1, 72)])
def test_a_radius_beyond_the_box_is_refused_when_the_images_are_seen(make, diameter):
    make(eps=0.999 * diameter).around(images(2), generator=generator(0))
    with pytest.raises(ValueError, match="diameter"):
        make(eps=1.001 * diameter).around(images(2), generator=generator(0))


def nearest_in_l1(x, d, eps):
    """By hand: every pixel moves by min(max(|d| - lam, 0), room), and lam is looked for among its breakpoints."""
    room = [1 - a if b > 0 else a for a, b in zip(x, d, strict=True)]

    def moves(lam):
        return [min(max(abs(b) - lam, 0), r) for b, r in zip(d, room, strict=True)]

    knots = sorted({0.0, *(abs(b) for b in d), *(max(abs(b) - r, 0.0) for b, r in zip(d, room, strict=True))})
    if sum(moves(0)) <= eps:
        return [a + (m if b > 0 else -m) for a, b, m in zip(x, d, moves(0), strict=True)]
    right = next(k for k, lam in enumerate(knots) if sum(moves(lam)) <= eps)
    above, below = sum(moves(knots[right - 1])), sum(moves(knots[right]))
    lam = knots[right - 1] + (knots[right] - knots[right - 1]) * (above - eps) / (above - below)
    return [a + (m if b > 0 else -m) for a, b, m in zip(x, d, moves(lam), strict=True)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), eps=st.sampled_from([0.0, 1e-3, 0.3, 1.0, 2.5]), scale=st.sampled_from([0.01, 0.5, 30]))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_l1_projection_follows_its_conditions_and_changes_nothing_the_second_time(dtype, seed, eps, scale):
    x = images(4, (9,), seed).to(dtype)
    d = scale * torch.randn(x.shape, generator=generator(seed, "far")).to(dtype)
    d[0] = scale * d[0].sign()  # equal moves: the sum of what they add up to is steepest there
    d[1, 3:] = 0
    region = L1(eps=eps).around(x, generator=generator(0))
    found = region.project(x + d)
    wanted = [nearest_in_l1(a, b, eps) for a, b in zip(x.double().tolist(), (x + d - x).double().tolist(), strict=True)]
    rounding = 8 * torch.finfo(dtype).eps * max(1, scale)
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=rounding)
    assert region.contains(found).all()
    assert torch.equal(region.project(found), found)


def test_in_l1_many_small_roundings_do_not_add_up():
    x = 0.5 + 0.4 * torch.rand(2, 3, 64, 64, generator=generator(0))
    region = L1(eps=4e-4).around(x, generator=generator(0))  # a share of 3e-8 for each pixel: half of what can be told
    assert region.contains(region.project(x + 0.1)).all()


def test_l1_ascent_fills_the_steepest_pixels_to_the_side_of_the_box():
    x = torch.tensor([[0.9, 0.4, 0.5, 0.0, 0.2], [0.9, 0.4, 0.5, 0.0, 0.2]])
    grad = torch.tensor([[3.0, -2.0, 1.0, -4.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
    region = L1(eps=3).around(x, generator=generator(0))
    torch.testing.assert_close(region.ascend(x, grad, 0.7), torch.tensor([[1, 0, 0.7, 0, 0.2], [0.9, 0.4, 0.5, 0, 0.9]]))
    sizes = torch.tensor([0.2, 2.0])
    wanted = torch.tensor([[1, 0.3, 0.5, 0, 0.2], [0.9, 0.4, 0.7, 1, 1.0]])
    torch.testing.assert_close(region.ascend(x, grad, sizes), wanted)
    torch.testing.assert_close(
        region.spread(x, grad, sizes, torch.tensor([1.0, 2.0]))[:, 3:], torch.tensor([[-0.2, 0.2], [1, 1.2]])
    )


def test_l1_starts_fill_the_ball_evenly():
    """In d dimensions the length of a uniform point is on average d / (d + 1) of the radius, and so is no pixel favoured."""
    x = torch.full((4000, 4), 0.5)
    d = L1(eps=0.4).around(x, generator=generator(0)).start() - x
    assert d.abs().sum(1).mean() == pytest.approx(0.8 * 0.4, rel=0.01)
    assert d.abs().mean(0).tolist() == pytest.approx(4 * [0.08], rel=0.05)
    assert d.mean(0).abs().max() < 0.005


def test_eps_zero_allows_the_clean_image_alone(threat):
    x = images(4, scene(threat))
    region = dataclasses.replace(threat, eps=0.0).around(x, generator=generator(0))
    assert torch.equal(region.project(torch.rand(x.shape)), x)
    assert torch.equal(region.start(), x)


def test_eps_in_normalized_units_is_eps_std_in_pixels():
    x = images(4, (3, 5, 5)).double()
    threat = Normalized(eps=0.4)
    region = threat.around(x, generator=generator(0))
    expected = (x + 0.4 * torch.tensor(threat.std, dtype=x.dtype).view(3, 1, 1)).clamp(max=1)
    torch.testing.assert_close(region.project(torch.ones_like(x)), expected)
    assert torch.equal(
        region.select(torch.tensor([2])).project(torch.ones_like(x[2:3])), region.project(torch.ones_like(x))[2:3]
    )
    with pytest.raises(ValueError, match="std for 3 channels; images have 2"):
        threat.around(images(), generator=generator(0))
