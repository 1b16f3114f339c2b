"""Broken defences are caught, sound networks are not accused."""

import copy
import functools
import sys
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from normwise.attacks import APGD, PGD
from normwise.auditing.auditor import Audit, audit, read_claim
from normwise.auditing.broken_defenses import BROKEN, Cut, before
from normwise.auditing.checks import CHECKS, Case, cutting_layers, neighbours
from normwise.auditing.options import AuditOptions
from normwise.auditing.twin import trained_twin
from normwise.data import Mnist
from normwise.evaluation.batch_attacks import Reached, peers, single
from normwise.evaluation.evaluator import attack_batch, evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.evaluation.store import Shard
from normwise.models.abnn import Adaptive, abnn, fixed_at
from normwise.norms import BN, GN, MBN, RNT, BNwoT, Derf, DyT, NoNorm
from normwise.norms.surgery.conversion import convert
from normwise.records import to_json, write
from normwise.seeding import generator
from normwise.threats import Linf, Normalized
from normwise.training.loop import fit
from normwise.training.recipes import Adversarial, AlignedBN, Routes, Standard
from normwise.training.schedule import Schedule
from normwise.utils import forward as passes
from normwise.utils import intervals
from normwise.utils.model_state import digest
from records import result
from toys import Small, Stripes, agreeing, balanced, batches, some, trained

module, engine = (sys.modules[f"normwise.{name}"] for name in ("auditing.auditor", "evaluation.evaluator"))
THREAT = Linf(eps=0.2)
BATCHES = Stripes(test_limit=30).test(batch_size=15)
QUICK = Schedule(epochs=15, batch_size=16, optimizer="adamw", lr=0.01)


@functools.cache
def sound(norm=None, recipe=None):
    return fit(Small(norm or BN()), Stripes(), recipe or Standard(), THREAT, QUICK, seed=0).model.eval()


def tuned(recipe):
    return fit(sound(), Stripes(), recipe, THREAT, QUICK, seed=0).model.eval()


def naive_accuracy(model, craft_on=None, **options):
    """What its own protocol claims."""
    plan = AttackPlan(**{"threat": THREAT, "attacks": [PGD(steps=20)], **options})
    return evaluate(model, BATCHES, plan, craft_on=craft_on).evaluation.robust_accuracy.value


def normalized_claim(model):
    return naive_accuracy(model, threat=Normalized(eps=THREAT.eps, mean=(0.5,), std=(0.1,)))


def clean_substitute():
    options = Adaptive(taps=("norm",), source="features", scope="sample")
    model = abnn(Small(BN(), seed=7), sound(), options, shape=(2, 6, 6))
    return fit(model, Stripes(), AlignedBN(), THREAT, QUICK, seed=0).model.eval()


def clean_substitute_claim(model):
    """The substitute is fed the clean batch, and the target alone is attacked and judged."""
    right = rows = 0
    for x, y, _ in BATCHES:
        view = fixed_at(model, x)
        x_adv = PGD(steps=20)(view, x, y, THREAT, generator=generator(0)).x_adv
        right, rows = right + int((view(x_adv).argmax(1) == y).sum()), rows + len(y)
    return right / rows


def plain_claim(model):
    """What PGD on torch's own cross-entropy leaves, the last image counting."""
    right = 0
    for x, y, _ in BATCHES:
        x_adv = x
        for _ in range(20):
            x_adv = x_adv.detach().requires_grad_()
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(x_adv), y), x_adv)
            x_adv = x + (x_adv.detach() + 0.05 * grad.sign() - x).clamp(-THREAT.eps, THREAT.eps)
            x_adv = x_adv.clamp(0, 1)
        right += int((model(x_adv).argmax(1) == y).sum())
    return right / 30


def planted(name):
    return lambda: BROKEN[name](sound())


PLANTED = {  # the network, what its own protocol claims (None: the audit's default), and the check or reason that names it
    "batch statistics": (lambda: convert(sound(), BNwoT()), None, "images are coupled"),
    "left in training": (planted("left in training"), None, "a forward pass changes the model's buffers"),
    "updates at test time": (planted("updates at test time"), None, "a forward pass changes the model's buffers"),
    "gradient cut": (planted("gradient cut"), None, "straight through"),
    "rounded pixels": (planted("rounded pixels"), None, "straight through"),
    "blocks as in JPEG": (planted("blocks as in JPEG"), None, "straight through"),
    "thermometer code": (planted("thermometer code"), None, "straight through"),
    "probabilities": (planted("probabilities"), None, "outputs"),
    "logits times 100": (planted("logits times 100"), plain_claim, "size of the logits"),
    "noise": (planted("noise"), None, "other random draws give other answers"),
    "normalized eps": (sound, normalized_claim, "stronger search"),
    "steep Dynamic Tanh": (lambda: sound(DyT(alpha=500.0)), None, "saturated normalization"),
    "steep Derf": (lambda: sound(Derf(alpha=300.0)), None, "saturated normalization"),
    "clean substitute": (clean_substitute, clean_substitute_claim, "stronger search"),
}
QUICKER = AuditOptions(twin=sound(), strongest=APGD(steps=20, targets=2), victims=4)


