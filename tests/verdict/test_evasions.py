"""Networks that behave while they are looked at, and claims that slip through: none is trusted."""

import copy
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from normwise.attacks import APGD, PGD
from normwise.auditing.auditor import Audit, audit
from normwise.auditing.broken_defenses import before
from normwise.auditing.checks import CHECKS, Case, cutting_layers
from normwise.auditing.options import AuditOptions
from normwise.evaluation.coupling import measure_coupling
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.predictor import Predictor, classes_of
from normwise.norms import BN
from normwise.records import to_json, write
from normwise.threats import Linf
from normwise.types import Batch
from normwise.utils import forward as passes
from records import result
from toys import Stripes, trained

module = sys.modules["normwise.auditing.auditor"]
BATCHES = Stripes(test_limit=30).test(batch_size=15)
THREAT = Linf(eps=0.2)
BY_NAME = {check.name: check for check in CHECKS}
QUICKER = AuditOptions(strongest=APGD(steps=10), victims=4)


class Around(nn.Module):
    """A sound network, with something around it."""

    def __init__(self):
        super().__init__()
        self.inner = copy.deepcopy(trained(BN()))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        return self.inner(x)


class Counts(Around):
    """Moves a buffer in passes with a graph alone."""

    def forward(self, x):
        self.seen.add_(int(x.requires_grad))
        return self.inner(x)


class Trains(Around):
    """Goes into training mode when a gradient is asked for."""

    def forward(self, x):
        if x.requires_grad:
            self.train()
        return self.inner(x)


class Small(Around):
    """Another network in small batches."""

    def forward(self, x):
        logits = self.inner(x)
        return logits if len(x) >= 8 else logits.roll(1, 1)


class Narrow(Around):
    """Knows fewer classes in small batches."""

    def forward(self, x):
        logits = self.inner(x)
        return logits if len(x) >= 8 else logits[:, :2]


class Denies(Around):
    """Answers otherwise when a gradient is asked for."""

    def forward(self, x):
        return self.inner(x) * (0.5 if x.requires_grad else 1.0)


class Ladder(nn.Module):
    """A thermometer code as it is: eight channels for each."""

    def forward(self, x):
        levels = (torch.arange(8) + 0.5) / 8
        return (x[:, :, None] > levels.view(1, 1, 8, 1, 1)).to(x).flatten(1, 2)


class Reads(Around):
    """Takes eight channels for each."""

    def forward(self, x):
        return self.inner(x.unflatten(1, (-1, 8)).mean(2))


class Cropped(nn.Module):
    """Cuts the gradient, and the image to a part."""

    def forward(self, x):
        return x.detach()[:, :, 1:]


def cheap(monkeypatch):
    few = ("repeated and lonely answers", "batch size", "outputs", "stronger search")
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name in few])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Counts, "a forward pass changes the model's buffers or modes"),
        (Trains, "a forward pass changes the model's buffers or modes"),
        (Small, "decisions depend on the size of the batch"),
        (Narrow, "in batches of 1 the network knows 2 classes, in 30 3"),
    ],
)
def test_what_changes_while_nobody_looks_is_doubtful(monkeypatch, model, reason):
    cheap(monkeypatch)
    made = model().eval()
    found = audit(made, BATCHES, THREAT, options=QUICKER)
    assert found.verdict == "doubtful"
    assert any(reason in one for one in found.reasons), found.reasons
    assert not any(part.training for part in made.modules())
    declared = audit(made, BATCHES, THREAT, options=replace(QUICKER, declares=("stateful", "coupled")))
    assert not any(reason in one for one in declared.reasons)


def test_a_model_that_cannot_be_differentiated_is_not_stateful_for_it():
    class Numpy(Around):
        def forward(self, x):
            return self.inner(torch.from_numpy(x.numpy()))

    assert not measure_coupling(Numpy().eval(), [BATCHES[0].x]).stateful


def test_a_network_that_answers_otherwise_when_a_gradient_is_asked_for_is_named():
    found = BY_NAME["gradients per layer"].ask(Case(Denies().eval(), BATCHES, THREAT))
    assert (found.status, found.measured) == ("fail", "the network gives other answers when a gradient is requested")


def test_batches_of_large_images_stay_small_enough_for_memory():
    class Counting(nn.Module):
        def forward(self, x):
            sizes.add(len(x))
            return x.mean((2, 3))

    sizes = set[int]()
    large = [Batch(torch.zeros(2, 3, 224, 224), torch.zeros(2, dtype=torch.long), torch.arange(2))]
    found = BY_NAME["batch size"].ask(Case(Counting().eval(), large, THREAT))
    assert found.status == "pass"
    assert "(batches of 1, 2, 8, 32)" in found.measured
    assert max(sizes) == 32


