"""The verdict: independent and coupled rows, worst cases that existed, cheats that are named."""

import copy
import dataclasses
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

from normwise.attacks import FAB, FGSM, PGD, worst_case
from normwise.evaluation.acceleration import EAGER, FAST, Copies
from normwise.evaluation.coupling import measure_coupling
from normwise.evaluation.evaluator import evaluate, searched
from normwise.evaluation.plan import AttackPlan
from normwise.evaluation.store import Shard
from normwise.norms import BNwoT
from normwise.seeding import generator
from normwise.threats import L2, Linf
from normwise.types import Batch, Proposal
from normwise.utils import intervals
from normwise.utils.model_state import digest
from toys import THREAT, Linear, Neighbours, Small, agreeing, balanced, batches, images, trained


def test_independent_rows_are_judged_row_by_row():
    model = balanced()
    verdict = evaluate(model, agreeing(model, batches(last=3)), THREAT, (FGSM(), PGD(steps=5)))
    e = verdict.evaluation
    assert not e.coupled
    assert e.n == 43
    assert e.clean_accuracy.value == 1
    assert e.robust_accuracy.unit == "rows"
    fallen = model(verdict.x_adv).argmax(1) != verdict.rows.y
    assert torch.equal(fallen, verdict.rows.broken_by >= 0)  # every claimed success is one, scored by the model itself
    assert e.robust_accuracy.value == int((~fallen).sum()) / 43
    assert 0 < e.robust_accuracy.value < 1
    assert e.robust_accuracy.value <= min(score.value for score in e.per_attack.values())
    assert e.rebatched_accuracy == pytest.approx(e.robust_accuracy.value)
    assert e.alone_accuracy is None
    assert e.digest_before == e.digest_after == digest(model)
    assert (THREAT.around(verdict.x, generator=generator(0)).distance(verdict.x_adv) <= 0.05 + 1e-6).all()


@pytest.mark.parametrize(
    "make",
    [lambda: trained(BNwoT()), lambda: Neighbours(balanced()), lambda: Small().train()],
    ids=["bnwot", "neighbours", "train"],
)
def test_coupled_rows_are_judged_in_batches_that_existed(make):
    model = make()
    mode = "train" if model.training else "eval"
    parts = batches(last=3)
    verdict = evaluate(model, parts, AttackPlan(THREAT, (FGSM(), PGD(steps=5)), mode=mode, stateful="restore"))
    e = verdict.evaluation
    assert e.coupled
    assert e.n == 40  # the short batch is left out
    assert (e.robust_accuracy.unit, e.robust_accuracy.n, e.robust_accuracy.rows) == ("batches", 4, 40)
    assert e.robust_accuracy.value <= e.clean_accuracy.value  # the untouched batch is a candidate
    if mode == "eval":
        for k in range(4):  # judged again in its own batch, each row gets the answer of the record
            rows = slice(10 * k, 10 * k + 10)
            assert torch.equal(model(verdict.x_adv[rows]).argmax(1), verdict.rows.predictions[rows])
        survivors = [(verdict.rows.predictions == verdict.rows.y)[10 * k : 10 * k + 10].sum() for k in range(4)]
        assert sum(survivors) / 40 == pytest.approx(e.robust_accuracy.value)
        assert e.alone_accuracy is not None


@pytest.mark.parametrize("make", [balanced, lambda: Neighbours(balanced())], ids=["independent", "coupled"])
def test_images_are_judged_again_unless_nobody_asks(make):
    plan = AttackPlan(THREAT, (FGSM(),))
    asked, unasked = (judge(make(), batches(), plan) for judge in (evaluate, searched))
    assert torch.equal(asked.x_adv, unasked.x_adv)
    assert unasked.evaluation.rebatched_accuracy is unasked.evaluation.alone_accuracy is None
    passes = 2 if asked.evaluation.coupled else 1
    assert asked.evaluation.forwards - unasked.evaluation.forwards == passes * 40
    assert asked.evaluation.checks
    assert not unasked.evaluation.checks


