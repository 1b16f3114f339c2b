"""An evaluation that is stopped goes on to the same verdict; parts of another one are refused; shards add up."""

import csv
import dataclasses
import shutil
import time

import numpy as np
import pytest
import torch
from filelock import FileLock

from normwise.attacks import FAB, FGSM, PGD, worst_case
from normwise.evaluation.acceleration import EAGER, FAST, Speed, _Filled, faster
from normwise.evaluation.artifacts import COLUMNS, keep_images, keep_rows
from normwise.evaluation.curves import at, curve
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.evaluation.store import Shard
from normwise.seeding import generator
from normwise.threats import L2, Linf
from normwise.types import Batch
from normwise.utils.forward import until
from toys import THREAT, Linear, Neighbours, Small, agreeing, balanced, batches, crossed

ATTACKS = (FGSM(), PGD(steps=4))
SWITCHED = [Speed(**one) for one in ({"fold": False}, {"channels_last": False}, {"first_layer": False})]
SWITCHED += [Speed(drop=False), Speed(give_up=False)]
SWITCHED += [Speed(precision=one) for one in ("bfloat16", "float16")]


class Stopped(Exception):
    pass


def stop_after(count):
    def report(text, done, total):
        if done == count:
            raise Stopped

    return report


@pytest.mark.parametrize("make", [balanced, lambda: Neighbours(balanced())], ids=["independent", "coupled"])
def test_a_stopped_evaluation_goes_on_to_the_same_verdict(make, tmp_path):
    model = make()
    parts = agreeing(model, batches())
    with pytest.raises(Stopped):
        evaluate(model, parts, THREAT, ATTACKS, folder=tmp_path, report=stop_after(2))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    (tmp_path / "000001.safetensors").write_bytes(b"torn")
    resumed, whole = evaluate(model, parts, THREAT, ATTACKS, folder=tmp_path), evaluate(model, parts, THREAT, ATTACKS)
    for name, column in whole.rows._asdict().items():
        assert torch.equal(getattr(resumed.rows, name), column), name
    assert torch.equal(resumed.x_adv, whole.x_adv)
    same = {"seconds": 0.0}
    assert dataclasses.replace(resumed.evaluation, **same) == dataclasses.replace(whole.evaluation, **same)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": Small().eval()}, "whose model was"),
        ({"threat": Linf(eps=0.04)}, "whose plan.threat.eps was 0.05, not 0.04"),
        ({"attacks": (FGSM(),)}, "whose plan.attacks was"),
        ({"strongest": (FGSM(),)}, "whose plan.strongest was"),
        ({"seed": 1}, "whose plan.seed was"),
        ({"speed": EAGER}, "whose plan.speed.fold was true, not false"),
        ({"craft_on": Small().eval()}, "whose model crafted on was"),
        ({"batches": [b._replace(x=b.x.flip(0)) for b in batches()]}, "other data"),
        ({"batches": [b._replace(y=(b.y + 1) % 3) for b in batches()]}, "other data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_of_another_evaluation_are_refused(change, reason, tmp_path):
    given = {"model": balanced(), "batches": batches(), "threat": THREAT, "attacks": ATTACKS}

    def asked(model, batches, craft_on=None, **plan):
        return evaluate(model, batches, AttackPlan(**plan), craft_on=craft_on, folder=tmp_path)

    asked(**given)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"holds part of an evaluation .*{reason}"):
        asked(**{**given, **change})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_shards_add_up_to_the_whole(tmp_path):
    model = balanced()
    parts = agreeing(model, batches(5))
    halves = [evaluate(model, parts, THREAT, ATTACKS, folder=Shard(tmp_path, k, 2)).evaluation.n for k in range(2)]
    assert halves == [30, 20]
    seen = []
    merged = evaluate(model, parts, THREAT, ATTACKS, folder=tmp_path, report=lambda *report: seen.append(report))
    whole = evaluate(model, parts, THREAT, ATTACKS)
    assert torch.equal(merged.x_adv, whole.x_adv)
    assert merged.evaluation.robust_accuracy == whole.evaluation.robust_accuracy
    assert (merged.evaluation.forwards, merged.evaluation.backwards) == (
        whole.evaluation.forwards,
        whole.evaluation.backwards,
    )
    for shard in ((2, 2), (-1, 2), (5, 6)):
        with pytest.raises(ValueError, match="shard is"):
            evaluate(model, parts, THREAT, ATTACKS, folder=Shard(tmp_path, *shard))


