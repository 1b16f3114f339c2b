"""DeepFool: what makes it itself."""

import pytest
import torch

from normwise.attacks import DeepFool
from normwise.seeding import generator
from normwise.threats import L2, Linf
from normwise.types import Search
from toys import Linear, Watched, images, shortest


@pytest.mark.parametrize("threat", [Linf, L2])
def test_it_is_across_a_linear_boundary_in_one_step_with_its_overshoot(threat):
    model, x = Linear((20,)), images(5, (20,)).clamp(0.4, 0.6)
    y = (model(x)[:, 1] > 0).long()
    watched = Watched(model)
    _, distance = DeepFool(overshoot=0.1).distances(
        watched, x, y, threat(), generator=generator(0), search=Search(independent=True)
    )
    torch.testing.assert_close(distance, 1.1 * shortest(model, x, threat.name).float(), rtol=1e-4, atol=0)
    assert len(watched.asked) == 3  # to choose classes, to step, to see that it is over


@pytest.mark.parametrize("threat", [Linf, L2])
def test_it_goes_to_the_nearest_of_all_classes(threat):
    model = torch.nn.Linear(60, 5, bias=False).requires_grad_(False)
    model.weight.copy_(torch.randn(5, 60, generator=generator(0)))
    model.weight.sub_(model.weight.mean(1, keepdim=True))  # so that every class wins somewhere
    model.weight.mul_(torch.tensor([[0.3], [1.0], [3.0], [1.0], [0.3]]))  # so that the likeliest is not always the nearest
    x = images(8, (60,)).clamp(0.4, 0.6)
    y = model(x).argmax(1)
    w = model.weight[None] - model.weight[y][:, None]
    slope = w.abs().sum(2) if threat is Linf else w.norm(dim=2)
    gap = (model(x) - model(x).gather(1, y[:, None])).abs()
    nearest = torch.where(slope > 0, gap / slope, torch.inf).amin(1)
    for targets, as_near in ((0, True), (9, True), (1, False)):
        attack = DeepFool(targets=targets)
        distance = attack.distances(model, x, y, threat(), generator=generator(0), search=Search(independent=True)).distance
        assert torch.allclose(distance, 1.02 * nearest, rtol=1e-3, atol=0) == as_near
