"""`normwise diagnose`: tables, pictures and sentences of several networks; bad input in one line."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from normwise.__main__ import main
from normwise.diagnostics import DIAGNOSES
from normwise.report import diagnosis, diagrams, findings

NETS = """
import torch
from torch import nn
from normwise import NORMS, MODELS
from normwise.types import Site

def net(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(288, 10))

def gn(): return net(nn.GroupNorm(2, 8))
def plain(): return net(nn.Identity())
def bounded(): return net(NORMS.make("dyt")(Site(8)))
def nf(): return MODELS.make("nfresnet")(None, classes=10, mean=(0.5,), std=(0.5,))
def other(): return nn.Sequential(nn.Flatten(), nn.Linear(3, 10))
"""
SMALL = "--model.width 8 --data.train_limit 600 --data.validation_size 20 --data.test_limit 20 --schedule.epochs 4 --schedule.lr 0.02 --attacks fgsm --threat.eps 0.125"
QUICK = """
rows: 12
batch_size: 8
only: [{name: drift, steps: [1, 3]}, {name: flips, steps: 3}, gamma, {name: margins, steps: 20},
       {name: slices, rows: 2, cells: 5}, {name: smoothness, steps: [1]}, {name: saturation, steps: 2}]
"""


def say(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["diagnose", *map(str, words)])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("diagnose")
    (place / "sick.py").write_text(NETS)
    (place / "quick.yaml").write_text(QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            assert main(["train", *shlex.split(SMALL), "--out", "run"]) == 0
        status, said, err = say("run", "sick:gn", "sick:plain", "--config", "quick.yaml", "--out", "out")
    assert status == 0, err
    assert "report: out/diagnose.html" in said
    assert "plain: drift is not measured: the network normalizes nowhere" in said
    return place


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture
def record(place):
    return json.loads((place / "out/diagnose.json").read_text())


def test_the_record_holds_what_was_asked_and_found(record):
    assert record["n"] == 12
    assert {"commit", "hardware", "versions", "command"} <= set(record["provenance"])
    assert record["settings"]["batch_size"] == 8
    assert [one["model"] for one in record["models"]] == ["run", "sick:gn", "sick:plain"]
    assert [one["norm_reads"] for one in record["models"]] == [{"running": 9}, {"sample": 1}, {}]
    for one in record["models"]:
        assert set(one["tables"]) == set(one["seconds"]) == set(DIAGNOSES)
        assert not any("could not" in table["note"] for table in one["tables"].values())


def test_a_run_folder_brings_its_own_data_and_threat(record):
    assert record["threat"] == {"name": "linf", "eps": 0.125}
    assert (record["settings"]["data"]["train_limit"], record["settings"]["data"]["test_limit"]) == (600, 20)
    margins = record["models"][0]["tables"]["margins"]["rows"]
    assert all(row[3] > 2 and row[2] is not None for row in margins)  # trained: there are rows to fall


def test_every_network_saw_the_same_images(record):
    labels = [[row[:2] for row in one["tables"]["slices"]["rows"]] for one in record["models"]]
    assert labels[0] == labels[1] == labels[2]
    assert len(labels[0]) == 2 * 25


def test_tables_are_kept_as_csv_with_units(record, place):
    for name in DIAGNOSES:
        head, *lines = csv.reader((place / f"out/tables/{name}.csv").read_text().splitlines())
        rows = sum(len(one["tables"][name]["rows"]) for one in record["models"])
        assert (head[0], len(lines)) == ("network", rows)
    assert "shift [reference deviations]" in (place / "out/tables/drift.csv").read_text().splitlines()[0]


def test_saturation_is_drawn_and_said_where_a_norm_is_a_bounded_function(place):
    status, said, err = say(
        "sick:bounded", "--only", "[{name: saturation, steps: 1}]", "--rows", 6, "--batch_size", 6, "--out", "bounded"
    )
    assert status == 0, err
    assert re.search(
        r"% of the units of 1 are saturated, more than elsewhere; at the tightest layer [\d.]+% of the gradient", said
    )
    assert "saturated under attack" in (place / "bounded/diagnose.html").read_text()


def test_the_page_needs_nothing_else_and_says_what_the_figures_say(record, place):
    page = (place / "out/diagnose.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!#|data:|figures/|tables/|diagnose\.json)""", page)
    far = findings.farthest(findings.sides(record, "drift")[0].rows)
    rows = [dict(zip(record["models"][0]["tables"]["drift"]["columns"], r, strict=True)) for r in record["models"][0]["tables"]["drift"]["rows"]]  # fmt: skip
    rows = [row for row in rows if row["input"] == "adversarial" and row["steps"] == 3]
    moved = [row["moved"] for row in rows]
    assert (far.site, far.moved, far.steps) == (rows[moved.index(max(moved))]["site"], max(moved), 3)
    assert f"{far.moved:.2g} deviations" in page
    assert "3 networks · 12 images · Linf, eps 31.88/255" in page
    whole = findings.everywhere(findings.sides(record, "flips")[0].rows)
    assert re.search(rf"put back at every norm layer, (they )?mend {100 * whole['repaired']:.0f}% \(run\)", page)
    for name in re.findall(r'(?:href)="((?:figures|tables)/[^"]+)"', page):
        assert (place / "out" / name).is_file(), name
    assert page.count("<svg") == page.count('role="img"') == 9


