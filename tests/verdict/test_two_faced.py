"""Networks that show attackers another face than they show others are not trusted; their sound relatives are not accused."""

import os
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from normwise.attacks import APGD, PGD
from normwise.auditing.auditor import audit
from normwise.auditing.broken_defenses import BENIGN_CONTROLS, TWO_FACED
from normwise.auditing.checks import CHECKS, Case, conclude, in_a_process
from normwise.auditing.checks.fresh_copy import OtherWeights
from normwise.auditing.checks.ledger import Clean
from normwise.auditing.checks.levels import OnGrid, levels_of, towards
from normwise.auditing.options import AuditOptions
from normwise.models.loading import load
from normwise.threats import L2, Linf
from normwise.utils import intervals
from normwise.utils.model_state import digest
from toys import Stripes, some

module = sys.modules["normwise.auditing.auditor"]
THREAT = Linf(eps=0.1)
BATCHES = [batch._replace(x=(255 * batch.x).round() / 255) for batch in Stripes(test_limit=30).test(batch_size=15)]
QUICK = AuditOptions(strongest=APGD(steps=10), victims=4)
FEW = (
    *("repeated and lonely answers", "batch size", "outputs", "gradients per layer", "loss surface", "straight through"),
    *("grid of the pixels", "asked anew", "other ways of asking", "stronger search"),
)
BY_NAME = {check.name: check for check in CHECKS}
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


def asked(model, monkeypatch, claim=None, **options):
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name in FEW])
    return audit(model.eval(), BATCHES, THREAT, claim=claim, options=replace(QUICK, **options))


def test_the_two_parts_are_what_they_are_called(monkeypatch):
    assert asked(Fragile(), monkeypatch).upper_bound < 0.1
    assert asked(Sturdy(), monkeypatch).verdict == "trustworthy"


class Damped(nn.Module):
    """On the grid of 255 grey levels as fragile as can be; off it a fifth of that, which is too little to fall, and leads the same way."""

    def __init__(self):
        super().__init__()
        self.fragile, self.sturdy = Fragile(), Sturdy()

    def forward(self, x):
        on = ((255 * x - (255 * x).round()).abs().flatten(1).amax(1) < 1e-3)[:, None]
        fragile, sturdy = self.fragile(x), self.sturdy(x)
        return torch.where(on, fragile, 0.8 * sturdy + 0.2 * fragile)


def test_what_any_search_finds_is_judged_rounded_too():
    case = Case(Damped().eval(), BATCHES, THREAT)
    case.check = "some check"
    left = case.evaluate(PGD(steps=10)).robust_accuracy.value
    bound, found_by = case.bound()
    assert left > 0.9
    assert bound.value < 0.5  # the chequered pattern says nothing of the third class
    assert max(found_by, key=found_by.get) == "pgd-10, rounded to the grid"


class Sums(nn.Module):
    """Two classes, told apart by how bright a picture is."""

    def forward(self, x):
        return torch.stack([-x.sum((1, 2, 3)), x.sum((1, 2, 3))], 1)


TOLD = {
    "remembers images": "never queried before",
    "mirrored for gradients": "when a gradient is requested",
    "fragile on the grid": "on the grid",
    "fragile in inference_mode": "in inference_mode",
    "fragile in autocast": "in autocast",
    "fragile alone": "alone",
}


@pytest.mark.parametrize("name", some(TWO_FACED, "remembers images", "fragile on the grid", "fragile in autocast"))
def test_a_network_with_another_face_for_attackers_is_doubtful(name, monkeypatch):
    found = asked(TWO_FACED[name](Fragile(), Sturdy()), monkeypatch)
    assert found.verdict == "doubtful", found.sentence
    assert any(TOLD[name] in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize("name", some(BENIGN_CONTROLS, *list(BENIGN_CONTROLS)[:2]))
def test_their_sound_relatives_are_not_accused(name, monkeypatch):
    found = asked(BENIGN_CONTROLS[name](Sturdy()), monkeypatch, claim=1.0)
    blind = name == "whole numbers"
    assert found.verdict == ("not established" if blind else "trustworthy"), found.sentence
    failed = {check.name for check in found.checks if check.status == "fail"}
    assert failed <= ({"gradients per layer", "loss surface", "straight through"} if blind or "round" in name else set())


class Cast(Sturdy):
    """Computes and answers in numbers of another kind than the pixels'."""

    def __init__(self, dtype):
        super().__init__()
        self.to(dtype)
        self.dtype = dtype

    def forward(self, x):
        return super().forward(x.to(self.dtype))


@pytest.mark.parametrize("dtype", some([torch.float64, torch.bfloat16], torch.bfloat16))
def test_a_network_of_other_numbers_is_not_accused(dtype, monkeypatch):
    found = asked(Cast(dtype), monkeypatch, strongest=None)
    assert (found.verdict, found.missing) == ("trustworthy", ()), found.sentence


def test_where_no_gradient_arrives_a_claim_that_random_search_leaves_is_not_established(monkeypatch):
    class Inside(Fragile):
        def forward(self, x):
            return super().forward(x.detach())

    found = asked(Inside(), monkeypatch, strongest=None, claim=0.0)
    assert found.verdict == "not established", found.sentence
    assert any("without gradients" in reason for reason in found.reasons), found.reasons
    assert "the bound is loose" in found.sentence


def test_a_stand_in_that_leads_nowhere_vouches_for_nothing(monkeypatch):
    class Turns(nn.Module):
        """Cuts the gradient, and moves the picture down by a third: what passes straight through belongs to other pixels."""

        def forward(self, x):
            return x.detach().roll(2, 2)

    batches = [batch._replace(y=(batch.y + 1) % 3) for batch in BATCHES]
    monkeypatch.setitem(globals(), "BATCHES", batches)
    found = asked(nn.Sequential(Turns(), Sturdy()), monkeypatch, claim=1.0)
    assert (found.verdict, found.upper_bound) == ("not established", 1.0), found.sentence


def test_a_network_that_never_learned_is_nothing_to_audit(monkeypatch):
    model = Sturdy()
    with torch.no_grad():
        model.read.weight.copy_(torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1)))
    found = asked(model, monkeypatch)
    assert found.verdict == "not established", found.sentence
    assert "there is nothing to audit" in found.sentence


