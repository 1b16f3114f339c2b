"""Clean images beside malicious ones: misclassified where images are coupled, never elsewhere, and the page says so."""

import dataclasses
import html
import re
from unittest.mock import Mock

import pytest
import torch

from normwise.attacks import PGD
from normwise.evaluation.batch_attacks import single, with_single
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.evaluation.sanity_checks import beside_malicious
from normwise.norms import BNwoT
from normwise.norms.surgery.conversion import convert
from normwise.report import cells, malicious_neighbours, page
from records import HOSTILE, grid, result
from toys import THREAT, Neighbours, Watched, agreeing, balanced, batches

FELL = re.compile(r"(\d+) of (\d+) clean images are misclassified .*; image (\d+) of class (\d) is then predicted as (\d)")


def said_of(model, row, asked):
    """Every answer that the model gave of a row whose pixels nobody touched."""
    found = set()
    with torch.no_grad():
        for x in asked:
            here = (x == row).flatten(1).all(1)
            found |= set(model(x).argmax(1)[here].tolist())
    return found


@pytest.mark.parametrize("coupled", [Neighbours, lambda model: convert(model, BNwoT())], ids=["neighbours", "batch"])
def test_an_untouched_row_changes_its_class_beside_malicious_ones(coupled):
    model = coupled(balanced()).eval()
    watched, given = Watched(model).eval(), agreeing(model, batches(count=2, size=12))
    check = beside_malicious(watched, given)
    fell, victims, row, label, taken = map(int, FELL.fullmatch(check.measured).groups())
    assert (check.status, check.n, victims) == ("warn", 12, 12)
    assert 0 < fell <= victims
    batch = given[row // 12]
    assert batch.y[row % 12] == label != taken
    assert said_of(model, batch.x[row % 12], watched.asked) >= {label, taken}  # the very same pixels
    assert beside_malicious(model, given) == check  # drawn from the seed alone


def test_no_row_falls_where_a_network_reads_running_statistics():
    watched, given = Watched(balanced()).eval(), agreeing(balanced(), batches(count=2, size=12))
    check = beside_malicious(watched, given)
    assert (check.status, check.n) == ("pass", 12)
    assert check.measured.startswith("0 of 12 clean images are misclassified")
    rows = [(x, y) for batch in given for x, y in zip(batch.x, batch.y.tolist(), strict=True)]
    assert all(said_of(watched.inner, x, watched.asked) == {y} for x, y in rows)
    every = torch.cat([batch.x for batch in given])
    assert any(
        not (x[row] == every).flatten(1).all(1).any() for x in watched.asked for row in range(len(x))
    )  # some did change


def test_a_coupled_evaluation_says_what_is_left_of_single_rows_and_an_independent_one_says_nothing():
    given = agreeing(balanced(), batches(count=3, size=12, last=5))
    for model in (balanced(), Neighbours(balanced()).eval()):
        e = evaluate(model, given, THREAT, [PGD(steps=1)]).evaluation
        found = with_single(e, model, given, THREAT)
        if not e.coupled:
            assert found == e
            continue
        reached = single(model, given[:3], AttackPlan(THREAT, (PGD(steps=20),)), victims=32)  # whole batches alone
        assert (found.single.value, found.single.n) == (reached.standing / 32, 32)
        assert found.headline.value == min(found.single.value, e.robust_accuracy.value)
        assert with_single(e, model, given, THREAT, craft_on=model).single.value <= found.single.value


class Telling(Neighbours):
    """The same, which answers more than a tensor."""

    def forward(self, x):
        return {"logits": super().forward(x), "features": x.flatten(1)}


def test_a_network_that_answers_more_than_a_tensor_is_attacked_alone_too_and_a_failed_search_is_told(monkeypatch):
    given, model = agreeing(balanced(), batches(count=2, size=12)), Neighbours(balanced()).eval()
    e = evaluate(model, given, THREAT, [PGD(steps=1)]).evaluation
    assert with_single(e, Telling(balanced()).eval(), given, THREAT).single == with_single(e, model, given, THREAT).single
    monkeypatch.setattr("normwise.evaluation.batch_attacks.single", fails := Mock(side_effect=ValueError("no gradient")))
    found = with_single(e, model, given, THREAT)
    assert (found.single, found.checks[-1].status, found.checks[-1].measured) == (None, "warn", "not measured: no gradient")
    assert fails.called


def with_check(one, model):
    """A record with what the check says of a network."""
    check = beside_malicious(model, agreeing(model, batches(count=2, size=12)))
    return dataclasses.replace(one, evaluation=dataclasses.replace(one.evaluation, checks=(check,)))


def test_the_page_says_whose_untouched_rows_changed_their_class(monkeypatch, tmp_path):
    alone, coupled = balanced(), Neighbours(balanced()).eval()
    results = [result("bn"), result("gn"), result("bnwot", label=HOSTILE), result("bn", "adversarial"), result("none")]
    results = [with_check(r, coupled if r.evaluation.coupled else alone) for r in results[:4]] + results[4:]
    found = cells.of(results)
    fell = re.match(r"\d+ of 12", with_check(result(), coupled).evaluation.checks[0].measured)[0]
    lines = [
        f"Beside malicious neighbours, unchanged images got another class: {HOSTILE} with standard training ({fell}).",
        "None did: of 24 with running statistics (2 networks) and of 12 with statistics of each image (1 network).",
    ]
    monkeypatch.setattr(page.figures, "draw", lambda found, out: [])
    text = page.write(tmp_path, results, title="bench", provenance={}).read_text()
    assert HOSTILE not in text
    assert "".join(f"<dd>{line}</dd>" for line in lines) in html.unescape(text)
    assert malicious_neighbours.sentences([cell for cell in found if not cell.coupled])[0].startswith(
        "Beside malicious neighbours, no unchanged image got another class: of 24 with running statistics"
    )
    assert malicious_neighbours.sentences(cells.of(grid())) == []  # nobody looked
