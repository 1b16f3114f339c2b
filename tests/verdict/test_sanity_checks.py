"""The sanity checks of an evaluation: every cheat is named, and nothing else."""

import dataclasses
import re

import pytest
import torch

from normwise.attacks import APGD, FGSM, PGD, AutoAttack, Square, worst_case
from normwise.evaluation import dead
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.sanity_checks import annotate
from toys import THREAT, Linear, Neighbours, Small, Watched, balanced, batches


def warned(model, *attacks):
    e = evaluate(model, batches(), THREAT, attacks or (FGSM(), PGD(steps=5))).evaluation
    return {check.name: check.measured for check in e.checks if check.status != "pass"}


class Ending(Small):
    """A balanced network with something before it, or after it."""

    def __init__(self, before=lambda x: x, after=lambda logits: logits):
        super().__init__()
        self.load_state_dict(balanced().state_dict())
        self.before, self.after = before, after
        self.eval()

    def forward(self, x):
        return self.after(super().forward(self.before(x)))


def test_checks_warn_of_what_they_should_and_of_nothing_else():
    assert not warned(balanced())
    assert list(warned(Small().eval())) == ["dead decision"]  # untrained, it gives every image the same class
    assert not warned(Ending(after=lambda logits: 0.5 + logits / 100))  # between 0 and 1, yet no sigmoid
    assert "sum to 1" in warned(Ending(after=lambda logits: logits.softmax(1)))["logits"]
    assert "between 0 and 1" in warned(Ending(after=lambda logits: (30 * logits).sigmoid()))["logits"]
    assert {"row independence", "enough batches"} <= warned(Neighbours(balanced())).keys()
    noisy = balanced()
    noisy.drop.p = 0.5
    noisy.drop.forward = lambda x: torch.nn.functional.dropout(x, 0.5, training=True)
    assert "determinism" in warned(noisy)


@pytest.mark.parametrize(
    ("answers", "labels", "status"),
    [
        ([0] * 40, [0, 1, 2, 3] * 10, "warn"),
        ([0] * 24 + [1, 2, 3, 1] * 4, [0, 1, 2, 3] * 10, "pass"),  # 60%, not above the middle of 25% and 100%
        ([0] * 26 + [1, 2] * 7, [0, 1, 2, 3] * 10, "warn"),
        ([0] * 40, [0] * 40, "pass"),  # as the labels are
        ([0] * 12, [0, 1, 2, 3] * 3, "pass"),  # too few to tell
    ],
)
def test_a_network_is_dead_if_almost_all_images_get_one_class(answers, labels, status):
    assert dead.check_decision(torch.tensor(answers), torch.tensor(labels)).status == status


@pytest.mark.parametrize("before", [lambda x: x / 255, lambda x: (x + 1) / 2], ids=["0 to 255", "-1 to 1"])
def test_a_network_that_expects_another_range_is_named_beside_its_figures(before):
    x = torch.cat([batch.x for batch in batches()])
    right = balanced()(x).argmax(1)
    text = str(evaluate(Ending(before), (x, right), THREAT, FGSM()))
    assert re.search(r"^warning( \d)? +range of the pixels: pixels from 0 to 1; accuracy: ", text, re.M)
    assert "100.0% " in text  # in the range that it expects
    assert "nw.Standardize(mean, std)" in text
    assert "warning" not in str(evaluate(balanced(), (x, right), THREAT, FGSM()))
    twice = str(evaluate(balanced(), (x / 255, right), THREAT, FGSM()))
    assert "pixels from 0 to 0.00392" in twice  # divided twice


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (lambda x: (255 * x).round() / 255, "10 of 10 images have a gradient of exactly 0"),
        (lambda x: x.detach(), "the gradient is cut"),
        (NoWayBack.apply, "NotImplementedError"),
    ],
    ids=["rounded", "cut", "no backward"],
)
def test_gradients_that_do_not_exist_are_named_where_no_attack_needed_one(before, reason):
    assert reason in warned(Ending(before), Square(steps=5))["gradient reaches the pixels"]


def test_what_is_doubted_is_asked_of_few_rows_once_and_not_counted():
    model = Watched(balanced()).eval()
    (part,) = batches(1, 100)
    verdict = evaluate(model, [part], THREAT, ())
    e = verdict.evaluation
    assert {check.n for check in e.checks if check.name in ("logits", "gradient reaches the pixels")} == {64}
    asked = len(model.asked)
    assert annotate(e, model, part, verdict.rows) is e
    assert len(model.asked) == asked
    again = annotate(dataclasses.replace(e, checks=()), model, part, verdict.rows)
    assert again.checks == e.checks
    assert [len(x) for x in model.asked[asked:]] == [64] * 6  # with a gradient, without, and at each range of the pixels


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (AutoAttack(steps=1, queries=1), "of 3 classes, and apgd-t is made for 4 or more"),
        (PGD(steps=1, loss="dlr"), None),
        (APGD(steps=1), None),
    ],
    ids=str,
)
def test_the_record_says_where_a_loss_had_too_few_classes(attack, reason):
    checks = evaluate(balanced(), batches(1), THREAT, (attack,)).evaluation.checks
    found = {check.name: check for check in checks}.get("losses for few classes")
    assert (found and found.measured.split(":")[0]) == reason


def test_of_two_classes_dlr_is_the_margin_and_the_record_says_so():
    attacks = (FGSM(loss="dlr"), worst_case(PGD(steps=1, loss="dlr"), APGD(steps=1, targets=1)), PGD(steps=1, targets=1))
    checks = evaluate(Linear((2, 6, 6)), [b._replace(y=b.y % 2) for b in batches(1)], THREAT, attacks).evaluation.checks
    found_check = next(check for check in checks if check.name == "losses for few classes")
    assert found_check.status == "pass"
    assert found_check.measured.startswith(
        "of 2 classes, and fgsm is made for 3 or more, pgd-1 is made for 3 or more, apgd-t is made for 4 or more:"
    )