def test_where_the_gradient_dwindles_the_layer_is_named():
    class Faint(nn.Module):
        def forward(self, x):
            return x.detach() + 1e-9 * x

    found = BY_NAME["gradients per layer"].ask(Case(before(trained(BN()), Faint()).eval(), BATCHES, THREAT))
    assert found.status == "warn"
    assert "it shrinks most at 0, to 1e-09" in found.measured


def test_a_layer_that_answers_several_channels_for_one_is_passed_straight_through():
    model = nn.Sequential(Ladder(), Reads()).eval()
    case = Case(model, BATCHES, Linf(eps=0.35), claim=0.9)
    assert list(cutting_layers(model, BATCHES[0])) == ["0"]
    assert "cut at 0" in BY_NAME["gradients per layer"].ask(case).measured
    found = BY_NAME["straight through"].ask(case)
    assert found.status == "fail"
    assert "with 0 passed straight through" in found.measured
    part = nn.Sequential(Cropped(), trained(BN())).eval()
    found = BY_NAME["straight through"].ask(Case(part, BATCHES, THREAT))
    assert "0 has no known replacement" in found.measured


def test_a_slow_check_does_not_cost_the_last_search_its_time_and_without_that_nothing_is_trusted(monkeypatch):
    asked = []

    class Slow(Around):
        def forward(self, x):
            asked.append(len(x))
            return self.inner(x)

    clock = SimpleNamespace(monotonic=lambda: float(len(asked)), perf_counter=time.perf_counter)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(passes, "time", clock)
    few = ("outputs", "more steps", "more starts", "stronger search")
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name in few])
    enough = audit(Slow().eval(), BATCHES, THREAT, options=replace(QUICKER, budget=20))  # a pass takes a second
    asked.clear()
    short = audit(Slow().eval(), BATCHES, THREAT, options=replace(QUICKER, budget=3, strongest=PGD(steps=100)))
    assert enough.missing == ("more steps",)
    assert "stronger search" in short.missing
    assert short.verdict != "trustworthy"
    assert any("without it nothing supports the claim" in one for one in short.reasons)


def test_a_network_that_always_answers_the_same_is_dead_and_its_attack_does_not_fail():
    class Same(nn.Module):
        def forward(self, x):
            return torch.tensor([9.0, 0.0, 0.0]) + 1e-6 * x.mean((1, 2, 3))[:, None] * torch.arange(3)

    found = BY_NAME["radius one"].ask(Case(Same(), BATCHES, THREAT))
    assert (found.status, "the answer is the same for images and for noise" in found.measured) == ("warn", True)


def test_the_last_search_asks_about_every_part_of_the_rows_also_where_they_are_equally_many(monkeypatch):
    options, asked = AuditOptions(strongest=APGD(steps=2), at_once=15), list[int]()
    case = Case(trained(BN()), BATCHES, THREAT, options=options)
    judge = evaluate

    def seen(model, batches, *rest, **options):
        asked.extend(row for batch in batches for row in batch.ids.tolist())
        return judge(model, batches, *rest, **options)

    case.pgd20()
    monkeypatch.setattr("normwise.auditing.checks.case.evaluate", seen)
    monkeypatch.setattr(case, "standing", lambda: case.split(15))
    BY_NAME["stronger search"].ask(case)
    assert sorted(asked) == sorted(row for batch in BATCHES for row in batch.ids.tolist())


def test_time_that_is_over_is_no_fault_of_the_images():
    with passes.until(0.0), pytest.raises(TimeoutError):
        classes_of(Predictor(trained(BN()), 0), BATCHES[0].x)


def test_a_claim_made_under_another_radius_is_refused(tmp_path):
    path = write(tmp_path / "result.json", to_json(result("bn")))
    settings = Audit(model="x:y", claim=str(path), threat=Linf(eps=0.3))
    with pytest.raises(
        ValueError, match=r"under another threat model than .*0\.3.*; audit with --threat linf --threat\.eps"
    ):
        module.run_audit(settings, tmp_path, lambda *report: None)


def test_an_audit_warns_where_one_class_is_answered_more_than_twice_as_often_as_it_occurs():
    class Leaning(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot((10 * x[:, 0, 0, 0]).round().long(), 10).float()

    for often, status in ((5, "warn"), (4, "pass")):
        answers = torch.tensor([0] * often + [1 + k % 9 for k in range(20 - often)])
        x = (answers / 10)[:, None, None, None].expand(20, 1, 2, 2)
        case = Case(Leaning(), [Batch(x, torch.arange(20) % 10, torch.arange(20))], THREAT)
        assert BY_NAME["dead decision"].ask(case).status == status