COSTLY = ("more steps", "more starts", "other losses", "radius curve", "random search", "transfer from an undefended twin")


@pytest.mark.parametrize(
    "name",
    some(PLANTED, "batch statistics", "rounded pixels", "clean substitute", "steep Dynamic Tanh"),
)
def test_a_broken_defence_is_caught_and_named(name, monkeypatch):
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name not in COSTLY])
    make, claim, where = PLANTED[name]
    model = make().eval()
    found = audit(model, BATCHES, THREAT, claim=claim(model) if claim else None, options=QUICKER)
    named = {check.name for check in found.checks if check.status == "fail"}
    assert where in named or any(where in reason for reason in found.reasons), found.sentence
    assert found.verdict == "doubtful" or where in ("outputs", "size of the logits")


HONEST = {
    "standard": lambda: sound(),
    "adversarial": lambda: sound(recipe=Adversarial(steps=3)),
    "group norm": lambda: sound(GN(groups=4), Adversarial(steps=3)),
    "RobustNorm": lambda: sound(RNT()),
    "routes": lambda: sound(MBN(), Routes(steps=3)),
    "Dynamic Tanh": lambda: sound(DyT()),
    "no norms": lambda: sound(NoNorm(), Adversarial(steps=3)),
    "affine alone": lambda: tuned(Adversarial(steps=3, trains="affine")),
}


@pytest.mark.parametrize("name", some(HONEST, "standard", "Dynamic Tanh"))
def test_a_sound_network_is_not_accused(name):
    model = HONEST[name]()
    bits = digest(model)
    found = audit(model, BATCHES, THREAT, options=QUICKER)
    assert found.verdict == "trustworthy", found.sentence
    assert not [check for check in found.checks if check.status in ("fail", "could not run")]
    assert digest(model) == bits
    assert found.upper_bound <= naive_accuracy(model)


@pytest.mark.slow  # each of them has a guilty network of its own in test_audit_checks
def test_costly_checks_see_a_masked_gradient_too():
    found = audit(BROKEN["rounded pixels"](sound()), BATCHES, THREAT, options=QUICKER)
    failed = {check.name for check in found.checks if check.status == "fail"}
    assert {"loss surface", "transfer from an undefended twin", "random search", "gradients per layer"} <= failed


def test_processes_that_share_an_audit_find_what_one_finds_and_judge_nothing_twice(tmp_path, monkeypatch):
    model, judged = balanced(), []
    parts, names = (
        agreeing(model, batches(2)),
        ("repeated", "outputs", "more starts", "other ways of asking", "stronger search"),
    )
    monkeypatch.setattr(module, "CHECKS", [one for one in CHECKS if one.name.startswith(names)])

    def made(share):
        options = AuditOptions(strongest=APGD(steps=5), victims=4, at_once=10, share=share)
        monkeypatch.setattr(engine, "attack_batch", lambda *given: judged.append(given) or attack_batch(*given))
        return replace(audit(model, parts, Linf(eps=0.05), options=options), seconds=0.0)

    alone = made(None)
    judged.clear()
    made(Shard(tmp_path, 1, 2, whole=True))
    assert len(judged) > 5
    judged.clear()
    assert made(Shard(tmp_path, 0, 2, whole=True)) == alone
    assert len(judged) == 1  # in autocast, by who asks
    with pytest.raises(ValueError, match="all 200 rows are searched at once; give at_once 100 or fewer"):
        Audit(model="x:y", devices=2, device="cpu")


def test_a_claim_above_the_truth_is_doubtful_and_one_below_is_not(monkeypatch):
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name not in COSTLY])
    assert audit(sound(), BATCHES, THREAT, claim=0.9, options=QUICKER).verdict == "doubtful"
    assert audit(sound(), BATCHES, THREAT, claim=0.0, options=QUICKER).verdict == "trustworthy"


