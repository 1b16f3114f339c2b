"""Several attackers of one network: mean, union, protocol beside strongest, columns of the page."""

import dataclasses
import json

import pytest
import torch

from normwise.attacks import APGD, FGSM, PGD
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.evaluation.several import mean_and_union
from normwise.experiments.columns import Columns, evaluate_columns
from normwise.norms import MultiBN
from normwise.norms.surgery.conversion import convert
from normwise.records import Check, Several
from normwise.report import page
from normwise.threats import Linf, Patch
from records import result, score
from toys import Neighbours, agreeing, balanced, batches, trained

FIRST = AttackPlan(Linf(eps=0.02), (FGSM(),), strongest=(APGD(steps=10),))
SECOND = AttackPlan(Patch(size=1), (PGD(steps=2),), strongest=(PGD(steps=10),))


def verdicts(model, parts, *plans):
    return {plan.threat.name: evaluate(model, parts, plan) for plan in plans}


def test_a_row_counts_in_the_union_only_if_it_stands_under_all():
    model = balanced()
    parts = agreeing(model, batches(size=20))
    found = verdicts(model, parts, FIRST, SECOND)
    several = mean_and_union(found)
    one, other = (verdict.correct for verdict in found.values())
    assert 0 < int((one & other).sum()) < min(int(one.sum()), int(other.sum()))  # there is something to tell apart
    assert several.union.value == pytest.approx(float((one & other).double().mean()))
    assert several.mean.value == pytest.approx(float(torch.stack([one, other]).double().mean()))
    assert list(several.evaluations) == ["patch"]
    short = verdicts(model, parts, *(dataclasses.replace(plan, strongest=()) for plan in (FIRST, SECOND)))
    left = [verdict.correct for verdict in short.values()]
    assert several.protocol_union.value == pytest.approx(float((left[0] & left[1]).double().mean()))
    assert several.protocol_mean.value == pytest.approx(float(torch.stack(left).double().mean()))
    assert several.protocol_union.value > several.union.value


def test_of_coupled_rows_the_attacker_has_one_batch_and_one_kind():
    model = Neighbours(balanced())
    parts = agreeing(model, batches(size=20))
    found = verdicts(model, parts, FIRST, SECOND)
    several = mean_and_union(found)
    counts = torch.stack([verdict.correct.view(4, 20).sum(1) for verdict in found.values()])
    assert several.union.unit == "batches"
    assert several.union.value == pytest.approx(float(counts.amin(0).sum()) / 80)
    assert several.protocol_union is None
    few = [batch._replace(x=batch.x[:4], y=batch.y[:4], ids=batch.ids[:4]) for batch in parts[:2]]
    columns, verdict = Columns(kinds=("roa",), steps=1, search=0), evaluate(model, few, FIRST)
    roa = evaluate_columns(columns, verdict, model, FIRST).evaluations["roa"]
    assert roa.single.rows > 0  # one image among clean ones, under this attacker
    both = evaluate_columns(columns, verdict, model, FIRST)
    each = [verdict.evaluation.headline.value, roa.headline.value]
    assert both.union.value <= min(each)
    assert both.mean.value == pytest.approx(sum(each) / 2)
    together_alone = evaluate_columns(dataclasses.replace(columns, alone=False), verdict, model, FIRST).evaluations["roa"]
    assert together_alone.single is None
    assert together_alone.robust_accuracy == roa.robust_accuracy


def test_columns_are_attacked_in_their_own_way_and_an_oracle_is_told_apart(tmp_path):
    model = convert(trained(), MultiBN())
    parts = agreeing(model, batches(count=2, size=6))
    columns = Columns(kinds=("roa", "af", "spa"), search=2, repeats=1, queries=5, oracle=True)
    verdict = evaluate(model, parts, FIRST)
    several = evaluate_columns(columns, verdict, model, FIRST, folder=tmp_path)
    threats = [one.threat["name"] for one in several.evaluations.values()]
    assert threats == ["patch", "frame", "spa"]
    assert [[one["name"] for one in e.strongest] for e in several.evaluations.values()] == [
        ["patchattack"],
        ["patchattack"],
        ["sigma_zero", "sparse_rs"],
    ]
    assert list(several.oracle) == ["clean", "linf", "roa"]
    again = evaluate_columns(dataclasses.replace(columns, oracle=False), verdict, model, FIRST, folder=tmp_path)
    assert again.union == several.union
    assert again.oracle == {}
    assert evaluate_columns(Columns(), verdict, model, FIRST) is None


def test_the_page_shows_each_column_with_its_card_and_says_what_an_oracle_is(tmp_path):
    own = result()
    e = dataclasses.replace(own.evaluation, threat={"name": "patch", "size": 3, "eps": 1.0}, robust_accuracy=score(0.2))
    doubt = Check(name="patches are searched enough", status="warn", measured="few places", why="too few")
    e = dataclasses.replace(e, checks=(*e.checks, doubt))
    several = Several(evaluations={"roa": e}, mean=score(0.25), union=score(0.1), oracle={"roa": score(0.7)})
    results = [dataclasses.replace(own, several=several), result("gn")]
    path = page.write(tmp_path, results, title="t", provenance={})
    text = path.read_text()
    assert text.count('data-label="ROA"') == 4  # two rows, in both tables
    assert '<a class="carded" href="#card-3">20.0%</a>' in text
    assert 'id="card-3"' in text
    assert "Oracle, no defence that can be used" in text
    assert "roa: few places" in text
    assert (tmp_path / "figures/columns.svg").exists()
    assert "| Mean | Union |" in (tmp_path / "results.md").read_text()
    assert "union_value" in (tmp_path / "results.csv").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["cells"][1]["several"] is None


def test_wrong_columns_are_refused_in_one_line():
    for wrong, says in (
        ({"kinds": ("roa", "roa")}, "kinds of columns are roa, roa; give each once"),
        ({"queries": 0}, "queries of columns is a count"),
    ):
        with pytest.raises(ValueError, match=says):
            Columns(**wrong)
