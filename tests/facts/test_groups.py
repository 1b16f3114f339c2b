"""Intervals of rows that come in groups: their width is that of the groups, not of the rows."""

from dataclasses import replace

import numpy as np
import pytest

from normwise.attacks import FGSM
from normwise.auditing import auditor
from normwise.auditing.checks.ledger import Ledger
from normwise.auditing.options import AuditOptions
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.groups import effective_rows
from normwise.evaluation.plan import AttackPlan
from normwise.evaluation.several import mean_and_union
from normwise.threats import Linf
from normwise.utils.intervals import wilson
from toys import Neighbours, balanced, batches


def test_four_groups_by_hand():
    # p = 5/8, sums 2, 0, 1, 2 of 2 each: 2.75 * 4/3 = 3.6667 between groups, over 8 p (1 - p) = 1.875; t with three degrees of freedom is 3.182446
    right, groups = np.array([1.0, 1, 0, 0, 1, 0, 1, 1]), np.repeat([0, 1, 2, 3], 2)
    assert effective_rows([right], groups) == pytest.approx((1.959964 / 3.182446) ** 2 * 8 * 1.875 / 3.666667, rel=1e-5)


def test_alike_groups_of_many_count_as_groups_and_single_rows_as_rows():
    rng = np.random.default_rng(0)
    whole = np.repeat(rng.random(400) < 0.3, 5).astype(float)
    assert effective_rows([whole], np.repeat(np.arange(400), 5)) == pytest.approx(400, rel=0.02)
    assert effective_rows([whole], np.arange(2000)) == pytest.approx(2000, rel=0.01)
    both = effective_rows([whole, (rng.random(2000) < 0.5).astype(float)], np.repeat(np.arange(400), 5))
    assert both == pytest.approx(400, rel=0.02)  # the least favourable


def test_where_all_rows_fare_alike_a_group_counts_as_one_row():
    groups = np.array([0, 0, 0, 0, 1, 1])
    assert effective_rows([np.zeros(6), np.ones(6)], groups) == pytest.approx(36 / 20)
    assert effective_rows([np.array([1.0, 0, 1])], np.zeros(3, dtype=np.int64)) == 1


def test_intervals_cover_the_truth_where_those_of_rows_do_not():
    rng, truth = np.random.default_rng(1), 0.4
    groups = np.repeat(np.arange(20), 6)
    covered = {"groups": 0, "rows": 0}
    for _ in range(400):
        chance = rng.beta(truth, 1 - truth, 20)  # intraclass correlation 1/2
        right = (rng.random(120) < chance[groups]).astype(float)
        for kind, n in (("groups", effective_rows([right], groups)), ("rows", 120)):
            low, high = wilson(right.mean(), n)
            covered[kind] += low <= truth <= high
    assert covered["groups"] >= 0.93 * 400
    assert covered["rows"] < 0.85 * 400


def test_a_verdict_by_group_widens_every_interval_and_compares_no_rows():
    model, parts = balanced(), batches(size=20)
    plan = AttackPlan(Linf(eps=0.02), (FGSM(),), strongest=())
    found = evaluate(model, parts, plan)
    grouped = found.by_group(sorted(str(row // 8) for row in range(80)))
    for old, new in ((found.clean_accuracy, grouped.clean_accuracy), (found.robust_accuracy, grouped.robust_accuracy)):
        assert (new.n, new.unit, new.rows, new.value) == (10, "groups", 80, old.value)
        assert new.high - new.low > old.high - old.low
    assert grouped.evaluation.per_attack["fgsm"].unit == "groups"
    assert grouped.evaluation.standing == ""
    assert found.evaluation.standing
    assert mean_and_union({"linf": grouped, "again": grouped}).union.unit == "groups"
    assert found.by_group(range(80)) is found
    with pytest.raises(ValueError, match="got groups of 3 rows, and 80 rows were evaluated"):
        found.by_group("abc")


def test_coupled_rows_keep_intervals_over_batches_with_a_warning():
    found = evaluate(Neighbours(balanced()), batches(size=20), Linf(eps=0.02), FGSM()).by_group([0] * 80)
    assert found.clean_accuracy.unit == "batches"
    assert [(one.name, one.status) for one in found.evaluation.checks][-1] == ("rows of one group", "warn")


def test_an_audit_counts_groups(monkeypatch):
    few = "repeated and lonely answers", "outputs", "stronger search"  # in seconds, so that no budget ends them
    monkeypatch.setattr(auditor, "CHECKS", [one for one in auditor.CHECKS if one.name in few])
    model, parts = balanced(), batches(size=20)
    plain = AuditOptions(strongest=FGSM())
    options = plain, replace(plain, groups=[row // 8 for row in range(80)])
    rows, groups = (auditor.audit(model, parts, Linf(eps=0.02), options=one) for one in options)
    assert (rows.drawn, groups.drawn, groups.n) == ("80 rows", "10 groups", 80)
    assert groups.interval[1] - groups.interval[0] > rows.interval[1] - rows.interval[0]


def test_an_audit_of_groups_that_contradicts_by_one_row_names_the_attack():
    ledger = Ledger(20)
    ledger.fell([3], "pgd-100", "strongest search")
    assert ledger.sentence(False, lambda score: False) == "robust accuracy falls to 95.0% with pgd-100 (strongest search)"