def test_coupling_that_is_given_is_not_measured_again():
    seen = []

    class Counting(Neighbours):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    model = Counting(balanced())
    known = measure_coupling(model, [batch.x for batch in batches()])
    verdicts, passes = [], []
    for coupling in (None, known):
        seen.clear()
        verdicts.append(searched(model, batches(), AttackPlan(THREAT, (FGSM(),)), coupling=coupling))
        passes.append(len(seen))
    first, second = verdicts
    assert first.evaluation.coupled
    assert second.evaluation.coupling == dataclasses.asdict(known)
    assert torch.equal(first.x_adv, second.x_adv)
    assert passes[0] - passes[1] == 20  # ten looks at each of two batches


def test_an_attack_on_coupled_rows_never_sees_a_smaller_batch():
    seen = []

    class Watching(Neighbours):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    evaluate(Watching(balanced()), batches(), THREAT, (PGD(steps=3, restarts=2),))
    assert set(seen) == {10, 1}  # 1: the images alone, at the end


def test_the_probe_finds_coupling_randomness_and_memory_apart():
    x = [images(seed=0), images(seed=1)]
    plain = measure_coupling(trained(), x)
    assert (plain.coupled, plain.random, plain.stateful) == (False, False, False)
    assert plain.flips == 0
    coupled = measure_coupling(Neighbours(trained()), x)
    assert (coupled.coupled, coupled.random, coupled.stateful) == (True, False, False)
    noisy = trained()
    noisy.drop.train()
    noisy = measure_coupling(noisy, x)
    assert (noisy.coupled, noisy.random, noisy.stateful) == (False, True, False)
    training = trained().train()
    training.drop.eval()
    training = measure_coupling(training, x)
    assert (training.coupled, training.random, training.stateful) == (True, False, True)


class Around(nn.Module):
    """A network inside another, which can see how it is called."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls, self.size, self.kept = model, 0, 0, []


class Counting(Around):
    def forward(self, x):
        self.calls, self.size = self.calls + 1, x.shape[-1]
        self.kept.append(x)
        return self.model(x) if self.calls < 100 else self.model(x).roll(1, 1)


class Sharper(Around):
    def forward(self, x):
        return self.model(x if x.requires_grad else (8 * x).round() / 8)


def test_what_every_pass_counts_and_answers_that_a_gradient_changes_are_warned_of():
    def warned(model):
        e = evaluate(model, batches(), THREAT, (PGD(steps=2),)).evaluation
        return {one.name: one.measured for one in e.checks if one.status == "warn"}

    names = "statelessness", "same with a gradient and without"
    assert warned(balanced()).keys().isdisjoint(names)
    counting, sharper = warned(Counting(balanced())), warned(Sharper(balanced()))
    assert "calls, kept, and" in counting[names[0]]
    assert "size" not in counting[names[0]]
    assert names[1] not in counting
    assert "images get other logits" in sharper[names[1]]
    assert names[0] not in sharper


class After(nn.Module):
    """A network whose logits a function changes."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = trained(), change

    def forward(self, x):
        return self.inner(x) + self.change(x)


@pytest.mark.parametrize("mask", [-1e4, -1e9, -torch.inf])
def test_a_class_that_is_masked_hides_no_coupling_and_is_none(mask):
    def masked(inner):
        return measure_coupling(nn.Sequential(inner, nn.ConstantPad1d((0, 1), mask)), x)

    x = [images(seed=0), images(seed=1)]
    noisy = trained()
    noisy.drop.train()
    alone, coupled, random = masked(trained()), masked(Neighbours(trained())), masked(noisy)
    assert (alone.coupled, coupled.coupled, alone.random, random.random) == (False, True, False, True)