def test_a_check_that_cannot_run_is_named_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name not in COSTLY])

    class OneByOne(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(sound())

        def forward(self, x):
            if len(x) == 1:
                raise RuntimeError("at least two rows, please")
            return self.inner(x)

    found = audit(OneByOne(), BATCHES, THREAT, options=QUICKER)
    assert "batch size" in found.missing
    assert "at least two rows" in next(c.measured for c in found.checks if c.name == "batch size")
    assert [c.status for c in found.checks if c.name == "gradients per layer"] == ["pass"]
    assert found.missing == ("batch size",)  # the others never leave it alone with a row
    assert found.sentence.endswith(f"(could not run: {', '.join(found.missing)})")


def test_where_nothing_could_run_nothing_is_trusted():
    found = audit(sound(), BATCHES, THREAT, options=AuditOptions(budget=1e-9))
    assert (found.verdict, found.upper_bound, found.n) == ("not established", 1.0, 0)
    late = "0.00 minutes were not enough, its part of the 1e-09 that the checks have; give a larger budget"
    assert found.sentence == f"not established: no attack could run: {late}"


def test_a_search_that_takes_too_long_is_stopped_within(monkeypatch):
    asked = []

    class Slow(nn.Module):
        """Takes a second each time."""

        def forward(self, x):
            asked.append(len(x))
            return sound()(x)

    clock = SimpleNamespace(monotonic=lambda: float(len(asked)))
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(passes, "time", clock)
    monkeypatch.setattr(module, "CHECKS", [check for check in CHECKS if check.name in ("outputs", "more steps")])
    monkeypatch.setattr(module, "SHARE", 1.0)
    found = audit(Slow(), BATCHES, THREAT, options=AuditOptions(budget=3))
    assert found.missing == ("more steps",)
    assert 150 < len(asked) < 210  # of 800


def test_a_paired_interval_is_narrower_where_the_claim_is_of_the_same_rows():
    case = Case(sound(), BATCHES, THREAT)
    score = intervals.of_rows(15, 30)
    case.claim = 0.62  # four rows more: 12 points, where one rate of 30 rows is known to 17
    assert case.exceeds(score)
    case.paired = False
    assert not case.exceeds(score)


def test_the_layers_that_cut_are_named():
    batch = BATCHES[0]
    assert cutting_layers(sound(), batch) == {}
    assert cutting_layers(before(sound(), Cut()), batch) == {"0": None}


def test_one_row_of_a_random_network_is_asked_as_an_evaluation_asks_it(monkeypatch):
    asked = Mock(return_value=Reached(4, 4, 4))
    monkeypatch.setattr("normwise.evaluation.batch_attacks.single", asked)
    of = {"model": sound(), "batches": BATCHES, "threat": THREAT, "seed": 0, "options": AuditOptions(), "coupling": object()}
    case = Mock(spec=Case, coupled=True, reach={}, exceeds=Mock(return_value=False), **of)
    assert neighbours.single.ask(case).status == "pass"
    assert asked.call_args.kwargs["coupling"] is case.coupling


def test_one_row_and_neighbours_matter_exactly_where_rows_are_coupled():
    alone, coupled = trained(BN()), trained(BNwoT())
    batches = BATCHES[:1]
    assert peers(alone, batches, PGD(steps=5)).standing == peers(alone, batches, PGD(steps=5)).clean

    class Brightness(nn.Module):
        """How bright the whole batch is speaks for class 0."""

        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(sound())

        def forward(self, x):
            return self.inner(x) + 60 * (x.mean() - batches[0].x.mean()) * torch.tensor([1.0, 0.0, 0.0])

    found = peers(Brightness(), batches, PGD(steps=20))
    assert found.standing < found.clean  # what nobody touched falls
    one = single(coupled, batches, AttackPlan(Linf(eps=0.0), (PGD(steps=2),)), victims=4)
    assert one.standing == one.clean


@pytest.mark.parametrize("text", ["much", "1.5", "-0.1", "nan"])
def test_a_claim_that_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match="give the claimed robust accuracy as a share"):
        read_claim(text)


def test_a_record_says_its_protocol_and_what_it_declares(tmp_path):
    record = result("bnwot")
    path = write(tmp_path / "result.json", to_json(record))
    claim = read_claim(str(path))
    assert (claim.share, claim.data) == (record.evaluation.robust_accuracy.value, "digits")
    assert claim.under["threat"] == record.evaluation.threat
    assert claim.declares == ("coupled",)
    with pytest.raises(ValueError, match=r"was measured on digits, not on mnist; audit with --data digits"):
        module.run_audit(Audit(model="x:y", claim=str(path), data=Mnist()), tmp_path, lambda *report: None)


def test_a_twin_that_would_take_more_than_its_part_of_the_budget_is_done_without(tmp_path):
    said = []
    settings = Audit(model="a:b", budget=1e-6)
    assert trained_twin(settings, tmp_path, lambda text, done, total: said.append(text)) is None
    assert "not enough to train an undefended reference" in said[-1]
