"""CW: what makes it itself."""

import pytest
import torch

from normwise.attacks import CW
from normwise.attacks.cw import narrowed
from normwise.losses import margin
from normwise.seeding import generator
from normwise.threats import L2
from normwise.types import Search
from toys import Linear, Watched, decided, images


def test_it_is_adam_on_its_objective():
    model, x, y = *(lambda m: (m, images(6, (20,))))(Linear((20,))), torch.tensor([0, 1, 0, 1, 0, 1])
    watched = Watched(model)
    attack = CW(steps=6, binary_steps=1, initial_const=0.7, confidence=2.0, lr=0.03, early_abort=False)
    attack.distances(watched, x, y, L2(), generator=generator(0))
    w = ((2 * x - 1) * (1 - 1e-6)).atanh().requires_grad_()
    adam = torch.optim.Adam([w], lr=0.03)
    for asked in watched.asked[1:]:  # the first were the clean images
        z = (w.tanh() + 1) / 2
        torch.testing.assert_close(asked, z.detach(), rtol=0, atol=1e-5)
        objective = (z - x).square().sum(1) + 0.7 * (2.0 - margin(model(z), y)).clamp_min(0)
        adam.zero_grad()
        objective.sum().backward()
        adam.step()
    assert len(watched.asked) == 7


def test_the_constant_is_raised_tenfold_until_a_first_success_and_then_narrowed_by_bisection():
    low, high, const = torch.zeros(1), torch.full((1,), torch.inf), torch.full((1,), 1e-3)
    tried = []
    for _ in range(8):  # 0.37 is enough
        tried.append(float(const))
        low, high, const = narrowed(low, high, const, const >= 0.37)
    assert tried == pytest.approx([0.001, 0.01, 0.1, 1, 0.55, 0.325, 0.4375, 0.38125])
    assert low < 0.37 <= high


def test_with_confidence_it_finds_points_with_that_margin_only():
    model, x = Linear((20,)), images(6, (20,))
    y = (model(x)[:, 1] > 0).long()
    x_adv, distance = CW(steps=100, binary_steps=5, lr=0.1, initial_const=1.0, confidence=0.5).distances(
        model, x, y, L2(), generator=generator(0)
    )
    assert torch.isfinite(distance).all()
    assert (margin(model(x_adv), y) >= 0.5).all()


def test_independent_rows_abort_alone():
    model, x, y = decided()
    spent = {}
    for early in (True, False):
        attack = CW(steps=60, binary_steps=2, lr=0.05, early_abort=early)
        asked = Watched(model)
        attack.distances(asked, x, y, L2(), generator=generator(0), search=Search(independent=True))
        spent[early] = sum(map(len, asked.asked))
    assert spent[True] < 0.7 * spent[False]