@pytest.mark.parametrize(
    ("change", "coupled", "random"),
    [
        (lambda x: torch.randn(()), False, True),  # one draw for all rows, wherever they stand
        (lambda x: torch.arange(len(x)).view(-1, 1), True, False),  # places alone
        (lambda x: (x.flatten(1).amax() == 1).float(), True, False),  # black and white neighbours alone
        (lambda x: x.flatten(1).mean(1).roll(1).view(-1, 1), True, False),  # one neighbour
        (lambda x: torch.nan if x.max() == 1 else 0.0, True, False),  # neighbours that leave no number
        (lambda x: torch.zeros(()), False, False),
    ],
)
def test_what_matters_alone_is_found_where_all_is_changed_at_once(change, coupled, random):
    found = measure_coupling(After(change), [images().clamp(max=0.9)])
    assert (found.coupled, found.random, found.stateful) == (coupled, random, False)


@pytest.mark.parametrize("share", [1e-3, 1.0])
def test_a_small_share_of_the_batch_is_coupling_too(share):
    from normwise.norms import BN

    assert measure_coupling(trained(BN(centre_share=share)), [images(), images(seed=1)]).coupled


@dataclass(frozen=True, kw_only=True)
class Cheat:
    """Leaves the ball on every second row."""

    name = "cheat"
    harm: str = "outside"

    def __call__(self, model, x, y, threat, *, generator, search):
        if self.harm == "outside":
            x_adv = x.clone()
            x_adv[::2] = 1 - x[::2].round()
        elif self.harm == "weights":
            x_adv = x
            with torch.no_grad():
                next(model.parameters()).add_(1)
        else:
            x_adv = x[:, :1]
        return Proposal(x_adv, torch.full_like(y, -1), 0, 0)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("outside", "cheat left linf: 5 of 10 rows of batch 0"),
        ("weights", "changed while it was evaluated"),
        ("shape", "returned images of shape"),
    ],
)
def test_a_cheating_attack_is_named(harm, reason):
    model = balanced()
    with pytest.raises(ValueError, match=reason):
        evaluate(model, agreeing(model, batches()), THREAT, (Cheat(harm=harm),))


def test_a_model_that_remembers_is_refused_unless_told():
    with pytest.raises(ValueError, match="stateful='restore'"):
        evaluate(Small().train(), batches(), AttackPlan(THREAT, (), mode="train"))


def test_the_mode_is_explicit_and_put_back():
    model = trained().train()
    model.conv1.eval()
    modes = [m.training for m in model.modules()]
    assert not evaluate(model, batches(), THREAT, (FGSM(),)).evaluation.coupled
    assert [m.training for m in model.modules()] == modes


def test_eps_zero_is_exactly_clean_accuracy():
    for threat in (Linf(eps=0.0), L2(eps=0.0)):
        e = evaluate(balanced(), batches(), threat, (FGSM(), PGD(steps=3))).evaluation
        assert e.robust_accuracy.value == e.clean_accuracy.value


def test_the_judge_is_the_model_and_never_the_one_crafted_on():
    model = balanced()
    parts = agreeing(model, batches())
    own = evaluate(model, parts, THREAT, (PGD(steps=5),)).evaluation
    transferred = evaluate(model, parts, THREAT, (PGD(steps=5),), craft_on=trained(seed=5)).evaluation
    assert transferred.clean_accuracy == own.clean_accuracy
    assert transferred.robust_accuracy.value > own.robust_accuracy.value


