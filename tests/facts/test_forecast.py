"""How long an evaluation can take is told before it begins."""

import re

import pytest
import torch

from normwise.attacks import APGD, FAB, PGD, Square, worst_case
from normwise.evaluation import forecast
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.types import Batch, Search
from toys import decided

ATTACKS = [PGD(steps=4, restarts=3), APGD(steps=12, targets=2), FAB(steps=5, targets=2), Square(steps=40)]


@pytest.mark.parametrize("attack", [*ATTACKS, worst_case(ATTACKS)], ids=lambda one: one.label)
def test_passes_are_those_of_a_search_that_finds_nothing(attack):
    model, x, y = decided()
    found = attack(model, x, y, Linf(eps=1e-9), generator=generator(0), search=Search(independent=True, give_up=False))
    spent = (found.forwards + 2 * found.backwards) / len(y)
    least = 0 if attack.black_box else 0.6  # who asks for no gradient leaves out questions that were asked before
    assert least * attack.passes < spent < 1.4 * attack.passes


def test_where_no_gradient_passes_forward_are_timed_and_where_nothing_works_nothing_is_told():
    class Cut(torch.nn.Module):
        def forward(self, x):
            return torch.from_numpy(x.numpy()).flatten(1)[:, :2]

    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("no memory")

    batch = Batch(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long), torch.arange(4))
    assert forecast.forecast(Cut(), batch, ATTACKS, 100) > 0
    assert forecast.forecast(Broken(), batch, ATTACKS, 100) == 0


def test_a_long_evaluation_is_told_and_a_short_one_is_not(monkeypatch):
    model, x, y = decided()
    parts, messages = [Batch(x, y, torch.arange(len(y)))] * 3, []
    forecast.report_expected_time(model, parts, ATTACKS, 1, 0.0, lambda *said: messages.append(said))
    assert not messages
    forecast.report_expected_time(model, parts, ATTACKS, 1, 1e-9, lambda *said: messages.append(said))
    assert messages.pop()[0].endswith("start and checks come on top; the budget is 1e-09 minutes")
    monkeypatch.setattr(forecast, "WORTH", 0)
    forecast.report_expected_time(model, parts, ATTACKS, 1, 0.0, lambda *said: messages.append(said))
    assert re.fullmatch(
        rf"time: the searches take about \d\.\d minutes for {3 * len(y)} images if none falls; start and checks come on top",
        messages.pop()[0],
    )
    assert all(p.grad is None for p in model.parameters())
    for seconds, long in ((90.0, "1.5 minutes"), (660.0, "11 minutes"), (7200.0, "2.0 hours")):
        monkeypatch.setattr(forecast, "forecast", lambda *given, seconds=seconds: 2 * seconds)
        forecast.report_expected_time(model, parts, ATTACKS, 2, 0.0, lambda *said: messages.append(said))
        assert messages.pop()[0].startswith(f"time: the searches take about {long} for {3 * len(y)} images")
