"""AutoAttack is the worst case over its published parts."""

import pytest
import torch

from normwise.attacks import APGD, ATTACKS, FAB, PGD, AutoAttack, Square, worst_case
from normwise.seeding import generator
from normwise.threats import L1, Linf
from normwise.types import Search
from toys import CLIP, Neighbours, filmed, images, trained

THREAT = Linf(eps=0.012)


def world():
    model, x = trained(), images(60)
    with torch.no_grad():
        model.linear.bias.sub_(model(x).mean(0))
    return model, x, model(x).argmax(1)


def test_the_parts_and_their_settings_are_the_published_ones():
    assert AutoAttack().parts == (APGD(steps=100), APGD(steps=100, targets=9), FAB(steps=100, targets=9), Square(steps=5000))
    plus = AutoAttack(version="plus").parts
    assert [part.label for part in plus[:2]] == ["apgd-ce", "apgd-dlr"]
    assert [getattr(part, "restarts", None) for part in plus] == [5, 5, 5, 1, 1, 1]
    assert AutoAttack(version="rand").parts == (APGD(steps=100, draws=20), APGD(steps=100, loss="dlr", draws=20))
    with pytest.raises(ValueError, match="version of attack 'autoattack' is 'random'"):
        ATTACKS.make({"name": "autoattack", "version": "random"})
    sparse = AutoAttack().parts_in("l1")
    assert sparse == (APGD(steps=100, restarts=5), APGD(steps=100, targets=5), FAB(steps=100), Square(steps=5000))
    assert AutoAttack(version="plus").parts_in("l1") == plus


def films():
    model, x = filmed(), images(16, CLIP)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize(
    ("made", "threat"),
    [(world, THREAT), (world, L1(eps=0.7)), (films, Linf(eps=0.003))],
    ids=["linf", "l1", "clips"],
)
def test_it_is_at_least_as_strong_as_each_part_and_pays_only_for_rows_that_stand(made, threat):
    model, x, y = made()
    attack = AutoAttack(steps=10, queries=50)

    def standing(one):
        proposal = one(model, x, y, threat, generator=generator(0), search=Search(independent=True))
        return int((model(proposal.x_adv).argmax(1) == y).sum()), proposal

    whole, proposal = standing(attack)
    parts = [standing(part) for part in attack.parts_in(threat.name)]
    assert whole <= min(count for count, _ in parts)
    assert 0 < whole < len(x)
    assert threat.around(x, generator=generator(0)).contains(proposal.x_adv).all()
    assert proposal.backwards < sum(part.backwards for _, part in parts)


def test_it_says_which_part_broke_a_row_and_at_which_step():
    model, x, y = world()
    attack = worst_case(PGD(steps=0, random_start=False), PGD(steps=3, relative_step=0.3), APGD(steps=20))
    y[:5] = (y[:5] + 1) % 3  # wrong already: the first part, which does nothing, finds them at step 0
    proposal = attack(model, x, y, THREAT, generator=generator(0), search=Search(independent=True))
    fallen = model(proposal.x_adv).argmax(1) != y
    assert torch.equal(fallen, proposal.first_hit >= 0)
    assert (proposal.part[:5] == 0).all()
    assert (proposal.first_hit[:5] == 0).all()
    later = fallen & (proposal.part > 0)
    assert set(proposal.part[later].tolist()) == {1, 2}
    assert proposal.first_hit[later].max() > 1
    with pytest.raises(ValueError, match="at least one attack"):
        worst_case()


def test_of_coupled_rows_it_keeps_a_batch_that_a_part_made():
    model, x, y = world()
    model = Neighbours(model)
    proposal = AutoAttack(steps=5, queries=20)(model, x, y, THREAT, generator=generator(0))
    assert THREAT.around(x, generator=generator(0)).contains(proposal.x_adv).all()
    assert (model(proposal.x_adv).argmax(1) == y).sum() < (model(x).argmax(1) == y).sum()


def test_a_worst_case_has_the_settings_that_its_attacks_have_in_a_region():
    assert worst_case(AutoAttack()).parts_in("l1") == AutoAttack().parts_in("l1")
    assert worst_case([PGD(), AutoAttack()]) == worst_case(PGD(), AutoAttack())
    for none in ((), ([],)):
        with pytest.raises(ValueError, match="worst_case"):
            worst_case(*none)