def test_who_wants_the_whole_leaves_out_what_another_has_and_waits_for_it_in_the_end(tmp_path):
    model = balanced()
    parts = agreeing(model, batches(5))
    there, theirs = [], FileLock(tmp_path / "000000.lock")
    theirs.acquire()

    def report(text, done, total):
        there.append([int(path.stem) for path in sorted(tmp_path.glob("*.safetensors"))])
        if done == 4:
            theirs.release()

    share = Shard(tmp_path, 1, 2, whole=True)
    found, whole = (evaluate(model, parts, THREAT, ATTACKS, folder=one, report=report) for one in (share, None))
    assert there[:5] == [[2], [2, 3], [2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert all(torch.equal(one, other) for one, other in zip(found.rows, whole.rows, strict=True))
    same = {"seconds": 0.0}
    assert dataclasses.replace(found.evaluation, **same) == dataclasses.replace(whole.evaluation, **same)
    with theirs, until(time.monotonic() + 0.1), pytest.raises(TimeoutError):
        evaluate(model, parts, THREAT, ATTACKS, folder=share)


def test_the_table_of_rows_says_what_broke_each_and_the_archive_holds_the_images(tmp_path):
    model = balanced()
    parts = agreeing(model, batches(last=3))
    parts[0].y[:2] = (parts[0].y[:2] + 1) % 3
    attacks = (PGD(steps=0, random_start=False), worst_case(PGD(steps=2, relative_step=0.1), PGD(steps=8)))
    verdict = evaluate(model, parts, THREAT, attacks, folder=tmp_path / "parts")
    rows = list(csv.DictReader(keep_rows(verdict, tmp_path / "rows.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["id"]) for row in rows] == list(range(43))
    assert [row["broken_by"] for row in rows[:2]] == ["clean", "clean"]
    assert {row["broken_by"] for row in rows} == {
        "clean",
        "",
        "worst of pgd-2 + pgd-8/pgd-2",
        "worst of pgd-2 + pgd-8/pgd-8",
    }
    for row in rows:
        assert (row["prediction"] != row["label"]) == (float(row["margin"]) > 0) == (row["broken_by"] != "")
        assert float(row["distance"]) <= 0.05 + 1e-6
        assert (row["step"] == "") == (row["broken_by"] in ("", "clean"))
    keep_images(verdict, tmp_path)
    with np.load(tmp_path / "images.npz") as kept:
        assert set(kept) == {"x", "x_adv", *(name for name in verdict.rows._fields if name != "x_adv")}
        assert np.array_equal(kept["x"], torch.cat([b.x for b in parts]).numpy())
        assert np.array_equal(kept["x_adv"], verdict.x_adv.numpy())
        assert np.array_equal(kept["predictions"], model(verdict.x_adv).argmax(1).numpy())


@pytest.mark.parametrize("make", [balanced, lambda: Neighbours(balanced())], ids=["independent", "coupled"])
def test_curves_fall_from_clean_to_nothing_and_never_rise(make):
    model = make()
    parts = agreeing(model, batches())
    clean = evaluate(model, parts, THREAT, ()).evaluation.clean_accuracy.value
    plan = AttackPlan(THREAT, (PGD(steps=5),))
    over_eps = curve(model, parts, plan, "eps", (0.0, 0.02, 0.05, 0.1, 1.0))
    over_steps = curve(model, parts, plan, "steps", (0, 1, 2, 5, 20))
    for found in (over_eps, over_steps):
        values = [score.value for score in found.scores]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) > 2
        assert {score.rows for score in found.scores} == {40}
    assert over_eps.scores[0].value == clean
    assert over_eps.scores[-1].value < 0.1
    alone = evaluate(model, parts, THREAT, (PGD(steps=5),)).evaluation.robust_accuracy.value
    assert over_eps.scores[2].value <= alone + 2 / 40  # other rows, other random starts


@pytest.mark.parametrize("make", [balanced, lambda: Neighbours(balanced())], ids=["independent", "coupled"])
def test_a_curve_towards_classes_keeps_the_class_of_each_image(make):
    model = make()
    parts = agreeing(model, batches(last=4))
    targets = [int(label + 2) % 3 for batch in parts for label in batch.y]
    plan = AttackPlan(THREAT, (PGD(steps=5),), goal="targeted", classes=targets)
    found = curve(model, parts, plan, "eps", (0.0, 0.05, 0.1))
    values = [score.value for score in found.scores]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1 > values[-1]
    away = curve(model, parts, AttackPlan(THREAT, (PGD(steps=5),)), "eps", (0.1,)).scores[0].value
    assert values[-1] >= away - 2 / 40  # to reach one class is harder than to leave one


def test_the_steps_of_the_protocol_vary_alone():
    plan = AttackPlan(THREAT, (PGD(steps=5),), strongest=(PGD(steps=50),))
    assert at(plan, "steps", 2) == AttackPlan(THREAT, (PGD(steps=2),))
    with pytest.raises(ValueError, match=r"steps are counted; got 1\.5"):
        at(plan, "steps", 1.5)


def test_a_curve_over_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="steps to vary"):
        curve(balanced(), batches(), AttackPlan(THREAT, (FGSM(),)), "steps", (1, 2))
    with pytest.raises(ValueError, match="at least one value"):
        curve(balanced(), batches(), AttackPlan(THREAT, (FGSM(),)), "eps", ())


@pytest.mark.parametrize(("speed", "threat"), crossed([FAST, *SWITCHED], [THREAT, L2(eps=0.2)], FAST, THREAT), ids=str)
def test_every_switch_gives_true_successes_and_as_many(speed, threat):
    model = balanced()
    parts = agreeing(model, batches(10))
    found, plain = (evaluate(model, parts, AttackPlan(threat, (PGD(steps=10),), speed=s)) for s in (speed, EAGER))
    assert torch.equal(model(found.x_adv).argmax(1) != found.rows.y, found.rows.broken_by >= 0)
    off = abs(found.evaluation.robust_accuracy.value - plain.evaluation.robust_accuracy.value)
    assert off <= 1.001 / 100  # one image
    assert 0 < plain.evaluation.robust_accuracy.value < 1


def linear(speed=EAGER):
    """A linear model in float64, images, and attacks that break some of them."""
    model = Linear((2, 6, 6)).double()
    parts = [b._replace(x=b.x.double(), y=model(b.x.double()).argmax(1)) for b in batches()]
    return model, parts, AttackPlan(THREAT, (PGD(steps=10), FAB(steps=20, targets=1)), speed=speed)


def test_on_a_linear_model_in_float64_every_switch_gives_the_same_rows():
    plain = evaluate(*linear())
    assert 0 < plain.evaluation.robust_accuracy.value < 1
    for speed in (FAST, *SWITCHED):
        found = evaluate(*linear(speed))
        assert torch.equal(found.rows.broken_by, plain.rows.broken_by), speed


@pytest.mark.filterwarnings("ignore")  # what torch warns of while it compiles is its own
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler, and there is no g++")
@pytest.mark.slow  # torch compiles for longer than it searches
def test_on_a_linear_model_in_float64_what_is_compiled_gives_the_same_rows():
    model, parts, *_ = linear()
    compiled = Speed(compile=True)
    assert faster(model, compiled, parts[0].x[:8], 0).made  # there is a copy to search on
    found, plain = (evaluate(*linear(speed)) for speed in (compiled, EAGER))
    assert torch.equal(found.rows.broken_by, plain.rows.broken_by)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler, and there is no g++")
def test_a_network_is_compiled_whatever_was_compiled_before():
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for shape in ((2, 6, 6), (3, 4, 4)):
            assert faster(Linear(shape), Speed(compile=True), torch.rand(8, *shape), 0).made


class Graph(torch.nn.Module):
    """x w, as a CUDA graph gives it: answer and gradient lie where the next pass writes its own."""

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, graph):
            ctx.graph = graph
            return torch.mm(x, graph.w, out=graph.answer).detach()

        @staticmethod
        def backward(ctx, by):
            return torch.mm(by, ctx.graph.w.T, out=ctx.graph.grad).detach(), None

    def __init__(self):
        super().__init__()
        self.w, self.answer, self.grad = torch.randn(6, 3, generator=generator(0)), torch.zeros(4, 3), torch.zeros(4, 6)

    def forward(self, x):
        return self.Replay.apply(x, self)


def test_what_a_graph_writes_over_is_kept():
    graph, looks = _Filled(Graph(), graphs=True), []
    for label in (0, 1):
        x = torch.randn(4, 6, generator=generator(label)).requires_grad_()
        logits = graph(x)
        looks.append((x, logits, torch.autograd.grad(logits[:, label].sum(), x)[0]))
    for label, (x, logits, gradient) in enumerate(looks):
        torch.testing.assert_close(logits, x @ graph.model.w)
        torch.testing.assert_close(gradient, graph.model.w[:, label].expand_as(gradient))


def test_where_no_row_is_dropped_every_attack_searches_every_right_row_to_the_end():
    model = balanced()
    parts = agreeing(model, batches())
    parts[0].y[:5] = (parts[0].y[:5] + 1) % 3
    attacks, strongest = (PGD(steps=4), worst_case(PGD(steps=3), PGD(steps=2))), (PGD(steps=6),)
    drops, keeps = (
        evaluate(model, parts, AttackPlan(THREAT, attacks, strongest=strongest, speed=speed))
        for speed in (FAST, Speed(drop=False))
    )
    assert 0 < drops.evaluation.robust_accuracy.value < 1
    assert keeps.evaluation.backwards == 35 * (4 + 3 + 2 + 6) > drops.evaluation.backwards
    assert abs(keeps.evaluation.robust_accuracy.value - drops.evaluation.robust_accuracy.value) <= 1.001 / 40


def test_what_looks_hopeless_is_searched_on_where_giving_up_is_switched_off():
    model = balanced()
    parts = agreeing(model, batches())
    quick, stubborn = (
        evaluate(model, parts, AttackPlan(Linf(eps=0.02), (worst_case(FAB(steps=40, targets=1)),), speed=speed)).evaluation
        for speed in (FAST, Speed(give_up=False))
    )
    assert stubborn.backwards > quick.backwards
    assert abs(stubborn.robust_accuracy.value - quick.robust_accuracy.value) <= 1.001 / 40


def test_what_a_search_in_lower_precision_barely_misses_falls_after_all():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 3)).requires_grad_(False)
    x = batches(1)[0].x * 0.4 + 0.3
    logits, weight = model(x), model[1].weight
    y = logits.argmax(1)
    ways = (logits.gather(1, y[:, None]) - logits) / (weight[y][:, None] - weight).abs().sum(-1)  # 0 / 0 for the label
    for row, distance in enumerate(ways.nan_to_num(torch.inf).amin(1).tolist()):
        one, threat = Batch(x[row : row + 1], y[row : row + 1], torch.tensor([row])), Linf(eps=1.001 * distance)
        found = evaluate(
            model, [one], AttackPlan(threat, (PGD(steps=20, loss="margin"),), speed=Speed(precision="bfloat16"))
        )
        assert found.evaluation.robust_accuracy.value == 0, row


class Rounded(Small):
    """Pixels of so many levels: what it is follows from an attribute that is no parameter."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, x):
        return super().forward((x * self.levels).round() / self.levels)


def test_a_model_of_equal_weights_and_other_settings_is_another(tmp_path):
    for levels in (16, 16):
        evaluate(Rounded(levels).eval(), batches(), THREAT, (FGSM(),), craft_on=balanced(), folder=tmp_path)
    with pytest.raises(ValueError, match="whose model was"):
        evaluate(Rounded(2).eval(), batches(), THREAT, (FGSM(),), craft_on=balanced(), folder=tmp_path)


def test_a_search_in_float16_follows_the_gradients_of_a_confident_model():
    model = balanced()
    parts = agreeing(model, batches())
    with torch.no_grad():
        model.linear.weight.mul_(1000)
        model.linear.bias.mul_(1000)
    found, plain = (
        evaluate(model, parts, AttackPlan(THREAT, (PGD(steps=10),), speed=speed)).evaluation.robust_accuracy.value
        for speed in (Speed(precision="float16"), EAGER)
    )
    assert found <= plain + 1 / 40 < 0.9
