"""DDN: what makes it itself."""

import pytest
import torch

from normwise.attacks import DDN
from normwise.losses import cross_entropy
from normwise.seeding import generator
from normwise.threats import L2
from normwise.utils.per_row import l2, over
from toys import Linear, Watched, decided, images


def test_it_shrinks_its_radius_by_gamma_after_a_misclassified_point_and_grows_it_after_another():
    model = Watched(Linear((20,)))
    x = images(1, (20,)).clamp(0.4, 0.6)
    y = (model(x)[:, 1] > 0).long()
    model.asked.clear()
    DDN(steps=30, init_norm=0.2).distances(model, x, y, L2(), generator=generator(0))
    radius, wrong = 0.2, []
    for before, asked in zip(model.asked, model.asked[1:], strict=False):
        wrong.append(bool(model.inner(before).argmax(1) != y))
        radius *= 0.95 if wrong[-1] else 1.05
        assert float(l2(asked - x)) == pytest.approx(radius, rel=1e-4)
    assert len(set(wrong)) == 2


def test_directions_of_length_1_are_added_up_with_a_falling_share():
    model, x, y = decided()
    watched = Watched(model)
    DDN(steps=4).distances(watched, x, y, L2(), generator=generator(0))
    for step, (before, after) in enumerate(zip(watched.asked, watched.asked[1:], strict=False)):
        z = before.clone().requires_grad_()
        grad = torch.autograd.grad(cross_entropy(model(z), y).sum(), z)[0]
        share = 0.01 + 0.99 * (1, 0.8535534, 0.5, 0.1464466)[step]
        d = before - x + share * grad / over(l2(grad), x)
        wrong = model(before).argmax(1) != y
        radius = 1.05 if step == 0 else radius * torch.where(wrong, 0.95, 1.05)
        torch.testing.assert_close(after, (x + d * over(radius / l2(d), x)).clamp(0, 1), atol=1e-4, rtol=0)


def test_where_there_is_no_gradient_it_goes_somewhere():
    class Flat(Linear):
        def forward(self, x):
            return 0 * super().forward(x) + torch.tensor([1.0, 0.0])

    model, x = Watched(Flat((20,))), images(3, (20,)).clamp(0.4, 0.6)
    DDN(steps=1, init_norm=0.1).distances(model, x, torch.zeros(3).long(), L2(), generator=generator(0))
    way = model.asked[1] - x
    torch.testing.assert_close(l2(way), torch.full((3,), 0.105))
    assert not torch.allclose(way[0], way[1], atol=0.01)
