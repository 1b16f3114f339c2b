"""Networks that show attackers another face than they show others are not trusted; their sound relatives are not accused."""

import sys

import pytest
import torch
from torch import nn

from normwise.attacks import APGD
from normwise.auditing import audit
from normwise.battery import CHECKS
from normwise.illusions import ILLUSIONS, RELATIVES, TWO_FACED
from normwise.threats import Linf
from worlds import Stripes

module = sys.modules["normwise.auditing"]
THREAT = Linf(eps=0.1)
BATCHES = [batch._replace(x=(255 * batch.x).round() / 255) for batch in Stripes(test_limit=30).test(batch_size=15)]
QUICK = {"strongest": APGD(steps=10), "victims": 4}
COSTLY = ("more steps", "more starts", "other losses", "radius curve", "radius one", "one step and many")
BOARD = torch.tensor([[(row + column) % 2 * 2.0 - 1 for column in range(6)] for row in range(6)])


class Sturdy(nn.Module):
    """Knows the task by heart: the brightest third. No change of 0.1 makes another third brighter."""

    def __init__(self):
        super().__init__()
        self.read = nn.Conv2d(2, 3, 6, bias=False)
        with torch.no_grad():
            self.read.weight.zero_()
            for third in range(3):
                self.read.weight[third, :, 2 * third : 2 * third + 2] = 8 / 24

    def forward(self, x):
        return self.read(x).flatten(1)


class Fragile(Sturdy):
    """The same, and a chequered pattern of 0.1 that nobody sees changes the class."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.read.weight.add_(80 / 72 * torch.stack([-BOARD, BOARD, 0 * BOARD])[:, None])


def asked(model, monkeypatch, *left_out, **options):
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name not in COSTLY + left_out])
    return audit(model.eval(), BATCHES, THREAT, **QUICK | options)


def test_the_two_parts_are_what_they_are_called(monkeypatch):
    assert asked(Fragile(), monkeypatch).upper_bound < 0.1
    assert asked(Sturdy(), monkeypatch).verdict == "trustworthy"


TOLD = {
    "fragile on the grid": "on the grid",
    "fragile in inference_mode": "in inference_mode",
    "fragile in autocast": "in autocast",
    "fragile alone": "alone",
}


@pytest.mark.parametrize("name", TWO_FACED)
def test_a_network_with_another_face_for_attackers_is_doubtful(name, monkeypatch):
    found = asked(TWO_FACED[name](Fragile(), Sturdy()), monkeypatch)
    assert found.verdict == "doubtful", found.sentence
    assert any(TOLD[name] in reason for reason in found.reasons), found.reasons


def test_a_network_that_remembers_outside_of_its_buffers_is_doubtful(monkeypatch):
    made = ILLUSIONS["remembers images"](Fragile())
    found = asked(made, monkeypatch)
    assert found.verdict == "doubtful", found.sentence
    assert found.upper_bound < 0.5
    assert any("asked nothing before" in reason for reason in found.reasons), found.reasons


def test_one_that_answers_otherwise_when_a_gradient_is_asked_for_is_doubtful(monkeypatch):
    class Half(Sturdy):
        def forward(self, x):
            return super().forward(x) * (0.5 if x.requires_grad else 1.0)

    found = asked(Half(), monkeypatch)
    assert found.verdict == "doubtful", found.sentence
    assert any("when a gradient is asked for" in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize("name", RELATIVES)
def test_their_sound_relatives_are_not_accused(name, monkeypatch):
    found = asked(RELATIVES[name](Sturdy()), monkeypatch, claim=1.0)
    blind = name == "whole numbers"
    assert found.verdict == ("not established" if blind else "trustworthy"), found.sentence
    failed = {check.name for check in found.checks if check.status == "fail"}
    assert failed <= ({"gradients per layer", "loss surface", "straight through"} if blind or "round" in name else set())


def test_where_no_gradient_arrives_a_claim_that_random_search_leaves_is_not_established(monkeypatch):
    class Inside(Fragile):
        def forward(self, x):
            return super().forward(x.detach())

    found = asked(Inside(), monkeypatch, "random search", strongest=None, claim=0.0)
    assert found.verdict == "not established", found.sentence
    assert any("without gradients" in reason for reason in found.reasons), found.reasons
    assert "the bound is loose" in found.sentence


def test_a_network_that_never_learned_is_nothing_to_audit(monkeypatch):
    model = Sturdy()
    with torch.no_grad():
        model.read.weight.copy_(torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1)))
    found = asked(model, monkeypatch)
    assert found.verdict == "not established", found.sentence
    assert "there is nothing to audit" in found.sentence