def test_the_same_seed_gives_the_same_verdict():
    model = balanced()
    one, two = (evaluate(model, batches(), THREAT, (PGD(steps=4),)) for _ in range(2))
    assert torch.equal(one.x_adv, two.x_adv)
    assert one.evaluation.robust_accuracy == two.evaluation.robust_accuracy


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b._replace(x=255 * b.x), r"pixels from 0 to 255; expected \[0, 1\]"),
        (lambda b: b._replace(x=(255 * b.x).to(torch.uint8)), "dtype torch.uint8"),
        (lambda b: b._replace(x=b.x / 0 * 0), "NaN or infinite"),
        (lambda b: b._replace(y=b.y + 3), "labels from 3 to 5; expected 0 to 2, as the model has 3 classes"),
        (lambda b: b._replace(x=b.x[:, :1]), "cannot take images of shape"),
        (lambda b: b._replace(y=b.y.float()), "labels of dtype torch.float32"),
        (lambda b: b._replace(y=b.y.to(torch.uint8)), "labels of dtype torch.uint8"),
        (lambda b: b._replace(y=b.y[:, None]), r"labels of dtype torch.int64 and shape \(10, 1\)"),
        (lambda b: b._replace(x=b.x[:0], y=b.y[:0], ids=b.ids[:0]), "with 0 labels"),
    ],
    ids=["0..255", "uint8", "nan", "labels", "channels", "float", "byte", "column", "empty"],
)
def test_images_and_labels_that_cannot_be_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        evaluate(balanced(), [change(b) for b in batches()], THREAT, (FGSM(),))


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="no batches"):
        evaluate(balanced(), [], THREAT, ())


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_is_the_librarys(n, share):
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    score = intervals.of_rows(k, n)
    assert (score.value, score.n) == (k / n, n)
    assert (score.low, score.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


def test_the_interval_over_batches_is_wider_where_batches_differ_and_never_narrower_than_wilson():
    alike, apart, certain = (intervals.of_batches(counts, 10) for counts in ([5] * 20, [0, 10] * 10, [0] * 20))
    rows = intervals.of_rows(100, 200)
    assert (alike.low, alike.high) == (rows.low, rows.high)
    assert apart.high - apart.low > 2 * (rows.high - rows.low)
    assert certain.high == intervals.of_rows(0, 200).high > 0
    assert (apart.n, apart.unit, apart.rows) == (20, "batches", 200)


def test_searching_on_a_folded_copy_gives_the_same_verdict():
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)  # a tracer's stand-in for a tensor is no tensor
    try:
        model = balanced()
        parts = agreeing(model, batches(20))
        fast, slow = (evaluate(model, parts, AttackPlan(THREAT, (PGD(steps=10),), speed=speed)) for speed in (FAST, EAGER))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert abs(fast.evaluation.robust_accuracy.value - slow.evaluation.robust_accuracy.value) <= 1 / 200
    assert torch.equal(
        model(fast.x_adv).argmax(1) != fast.rows.y, fast.rows.broken_by != -1
    )  # each success is the model's own
    assert 0 < slow.evaluation.robust_accuracy.value < 1


