"""What every threat model promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normwise.seeding import generator
from normwise.threats import L2, THREATS, Linf
from normwise.types import Region, ThreatModel
from worlds import images

SHAPES = [(5,), (3, 4), (2, 6, 6), (2, 3, 4, 4)]


@pytest.fixture(params=THREATS, ids=str)
def threat(request):
    return THREATS[request.param]()


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_the_clean_image_and_random_starts_are_allowed(threat, shape):
    assert isinstance(threat, ThreatModel)
    x = images(8, shape)
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
    x = images(4, shape, seed)
    region = THREATS[name]().around(x, generator=generator(seed))
    outside = x + scale * torch.randn(x.shape, generator=generator(seed, "far"))
    inside = region.project(outside)
    assert region.contains(inside).all()
    torch.testing.assert_close(region.project(inside), inside, rtol=0, atol=1e-6)


def test_outside_is_told_from_inside(threat):
    x = images(6)
    region = threat.around(x, generator=generator(0))
    assert not region.contains(1 - x.round()).any()  # the far corner of the box
    assert not region.contains(torch.full_like(x, torch.nan)).any()
    assert not region.contains(x - 1e-3 - x.amin()).any()  # below 0
    assert (region.distance(region.project(1 - x.round())) > 0.9 * region.radius).all()


def test_a_step_of_ascent_raises_a_linear_loss_by_the_most_a_step_can(threat):
    x = images(6).clamp(0.3, 0.7)
    region = threat.around(x, generator=generator(0))
    grad = torch.randn(x.shape, generator=generator(1))
    size = 0.5 * region.radius
    step = region.ascend(x, grad, size) - x
    torch.testing.assert_close(region.distance(x + step), torch.full((6,), size), rtol=1e-4, atol=1e-6)
    random = region.start() - x
    random *= (size / region.distance(x + random)).view(-1, 1, 1, 1)
    assert ((grad * step).flatten(1).sum(1) >= (grad * random).flatten(1).sum(1)).all()
    assert torch.equal(region.ascend(x, torch.zeros_like(x), size), x)


def test_selected_rows_are_the_same_region(threat):
    x = images(6)
    rows = torch.tensor([True, False, True, True, False, False])
    region = threat.around(x, generator=generator(0))
    far = torch.rand(x.shape, generator=generator(2))
    assert torch.equal(region.select(rows).project(far[rows]), region.project(far)[rows])


def test_l2_projection_is_the_nearest_point_of_ball_and_box():
    x = images(5, (7,)).double()
    region = L2(eps=0.4).around(x, generator=generator(0))
    far = x + 2 * torch.randn(x.shape, generator=generator(3), dtype=torch.float64)
    nearest = region.project(far)
    for k in range(2000):  # no allowed point is nearer
        other = region.project(nearest + 0.05 * torch.randn(x.shape, generator=generator(4, k), dtype=torch.float64))
        assert ((far - nearest).norm(dim=1) <= (far - other).norm(dim=1) + 1e-6).all()


@pytest.mark.parametrize(("make", "eps"), [(Linf, -0.1), (Linf, float("nan")), (Linf, 1.5), (L2, -1.0), (L2, float("inf"))])
def test_a_radius_that_cannot_be_is_refused(make, eps):
    with pytest.raises(ValueError, match=r"eps of .* is a radius in pixels"):
        make(eps=eps)


def test_an_l2_radius_beyond_the_box_is_refused_when_the_images_are_seen():
    with pytest.raises(ValueError, match="diameter"):
        L2(eps=9.0).around(images(2), generator=generator(0))


def test_eps_zero_allows_the_clean_image_alone(threat):
    x = images(4)
    region = type(threat)(eps=0.0).around(x, generator=generator(0))
    assert torch.equal(region.project(torch.rand(x.shape)), x)
    assert torch.equal(region.start(), x)
