"""FMN: what makes it itself."""

import pytest
import torch

from normwise.attacks import FMN
from normwise.attacks.fmn import shortened
from normwise.seeding import generator
from normwise.threats import L2, Linf
from normwise.utils.per_row import l2, over
from toys import Linear, Watched, images, shortest


@pytest.mark.parametrize("threat", [Linf, L2])
def test_it_goes_to_the_boundary_of_the_linear_approximation_and_then_shrinks_by_gamma(threat):
    model = Watched(Linear((20,)))
    x = images(1, (20,)).clamp(0.4, 0.6)
    y = (model(x)[:, 1] > 0).long()
    model.asked.clear()
    FMN(steps=3, alpha=100.0).distances(model, x, y, threat(), generator=generator(0))
    region = threat().around(x, generator=generator(0))
    first, second, third = (float(region.distance(asked)) for asked in model.asked[1:])
    assert first == pytest.approx(float(shortest(model.inner, x, threat.name)), rel=1e-4)
    gamma = [0.001 + 0.049 * share for share in (0.75, 0.25)]  # of half a cosine, a third and two thirds of the way
    for before, now, share, asked in zip((first, second), (second, third), gamma, model.asked[1:], strict=False):
        sign = -1 if model.inner(asked).argmax(1) != y else 1
        assert now == pytest.approx(before * (1 + sign * share), rel=1e-4)


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_shortened_is_the_nearest_point_of_the_ball(kind):
    length = {"linf": lambda d: d.abs().amax(1), "l2": l2, "l1": lambda d: d.abs().sum(1)}[kind]
    d, radius = torch.randn(50, 9, generator=generator(0), dtype=torch.float64), torch.linspace(0.05, 9, 50).double()
    inside = shortened(d, radius, kind)
    torch.testing.assert_close(length(inside), torch.minimum(length(d), radius))
    for k in range(500):  # no point of the ball is nearer
        other = inside + 0.1 * torch.randn(d.shape, generator=generator(1, k), dtype=torch.float64)
        other = other * over((radius / length(other)).clamp_max(1), other)
        assert (l2(d - inside) <= l2(d - other) + 1e-9).all()
