"""What the attacks of a protocol leave, and what stronger ones leave of that, from one evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from normwise.attacks import PGD, STRONGEST, Square
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.threats import Linf
from normwise.types import Batch, Proposal
from toys import THREAT, Linear, Neighbours, agreeing, balanced, batches, images

PROTOCOL = (Square(steps=1), PGD(steps=1, relative_step=0.2, random_start=False))  # weak on purpose
STRONGER = (PGD(steps=10),)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Another attack, and how many rows it was asked about."""

    name = "asked"
    inner: PGD = STRONGER[0]
    rows: list[int] = field(default_factory=list, compare=False)

    def __call__(self, model, x, y, threat, *, generator, search) -> Proposal:
        self.rows.append(len(x))
        return self.inner(model, x, y, threat, generator=generator, search=search)


def test_stronger_attacks_search_on_what_the_protocol_left_standing():
    model, asked = balanced(), Asked()
    parts = agreeing(model, batches(last=3))
    alone = evaluate(model, parts, THREAT, PROTOCOL).evaluation
    verdict = evaluate(model, parts, AttackPlan(THREAT, PROTOCOL, strongest=(asked,)))
    e = verdict.evaluation
    assert alone.protocol_accuracy is None
    assert alone.pair == (alone.robust_accuracy, alone.robust_accuracy)
    assert e.protocol_accuracy == e.pair[0] == alone.robust_accuracy
    assert e.per_attack == alone.per_attack  # the strongest have no figure of their own: they did not see all rows
    standing = round(43 * alone.robust_accuracy.value)
    assert sum(asked.rows) == standing
    assert 0 < round(43 * e.robust_accuracy.value) == standing - e.broken_by["asked"] < standing
    assert sum(e.broken_by.values()) == 43 - round(43 * e.robust_accuracy.value)
    fallen = model(verdict.x_adv).argmax(1) != verdict.rows.y
    assert torch.equal(fallen, verdict.rows.broken_by >= 0)
    assert [one["label"] for one in e.strongest] == ["asked"]


def test_of_coupled_rows_every_batch_is_searched_whole_and_the_fewest_survivors_count():
    model, asked = Neighbours(balanced()), Asked()
    parts = agreeing(model, batches())
    alone = {attacks: evaluate(model, parts, THREAT, attacks) for attacks in (PROTOCOL, STRONGER)}
    verdict = evaluate(model, parts, AttackPlan(THREAT, PROTOCOL, strongest=(asked,)))
    e = verdict.evaluation
    assert asked.rows == [10] * 4
    assert e.protocol_accuracy == alone[PROTOCOL].evaluation.robust_accuracy

    def survivors(one):
        return (one.rows.predictions == one.rows.y).view(4, 10).sum(1)

    assert (survivors(verdict) <= survivors(alone[PROTOCOL])).all()
    assert e.robust_accuracy.value < e.protocol_accuracy.value
    for k in range(4):  # a batch that existed
        rows = slice(10 * k, 10 * k + 10)
        assert torch.equal(model(verdict.x_adv[rows]).argmax(1), verdict.rows.predictions[rows])


def test_where_all_have_fallen_nothing_is_left_to_ask():
    model, asked = balanced(), Asked()
    e = evaluate(
        model, agreeing(model, batches()), AttackPlan(Linf(eps=1.0), (PGD(steps=10),), strongest=(asked,))
    ).evaluation
    assert e.pair[0].value == e.pair[1].value == 0
    assert sum(asked.rows) == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_the_default_works_with_fewer_classes_than_its_targets(classes):
    model = Linear((2, 6, 6)) if classes == 2 else balanced()
    x = images(40)
    y = model(x).argmax(1)
    grad = model.w.sign() if classes == 2 else torch.zeros(())
    e = evaluate(
        model, [Batch(x, y, torch.arange(40))], AttackPlan(THREAT, (Square(steps=1),), strongest=STRONGEST)
    ).evaluation
    assert e.robust_accuracy.value < e.protocol_accuracy.value
    if classes == 2:  # known on paper: the far corner of each row's ball
        corner = (x - THREAT.eps * (2 * y - 1)[:, None, None, None] * grad).clamp(0, 1)
        assert e.robust_accuracy.value == pytest.approx(float((model(corner).argmax(1) == y).float().mean()))
