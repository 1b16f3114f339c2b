"""Untouched rows beside malicious ones: they fall where rows are coupled, never elsewhere, and the page says so."""

import re

import pytest
import torch

from normwise.checks import beside_malicious
from normwise.norms import BNwoT
from normwise.surgery import convert
from worlds import Neighbours, Watched, agreeing, balanced, batches

FELL = re.compile(r"(\d+) of (\d+) untouched rows fall .*; row (\d+), a (\d), is then taken for a (\d)")


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
    assert check.measured.startswith("0 of 12 untouched rows fall")
    rows = [(x, y) for batch in given for x, y in zip(batch.x, batch.y.tolist(), strict=True)]
    assert all(said_of(watched.inner, x, watched.asked) == {y} for x, y in rows)
    every = torch.cat([batch.x for batch in given])
    assert any(
        not (x[row] == every).flatten(1).all(1).any() for x in watched.asked for row in range(len(x))
    )  # some did change