def test_the_first_figure_and_the_headline_measure_the_same(record):
    found = findings.sides(record, "drift")
    name, figure, _ = next(diagrams._drift([side for side in found if side.rows]))
    assert name == "moved"
    panels = [axes for axes in figure.axes if axes.lines]
    for axes, side in zip(panels, found, strict=False):
        drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        far = findings.farthest(side.rows)
        assert max(drawn["adversarial"]) == far.moved
        assert far.noise in drawn["noise"]
        assert set(drawn["clean"]) == {0}


def test_panels_share_an_axis_where_they_share_a_reference(record):
    running, clean, _ = findings.sides(record, "drift")
    again = running._replace(model="again")
    for name, figure, _ in diagrams._drift([running, clean, again]):
        one, other, third = [axes for axes in figure.axes if axes.lines] if name != "steps" else (None, None, None)
        if one is not None:
            assert one.get_shared_y_axes().joined(one, third)
            assert not one.get_shared_y_axes().joined(one, other)
            assert other.get_ylabel()
        else:
            shown = [[line for line in axes.lines if line.get_alpha() != 0] for axes in figure.axes]  # not what says values
            assert [len(lines) for lines in shown] == [2, 1]
            assert [axes.get_ylabel() for axes in figure.axes] == [
                f"mean moved, in deviations\n({one})" for one in ("running", "clean")
            ]


def test_networks_that_normalize_nowhere_have_a_page(place):
    status, said, err = say("sick:plain", "sick:nf", "--config", "quick.yaml", "--out", "plain")
    assert status == 0, err
    assert "nf: drift is not measured: the network normalizes nowhere" in said
    assert not list((place / "plain/figures").glob("drift*"))
    assert "Nothing could be measured" not in (place / "plain/diagnose.html").read_text()


def test_the_same_record_gives_the_same_bytes(record, tmp_path):
    gamma = [one | {"tables": {"gamma": one["tables"]["gamma"]}} for one in record["models"]]
    pages = [diagnosis.write(tmp_path / name, record | {"models": gamma})[0] for name in ("a", "b")]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    svg = "figures/gamma.svg"
    assert (pages[0].parent / svg).read_bytes() == (pages[1].parent / svg).read_bytes()


def test_names_are_text_and_a_diagnosis_of_ones_own_gets_a_table(record, tmp_path):
    [one, *_] = record["models"]
    table = {"columns": ["what", "size"], "units": ["", "cm"], "rows": [["<i>x</i>", 1.5]], "note": ""}
    mine = record | {"models": [one | {"model": "<b>a</b>", "tables": {"mine": table}}]}
    page = diagnosis.write(tmp_path, mine)[0].read_text()
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert "<b>a</b>" not in page
    assert "1.5" in page


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", "no model is named; write normwise diagnose MODEL"),
        ("sick:gn --rows 0", "rows is 0"),
        ("sick:gn sick:gn", "models are sick:gn, sick:gn; name each once"),
        ("sick:gn --only drif", "no diagnosis is named 'drif'; did you mean 'drift'?"),
        ("sick:gn --only ,", "only names no diagnosis"),
        ("sick:gn sick:plain --weights w.pt", "for 2 functions"),
        ("sick:gn sick:other", "sick:other: the model cannot take images of shape"),
        ("nowhere", "no model 'nowhere'"),
        ("sick:gn --config slices.yaml", "cells 4"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, text):
    Path("slices.yaml").write_text("only: [{name: slices, cells: 4}]")
    status, said, err = say(*shlex.split(words), "--out", "bad")
    assert (status, said) == (2, "")
    assert err.count("\n") == 1
    assert text in err
    assert not Path("bad").exists()


def test_networks_are_told_apart():
    assert findings.labels(["runs/a", "runs/b/"]) == ["a", "b"]
    assert findings.labels(["x/net", "y/net"]) == ["x/net", "y/net"]


def test_the_example_of_the_docs_runs():
    text = (Path(__file__).parents[2] / "docs/reference/diagnose.md").read_text()
    held = io.StringIO()
    with redirect_stdout(held):
        exec(re.search(r"```python\n(.*?)```", text, re.S)[1], {})
    sites, lines = 21, 5  # clean, noise, corrupted, and two numbers of steps
    assert held.getvalue().startswith(
        f"{list(DIAGNOSES)} ('site', 'reads', 'reference', 'input', 'steps', 'shift') {sites * lines}"
    )