class Inverted(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return -self.model(x)


def test_coupled_rows_are_searched_on_a_copy_too_and_again_where_the_judge_disagrees(monkeypatch):
    model, asked = trained(BNwoT()), list[nn.Module]()

    class Watching(PGD):
        def search(self, oracle, *rest):
            asked.append(oracle.model)
            return super().search(oracle, *rest)

    def survivors(speed):
        asked.clear()
        verdict = evaluate(model, batches(), AttackPlan(THREAT, (Watching(steps=5),), speed=speed))
        return verdict.evaluation.robust_accuracy.value

    plain = survivors(EAGER)
    assert all(one is model for one in asked)
    assert abs(survivors(FAST) - plain) <= 1 / 40
    assert all(one is not model for one in asked[:1])
    with monkeypatch.context() as patched:  # a copy that calls every row wrong finds nothing, and is found out
        patched.setattr(
            "normwise.evaluation.preflight.faster", lambda model, *rest: Copies((Inverted(copy.deepcopy(model)),))
        )
        assert survivors(FAST) == plain
    assert sum(one is model for one in asked) == 4  # every batch again


def test_the_worst_case_of_coupled_rows_is_the_candidate_with_fewest_survivors():
    model = Neighbours(balanced())
    parts = agreeing(model, batches(8))
    e = evaluate(model, parts, THREAT, (PGD(steps=1, relative_step=0.01), PGD(steps=10))).evaluation
    weak, strong = e.per_attack.values()
    assert e.robust_accuracy.value <= strong.value < weak.value <= e.clean_accuracy.value == 1


@dataclass(frozen=True, kw_only=True)
class Half:
    """Attacks every second row of a batch."""

    name = "half"
    first: int

    def __call__(self, model, x, y, threat, *, generator, search):
        found = PGD(steps=10)(model, x, y, threat, generator=generator)
        mine = torch.arange(len(x)) % 2 == self.first
        return found._replace(
            x_adv=torch.where(mine[:, None, None, None], found.x_adv, x), first_hit=torch.where(mine, found.first_hit, -1)
        )


def test_of_coupled_rows_the_most_damaging_images_of_all_attacks_are_judged_side_by_side():
    model = Neighbours(balanced())
    parts, halves = agreeing(model, batches(8)), (Half(first=0), Half(first=1))

    def left(*attacks):
        rows = evaluate(model, parts, THREAT, attacks).rows
        return (rows.predictions == rows.y).view(8, 10).sum(1)

    assert left(*halves).sum() < torch.minimum(*map(left, halves)).sum()  # fewer than the worse half of each batch
    verdict = evaluate(model, parts, AttackPlan(THREAT, halves, strongest=(PGD(steps=0),)))
    e = verdict.evaluation
    assert e.robust_accuracy.value == e.protocol_accuracy.value  # of the protocol's attacks alone
    assert set(verdict.rows.broken_by.tolist()) >= {0, 1}
    for k in range(8):  # the batch existed
        rows = slice(10 * k, 10 * k + 10)
        assert torch.equal(model(verdict.x_adv[rows]).argmax(1), verdict.rows.predictions[rows])
    assert (verdict.rows.step[verdict.rows.broken_by >= 0] >= 0).all()


def test_evaluation_moves_neither_a_counting_models_buffers_nor_the_global_random_state():
    class Counts(Small):
        def __init__(self):
            super().__init__()
            self.register_buffer("asked", torch.tensor(0))

        def forward(self, x):
            self.asked.add_(1)
            return super().forward(x) + 1e-3 * torch.rand(())

    model = Counts().eval()
    state = torch.random.get_rng_state()
    e = evaluate(model, batches(), AttackPlan(THREAT, (PGD(steps=2),), stateful="restore")).evaluation
    assert (e.coupling["stateful"], int(model.asked)) == (True, 0)
    assert torch.equal(torch.random.get_rng_state(), state)


class Tires(Small):
    """Answers the second best once it was asked about three batches."""

    def __init__(self):
        super().__init__()
        self.load_state_dict(balanced().state_dict())
        self.register_buffer("asked", torch.tensor(0))

    def forward(self, x):
        self.asked.add_(1)
        logits = super().forward(x)
        return logits if self.asked <= 3 else -logits


def test_in_sequence_a_batch_is_judged_by_what_those_before_it_left(tmp_path):
    model = Tires().eval()
    parts = agreeing(balanced(), batches(5))

    def stop(text, done, total):
        if done == 2:
            raise InterruptedError

    kept = evaluate(model, parts, AttackPlan(THREAT, (), stateful="restore")).evaluation.clean_accuracy.value
    whole = evaluate(model, parts, AttackPlan(THREAT, (FGSM(),), stateful="sequence"))
    with pytest.raises(InterruptedError):
        evaluate(model, parts, AttackPlan(THREAT, (FGSM(),), stateful="sequence"), folder=tmp_path, report=stop)
    resumed = evaluate(model, parts, AttackPlan(THREAT, (FGSM(),), stateful="sequence"), folder=tmp_path)
    assert (kept, whole.evaluation.clean_accuracy.value) == (1, 3 / 5)
    assert torch.equal(resumed.rows.predictions, whole.rows.predictions)
    assert torch.equal(resumed.x_adv, whole.x_adv)
    assert int(model.asked) == 0
    assert whole.evaluation.digest_before == whole.evaluation.digest_after
    with pytest.raises(ValueError, match="cannot be shared out"):
        evaluate(model, parts, AttackPlan(THREAT, (FGSM(),), stateful="sequence"), folder=Shard(tmp_path, 0, 2))


def test_a_fall_of_the_surrogate_does_not_end_a_transfer_attack():
    model, surrogate = balanced(), balanced()
    parts = agreeing(model, batches())
    with torch.no_grad():
        surrogate.linear.weight.add_(0.3 * surrogate.linear.weight.roll(1, 0))
    best, last = (
        evaluate(
            model, parts, Linf(eps=0.04), (PGD(steps=20, keep=keep),), craft_on=surrogate
        ).evaluation.robust_accuracy.value
        for keep in ("best", "last")
    )
    assert best <= last < 1


def test_a_lucky_draw_saves_no_row():
    class Tossed(torch.nn.Module):
        """One answer in ten is wrong whatever the image; all answers are for images dark enough."""

        def forward(self, x):
            score = 10 * (x.flatten(1).mean(1) - 0.47) - 0.5 * (torch.rand(len(x)) < 0.1)
            return torch.stack([torch.zeros_like(score), score], 1)

    part = Batch(torch.full((20, 2, 6, 6), 0.5), torch.ones(20, dtype=torch.long), torch.arange(20))
    attack = PGD(steps=20, relative_step=0.05, random_start=False)
    e = evaluate(Tossed().eval(), [part], Linf(eps=0.1), (attack,)).evaluation
    assert e.coupling["random"]
    assert (e.clean_accuracy.value, e.robust_accuracy.value) == (1, 0)


def test_of_coupled_rows_only_those_that_were_right_are_broken():
    model = Neighbours(balanced())
    verdict = evaluate(model, batches(), THREAT, (PGD(steps=3),))
    right = verdict.rows.clean_predictions == verdict.rows.y
    assert 0 < right.sum() < 40
    assert (verdict.rows.broken_by[~right] == -2).all()
    assert verdict.evaluation.broken_by["pgd-3"] <= right.sum()


def test_of_a_row_that_stands_the_image_with_the_largest_margin_is_kept():
    model = balanced()
    parts, strong, weak = agreeing(model, batches()), PGD(steps=10), PGD(steps=1, relative_step=0.01, random_start=False)
    both, alone = (evaluate(model, parts, Linf(eps=0.01), attacks) for attacks in ((strong, weak), (strong,)))
    stands = both.rows.broken_by == -1
    assert stands.any()
    assert torch.equal(both.rows.margin[stands], alone.rows.margin[stands])


@pytest.mark.parametrize(
    ("attack", "steps"), [(FGSM(), 1), (PGD(steps=5, keep="last"), 5), (worst_case(FGSM()), 1)], ids=str
)
def test_a_fall_that_only_the_judge_saw_came_at_the_last_step(attack, steps):
    model = balanced()
    rows = evaluate(model, agreeing(model, batches()), THREAT, (attack,)).rows
    assert set(rows.step[rows.broken_by >= 0].tolist()) == {steps}


def test_coupling_is_looked_for_in_the_largest_batch_and_coupled_rows_need_batches_of_one_size():
    first, *rest = batches(2, 20)
    uneven = [Batch(*(part[:1] for part in first)), *rest]
    with pytest.raises(ValueError, match=r"batches of coupled rows are of \[1, 20\] rows"):
        evaluate(Neighbours(balanced()), uneven, THREAT, ())
    assert evaluate(balanced(), uneven, THREAT, ()).evaluation.n == 21


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"craft_on": Linear((2, 6, 6))}, "model crafted on has 2 classes, the model 3"),
        (
            {"craft_on": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 3))},
            "model crafted on cannot take images",
        ),
    ],
    ids=["classes", "shape"],
)
def test_surrogates_that_cannot_be_are_refused(given, reason):
    with pytest.raises(ValueError, match=reason):
        evaluate(**{"model": balanced(), "batches": batches(), "threat": THREAT, "attacks": ()} | given)