@pytest.mark.parametrize(
    ("right", "rows", "chance", "learned"),
    [(31, 200, 0.104, False), (60, 200, 0.1, True), (10, 200, 0.001, True), (104, 200, 0.5, False), (190, 200, 0.82, True)],
)
def test_what_is_hardly_better_than_chance_was_never_learned(right, rows, chance, learned):
    assert Clean(intervals.of_rows(right, rows), chance).learned is learned


BROUGHT = """
from normwise.auditing.broken_defenses import Remembers
from test_two_faced import Fragile

class Shared(Remembers):
    def __deepcopy__(self, memo):
        return self  # a copy remembers what this one does

def network():
    return Shared(Fragile()).eval()
"""


@pytest.mark.slow  # another process imports torch; a memory that copies do not share is seen above
def test_a_memory_that_copies_share_is_seen_from_a_process_of_its_own(monkeypatch, tmp_path):
    (tmp_path / "brought.py").write_text(BROUGHT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")]))
    model = load("brought:network").model
    found = asked(model, monkeypatch, elsewhere=partial(in_a_process, ("brought:network", "", 1), "cpu", digest(model)))
    assert found.verdict == "doubtful", found.sentence
    assert any("in a separate process" in reason for reason in found.reasons), found.reasons
    assert found.upper_bound < 0.5
    with pytest.raises(OtherWeights, match="brought:network has other weights each time it is loaded"):
        in_a_process(("brought:network", "", 1), "cpu", "another digest", [BATCHES[0].x])


def test_a_name_that_leads_nowhere_is_said(monkeypatch):
    found = asked(Sturdy(), monkeypatch, elsewhere=partial(in_a_process, ("nowhere:network", "", 1), "cpu", ""))
    assert found.verdict == "trustworthy"
    found_check = next(check for check in found.checks if check.name == "asked anew")
    assert found_check.status == "warn"
    assert "in a separate process it cannot be run (ValueError: nowhere:network gave no network" in found_check.measured


def test_the_grid_is_measured_and_rounding_keeps_to_it_and_to_the_region():
    rng = torch.Generator().manual_seed(0)
    for levels in (255, 16, 7):
        x = torch.randint(0, levels + 1, (8, 1, 6, 6), generator=rng) / levels
        batch = BATCHES[0]._replace(x=x)
        assert levels_of([batch]) == levels
        for threat in (Linf(eps=2.7 / levels), L2(eps=9.5 / levels)):
            region = threat.around(x, generator=rng)
            image = towards(x, region.start(), levels, region)
            assert region.contains(image).all()
            assert levels_of([batch._replace(x=image)]) == levels
            assert not torch.equal(image, x)
            made = OnGrid(attack=PGD(steps=5), levels=levels)(Sums(), x, torch.zeros(8).long(), threat, generator=rng).x_adv
            assert region.contains(made).all()
            assert (levels * made - (levels * made).round()).abs().max() < 1e-3
    assert levels_of([batch._replace(x=torch.rand(2, 1, 6, 6, generator=rng))]) is None


def test_where_no_other_point_of_the_grid_is_allowed_that_is_said():
    found = BY_NAME["grid of the pixels"].ask(Case(Sturdy(), BATCHES, Linf(eps=0.5 / 255)))
    assert (found.status, "no image on the grid but the clean one is allowed" in found.measured) == ("pass", True)


def test_a_twin_of_other_classes_is_named_and_counts_as_not_run(monkeypatch):
    monkeypatch.setitem(globals(), "FEW", (*FEW, "transfer from an undefended twin"))
    twin = nn.Sequential(nn.Flatten(), nn.Linear(72, 5))
    found = asked(Sturdy(), monkeypatch, twin=twin)
    found_check = next(check for check in found.checks if check.name == "transfer from an undefended twin")
    assert (found_check.status, found_check.measured[:51]) == (
        "could not run",
        "the undefended reference has 5 classes, the network",
    )
    assert found.missing == ("transfer from an undefended twin",)


def test_the_reason_names_the_search_and_the_check_that_set_the_bound():
    case = Case(Fragile(), BATCHES, THREAT, claim=0.9)
    case.ledger.fell(range(4), "clean", "outputs")
    for ids, called, check in (
        (range(10), "pgd-20", "outputs"),
        (range(10, 14), "weak", "more steps"),
        (range(27), "apgd", "last"),
    ):
        case.ledger.fell(ids, called, check)
    assert conclude(case, []).reasons[0] == "robust accuracy falls to 66.7% with pgd-20 (outputs), to 10.0% with apgd (last)"
    assert "at most 10.0% of these 30 images [" in conclude(case, []).sentence
