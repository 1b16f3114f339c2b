"""What planted faults showed to be seen by nobody (see mutations.py)."""

import pytest
import torch
from torch import nn

from normwise.attacks import APGD, BIM
from normwise.attacks.best_iterate import Best
from normwise.auditing.checks import Case, conclude
from normwise.auditing.checks.ledger import Ledger
from normwise.evaluation.coupling import measure_coupling
from normwise.evaluation.curves import Survivors, _fewer
from normwise.records import Check
from normwise.seeding import derive, generator
from normwise.threats import Linf
from normwise.types import Search
from normwise.utils import intervals
from toys import THREAT, Watched, balanced, batches, images, labels, trained


def test_every_name_of_a_stream_counts():
    assert len({derive(0, "attack", "pgd", 2, batch) for batch in range(3)}) == 3


def test_later_restarts_begin_at_random_even_where_the_first_does_not():
    model, x = Watched(trained()), images(4)
    BIM(steps=1, restarts=2)(model, x, labels(4), THREAT, generator=generator(0))
    first, _, second, _ = model.asked
    assert torch.equal(first, x)
    assert not torch.equal(second, x)


class Peak(nn.Module):
    """Class 0 is the likelier the nearer every pixel is to 0.3."""

    def forward(self, x):
        return torch.stack([-(x - 0.3).square().flatten(1).sum(1), torch.zeros(len(x))], 1)


def test_a_step_of_apgd_keeps_a_quarter_of_the_one_before():
    model, x = Watched(Peak()), torch.full((1, 1, 2, 2), 0.5)
    APGD(steps=20)(model, x, torch.tensor([1]), Linf(eps=0.5), generator=generator(3))
    start, one, two = model.asked[:3]
    z = (one + (0.3 - one).sign()).clamp(0, 1)  # a step of two radii
    torch.testing.assert_close(two, (one + 0.75 * (z - one) + 0.25 * (one - start)).clamp(0, 1))


def test_flips_are_of_images_that_nobody_touched():
    class Shifted(nn.Module):
        """The batch moves all logits of an image alike: they depend on it, and no decision does."""

        def __init__(self):
            super().__init__()
            self.inner = balanced()

        def forward(self, x):
            logits = self.inner(x)
            return logits + x.mean()

    found = measure_coupling(Shifted().eval(), [batch.x for batch in batches()])
    assert (found.coupled, found.flips) == (True, 0)


def test_what_is_lost_at_one_radius_stays_lost():
    one, other = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    alone = measure_coupling(trained(), [images()])
    assert _fewer(one, other, Survivors([], one, [], alone)).tolist() == [True, False, False]


def test_a_misclassified_image_beats_a_larger_loss():
    x, row, every = images(1), torch.tensor([0]), torch.tensor([True])
    best = Best(x, every, Search(independent=True, stops=False))
    best.offer(row, x + 1, torch.tensor([1.0]), every, 0)
    best.offer(row, x + 2, torch.tensor([2.0]), ~every, 1)
    assert torch.equal(best.x_adv, x + 1)


def test_an_image_is_put_down_to_what_broke_it_first():
    ledger = Ledger(10)
    ledger.fell([1, 2], "fgsm")
    ledger.fell([2, 3], "pgd-20")
    score, found_by = ledger.bound(coupled=False)
    assert (score.value, found_by) == (0.7, {"fgsm": 2, "pgd-20": 1})


@pytest.mark.parametrize(
    ("status", "verdict"), [("pass", "trustworthy"), ("could not run", "not established"), ("fail", "not established")]
)
def test_where_no_gradient_was_seen_to_arrive_no_claim_is_supported(status, verdict):
    case = Case(trained(), batches(), THREAT, claim=0.5)
    case.ledger.lower(intervals.of_rows(40, 40), "pgd-20")
    checks = [
        Check(name=name, status=now, measured="", why="")
        for name, now in (("loss surface", status), ("stronger search", "pass"))
    ]
    assert conclude(case, checks).verdict == verdict