def test_what_is_no_attack_is_refused():
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)  # its complaint would come first
    try:
        with pytest.raises(ValueError, match="expected a list of attacks"):
            evaluate(balanced(), batches(), THREAT, "pgd")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_with_a_class_to_reach_only_that_class_counts():
    """Three classes, logits (0, a, b) of one pixel each: which of them an attacker reaches at a radius is known on paper."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, x):
            return torch.cat([torch.full_like(x[:, :1, 0, 0], 0.5), x[:, 0, 0, :2] * self.weight], 1)

    model = Two()
    x = torch.tensor([[0.3, 0.1], [0.1, 0.3], [0.45, 0.45], [0.9, 0.2]])[:, None, None]
    parts = [Batch(x, torch.tensor([0, 0, 0, 0]), torch.arange(4))]  # the last is misclassified untouched
    threat, search = Linf(eps=0.25), (PGD(steps=20),)

    def left(**plan):
        found = evaluate(model, parts, AttackPlan(threat, search, **plan))
        assert (found.evaluation.goal, int(found.correct.sum())) == (plan["goal"], round(4 * found.robust_accuracy.value))
        return found.correct.tolist()

    assert left(goal="misclassified") == [False, False, False, False]
    assert left(goal="targeted") == [False, True, False, False]  # the class after the label, 1
    assert left(goal="targeted", classes=(2, 2, 1, 1)) == [True, False, False, False]
    for classes, reason in (
        ((1, 1), "2 classes to reach for 4 images"),
        ((0, 1, 1, 1), "own label"),
        ((1, 1, 1, 3), "from 0 to 2"),
    ):
        with pytest.raises(ValueError, match=reason):
            left(goal="targeted", classes=classes)
    with pytest.raises(ValueError, match="say goal='targeted'"):
        left(goal="misclassified", classes=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="fab looks for any misclassified image"):
        evaluate(model, parts, AttackPlan(threat, (FAB(),), goal="targeted"))


def test_coupled_rows_have_a_class_to_reach_too():
    model = Neighbours(balanced())
    parts = agreeing(model, batches(8))
    found = evaluate(model, parts, AttackPlan(Linf(eps=0.3), (PGD(steps=10),), goal="targeted", strongest=(PGD(steps=30),)))
    right = found.rows.clean_predictions == found.rows.y
    reached = found.rows.predictions == (found.rows.y + 1) % 3
    assert found.evaluation.coupled
    assert int((right & reached).sum()) > 0
    assert torch.equal(found.correct, right & ~reached)
    assert int(found.correct.sum()) == round(len(right) * found.robust_accuracy.value)


class InPairs(nn.Module):
    """Each row's logits lean on those of its partner, so that one row alone cannot be answered."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        logits = self.inner(x)
        return (logits.view(len(x) // 2, 2, -1) + 0.1 * logits.view(len(x) // 2, 2, -1).flip(1)).view(logits.shape)


def test_a_network_that_cannot_take_one_row_is_evaluated_all_the_same():
    found = evaluate(InPairs(balanced()).eval(), batches(size=20), Linf(eps=0.01), FGSM()).evaluation
    assert found.coupled
    assert found.alone_accuracy is None


def test_two_attacks_of_one_label_are_told_apart_in_what_broke_rows():
    model = balanced()
    weak, strong = PGD(steps=1, relative_step=1e-6), PGD(steps=1, relative_step=1.0)
    found = evaluate(model, agreeing(model, batches()), AttackPlan(Linf(eps=0.05), (weak, strong), strongest=()))
    assert found.evaluation.broken_by["pgd-1~2"] > found.evaluation.broken_by.get("pgd-1", 0)
