"""Rows that a search leaves before its end: by which rule, and that what falls is the same without it."""

import pytest
import torch

from normwise.attacks import APGD, FAB, Square
from normwise.attacks.pruning import FASTER, LEFT, Progress
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.types import Search
from toys import decided, some


def test_a_row_is_left_when_five_times_its_pace_would_not_do():
    first, half = torch.tensor([1.0, 1.0, 1.0, 0.4]), torch.tensor([0.8, 0.8, 0.21, 0.3])
    enough = 0.5 / (2 * FASTER)  # two doublings are left after a quarter
    now = torch.tensor([0.5, 0.5, LEFT - 0.01, 0.3])
    half[:2] = 0.5 + enough * torch.tensor([0.99, 1.01])
    progress = Progress([8])
    assert progress.hopeless(0, 32, first) is None
    assert progress.hopeless(4, 32, half.clone()) is None
    assert progress.hopeless(8, 32, now).tolist() == [True, False, False, True]
    progress.keep(torch.tensor([False, True, False, True]))
    assert progress.hopeless(8, 32, now[[1, 3]]).tolist() == [False, True]


def test_what_is_remembered_does_not_change_with_what_was_given():
    progress, gap = Progress([2]), torch.ones(1)
    progress.at_half_time(0, gap)
    progress.at_half_time(1, gap)
    gap -= 0.5
    assert progress.at_half_time(2, gap).tolist() == [1.0]


LONG = [APGD(steps=100), APGD(steps=100, targets=2), Square(steps=1000), FAB(steps=40)]


@pytest.mark.parametrize("attack", some(LONG, LONG[0], LONG[-1]), ids=lambda attack: attack.label)
def test_leaving_hopeless_rows_pays_and_the_same_rows_fall(attack):
    model, x, y = decided()

    def searched(eps, **how):
        found = attack(model, x, y, Linf(eps=eps), generator=generator(0), search=Search(independent=True, **how))
        return (model(found.x_adv).argmax(1) != y).tolist(), found.forwards

    patient = searched(0.001, give_up=False)[1]
    assert searched(0.001)[1] < 0.75 * patient
    if attack.name != "fab":  # where falls decide nothing, rows go on to larger losses
        assert searched(0.001, stops=False)[1] >= patient
    some, every = searched(0.02)[0], searched(0.02, give_up=False)[0]
    assert some == every
    assert any(some)
    assert not all(some)


def test_short_searches_leave_nobody():
    model, x, y = decided()
    for attack in (APGD(steps=99), Square(steps=999)):
        found = [
            attack(
                model, x, y, Linf(eps=0.001), generator=generator(0), search=Search(independent=True, give_up=give_up)
            ).forwards
            for give_up in (True, False)
        ]
        assert found[0] == found[1]
