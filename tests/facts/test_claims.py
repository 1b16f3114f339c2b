"""Claims are decided as was said beforehand, on records whose truth is planted."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from normwise.experiments.papers.cell import Cell
from normwise.experiments.papers.claims import CLAIMS
from normwise.experiments.papers.decide import HOLDS, NEVER, NOT, ONLY, OPEN, Claim, decide, paired
from normwise.experiments.papers.measures import (
    falls_less,
    figure,
    more_robust,
    more_robust_at_equal_clean,
    steadier,
    unmatched,
)
from normwise.experiments.papers.papers import CELLS, SYSTEMS
from normwise.experiments.papers.run import Reproduce, decided, wanted
from normwise.experiments.papers.scale import cpu
from normwise.experiments.papers.tables import beside
from normwise.experiments.papers.workshop import Workshop
from normwise.report.claims import figure as written
from normwise.training.loop import Diverged, Fitted
from normwise.training.recipes import Adversarial
from records import result


def record(shares, rows=400, seed=0, strongest=None):
    """A record whose rows stand with these shares at radii 1 to 8 in 1/255."""
    rng = np.random.default_rng(seed)
    radii = ["0", *(f"{r / 255:.6g}" for r in (1, 2, 4, 8))]
    sides = {"paper": shares, "strongest": strongest or shares}
    bits = {
        side: {r: "".join("1" if u < p else "0" for u in rng.random(rows)) for r, p in zip(radii, ps, strict=True)}
        for side, ps in sides.items()
    }
    share = {side: {r: b.count("1") / rows for r, b in one.items()} for side, one in bits.items()}
    return {"figures": {"rows": bits, "clean": share["paper"]["0"], **share}}


def claim(effect=0.05, **options):
    settings = {"number": "0", "system": "robustnorm", "claim": "a beats b", "paper": "", "cells": ("a", "b")}
    return Claim(**settings, measure=more_robust("a", "b"), effect=effect, **options)


LOW = (0.9, 0.5, 0.1, 0.0, 0.0)
HIGH = (0.9, 0.8, 0.5, 0.1, 0.0)


def seeds(a, b, count=3, **options):
    return [{"a": record(a, seed=2 * s, **options), "b": record(b, seed=2 * s + 1)} for s in range(count)]


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        (seeds(HIGH, LOW), HOLDS),
        (seeds(LOW, HIGH), NOT),
        ([{"a": one["b"], "b": one["b"]} for one in seeds(LOW, LOW)], NOT),  # no difference is less than the smallest effect
        (seeds(HIGH, LOW, strongest=LOW), ONLY),
        (seeds((0.9, 0.55, 0.1, 0, 0), LOW, rows=400), OPEN),
        (seeds((0.9, 0.55, 0.1, 0, 0), LOW, rows=400, strongest=(0.9, 0.4, 0, 0, 0)), NOT),
        (seeds(HIGH, LOW, count=2), OPEN),
        (seeds(HIGH, (0.9, 0.1, 0, 0, 0)), OPEN),  # the baseline has 20 to 80% left nowhere
    ],
    ids=["holds", "does not", "equal", "paper only", "near the effect", "open, then not", "two seeds", "nothing left"],
)
def test_a_planted_difference_is_decided_as_it_is(records, verdict):
    assert decide(claim(), records, True)["verdict"] == verdict


def test_smoke_is_never_evidence_and_a_guard_overrules():
    assert decide(claim(), seeds(HIGH, LOW), False)["why"] == "this size is never evidence"
    guarded = decide(claim(guard=lambda records: "unequal"), seeds(HIGH, LOW), True)
    assert (guarded["verdict"], guarded["why"]) == (OPEN, "unequal")


def test_the_radius_is_the_largest_at_which_the_baseline_can_be_told_apart():
    entry = decide(claim(), seeds(HIGH, HIGH), True)
    assert entry["protocol"]["what"] == "robust accuracy at 2/255, a less b"
    assert entry["n"] == 400
    assert entry["seeds"] == 3


def test_a_fall_is_counted_from_each_sides_own_start():
    names = ("own", "before", "theirs", "its")
    clean = ("1100", "1111", "1000", "1110")  # falls of 2 and of 2 rows: none is larger
    records = [{name: {"figures": {"rows": {"paper": {"0": bits}}}} for name, bits in zip(names, clean, strict=True)}] * 3
    measured, what = falls_less(*names)(records, "paper")
    assert measured.tolist() == [[0, 1, 0, -1]] * 3
    assert what == "fall of clean accuracy, its to theirs less before to own"


def test_equal_clean_accuracy_is_drawn_between_two_networks():
    low, high, own = (record(shares) for shares in ((0.5, 0.4, 0, 0, 0), (0.9, 0.7, 0, 0, 0), (0.7, 0.9, 0, 0, 0)))
    records = [{"low": low, "high": high, "own": own}] * 3
    rows, what = more_robust_at_equal_clean("own", ("low", "high"))(records, "paper")
    share = (own["figures"]["clean"] - low["figures"]["clean"]) / (high["figures"]["clean"] - low["figures"]["clean"])
    one = f"{1 / 255:.6g}"
    at = [each["figures"]["paper"][one] for each in (own, low, high)]
    assert what == "robust accuracy at 1/255, own less high trained until as accurate"
    assert rows.mean() == pytest.approx(at[0] - (1 - share) * at[1] - share * at[2])
    same = [{"low": low, "high": high, "own": high}] * 3
    assert not more_robust_at_equal_clean("own", ("low", "high"))(same, "paper")[0].any()


def test_without_a_network_of_equal_clean_accuracy_nothing_is_decided():
    records = [{"low": record(LOW), "own": record((0.2, 0, 0, 0, 0))}] * 3
    options = {"cells": ("low", "own"), "guard": unmatched("own", ("low",))}
    one = Claim(
        number="0",
        system="robustnorm",
        claim="",
        paper="",
        effect=0.0,
        measure=more_robust_at_equal_clean("own", ("low",)),
        **options,
    )
    entry = decide(one, records, True)
    assert (entry["verdict"], entry["why"]) == (OPEN, "in 3 seeds no low network is as accurate as own")


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        seed, row = rng.normal(0, 0.02, (3, 1)), rng.normal(0, 0.5, (1, 200))
        found = paired(0.1 + seed + row + rng.normal(0, 0.2, (3, 200)), "")
        covered += found.low <= 0.1 <= found.high
    assert covered / 200 >= 0.93


@pytest.mark.parametrize(("values", "quantile"), [([0.1, 0.2, 0.4], 4.303), ([0.1, 0.2, 0.4] * 4, 2.201)])
def test_one_number_per_seed_has_an_interval_of_students_t(values, quantile):
    records = [{"a": {"figures": {"v": v}}, "b": {}} for v in values]
    measured, what = figure("v", lambda one: one["a"]["figures"]["v"])(records, "paper")
    found = paired(measured, what)
    assert found.value == pytest.approx(np.mean(values))
    assert found.high - found.value == pytest.approx(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


def test_corruptions_are_paired_row_by_row():
    def kept(*bits):
        return {
            "figures": {"rows": {"corruptions": {"fog": {"1": bits[0], "5": bits[1]}, "snow": {"1": bits[2], "5": bits[3]}}}}
        }

    records = [{"a": kept("1111", "1110", "1100", "1000"), "b": kept("0111", "1111", "1100", "0000")}] * 3
    measured, what = steadier("a", "b")(records, "paper")
    assert measured.tolist() == [[0.5, 0, 0, -0.25]] * 3
    assert what == "mean accuracy over 15 corruptions, a less b"


def test_what_a_cell_is_judged_under_counts_in_its_digest():
    cell = Cell(name="a", system="nofrost", about="", begin=lambda scale: None, extras=("drift",))
    others = [replace(cell, extras=()), replace(cell, under="patch"), replace(cell, under="corruptions")]
    digests = {Workshop({"a": one}, cpu(), Path(), lambda *told: None).digest("a", 0) for one in (cell, *others)}
    assert len(digests) == 4


def test_one_number_alone_has_no_interval_and_decides_nothing():
    assert paired(np.array([[5.0]]), "").low is None
    one = decide(claim(), [{"a": record(HIGH, rows=1), "b": record(LOW, rows=1)}] * 1, True)
    assert one["verdict"] == OPEN


def test_a_ratio_is_written_as_a_factor_and_accuracies_in_points():
    ratio = {"value": np.log(4), "low": np.log(2), "high": np.log(8), "what": "log of the ratio of seconds"}
    points = {"value": 0.1, "low": None, "high": None, "what": "clean accuracy"}
    assert [written(ratio), written(points)] == ["4 [2, 8] times", "+10 points"]


def test_claims_and_cells_name_what_there_is():
    assert {one.system for one in CLAIMS} == set(SYSTEMS)
    assert {cell for one in CLAIMS if one.measure for cell in one.cells} <= set(CELLS)
    assert {need for cell in CELLS.values() for need in cell.needs} <= set(CELLS)
    assert len({one.number for one in CLAIMS}) == len(CLAIMS)


def test_only_two_claims_can_be_decided_before_their_arms_are_tuned():
    """The others say why, whatever their differences are."""
    sound = {one.number for one in CLAIMS if one.measure and not _blocked(one)}
    assert sound == {"1", "14a"}
    video = next(one for one in CLAIMS if one.number == "12")
    assert decide(video, [], True)["verdict"] == NEVER


def _blocked(one):
    figures = {"clean": 0.5, "strongest": {"1": 0.0}, "rows": {}}
    return one.guard([{cell: {"figures": figures} for cell in one.cells}] * 3)


def test_what_a_cell_needs_is_made_before_it():
    for system in (*SYSTEMS, "all"):
        order = wanted(Reproduce(system=system))
        assert all(order.index(need) < order.index(name) for name in order for need in CELLS[name].needs)
    assert wanted(Reproduce(only=("rn",))) == ["rnt-standard", "rn"]


def test_cells_on_other_data_and_long_ones_are_made_where_they_are_named():
    apart = {"other-standard", "abnn-other", "affine-fragile-long"}
    assert set(CELLS) - set(wanted(Reproduce(preset="cpu"))) == apart
    assert set(wanted(Reproduce(preset="cpu", only=tuple(apart)))) == apart | {"bn-standard"}


def test_the_page_of_claims_is_made_of_the_committed_records(tmp_path):
    root = Path(__file__).parents[2]
    for path in (root / "results/reproduce/cpu/cells").glob("*/record.json"):
        target = tmp_path / "cells" / path.parent.name
        target.mkdir(parents=True)
        shutil.copy(path, target)
    assert len(list(tmp_path.glob("cells/*"))) >= 10
    decided(tmp_path, "cpu")
    assert (tmp_path / "claims.md").read_text() == (root / "docs/claims.md").read_text()
    assert "| `bn-standard` |" in (root / "docs/claims.md").read_text()  # the records are of these very settings


def test_beside_the_claims_stands_what_training_cost_what_weaker_attackers_saw_and_what_is_missing():
    trained = {"seconds": 300.0, "epochs": 20, "lr": 0.003, "trained_parameters": 1234}
    seen = {"0": 0.6, "0.0313725": 0.1}
    abnn = {"training": trained, "figures": {"paper": seen, "strongest": seen, "detached": {"0.0313725": 0.5}}}
    slower = {**abnn, "training": {**trained, "seconds": 500.0, "lr": 0.01}}
    patched = {"training": None, "figures": {"paper": {"0": 0.6, "2": 0.4}, "strongest": {"0": 0.6, "2": 0.3}}}
    tables = {table.title: table for table in beside({"abnn": [abnn, slower], "bn-standard-patch": [patched]})}
    assert tables["Training"].rows == [("abnn", "20", "400", "20", "0.003, 0.01", "1,234")]
    assert tables["Weaker attackers of ABNN"].rows == [("abnn", "gradient of the target alone", "50.0 / 10.0")]
    assert tables["Under patches"].rows == [("bn-standard-patch", "60.0", "40.0 / 30.0")]
    assert len(tables["Not made yet"].rows) == len(CELLS) - 2
    assert "RobustNorm's own protocol" not in tables


def test_what_differs_between_cells_is_in_their_digest():
    cell = Cell(name="a", system="fragile-features", about="", begin=lambda scale: None, sweep=True)
    others = [replace(cell, decayed=False), replace(cell, rates=(0.1,)), replace(cell, part=0.5)]
    made = {Workshop({"a": one}, cpu(), Path(), lambda *told: None).digest("a", 0) for one in (cell, *others)}
    assert len(made) == 4


def test_of_equally_robust_learning_rates_the_one_that_learned_most_is_taken(monkeypatch):
    reached = {1e-3: ({"robust": 0.0}, 3.0), 1e-2: ({"robust": 0.0}, 2.0), 1e-1: ({}, None), 1.0: ({"robust": 0.0}, 2.5)}

    def fit(shop, model, data, recipe, schedule, seed, folder=None):
        validation, loss = reached[schedule.lr]
        if loss is None:
            raise Diverged("loss is not finite")
        training = replace(result().training, validation=validation, loss=loss)
        return Fitted(nn.Identity(), training)

    monkeypatch.setattr(Workshop, "_fit", fit)
    cell = Cell(name="a", system="fragile-features", about="", begin=lambda scale: None, sweep=True, rates=tuple(reached))
    cell = replace(cell, begin=lambda scale: nn.Identity(), recipe=lambda scale: Adversarial(trains="affine"))
    shop = Workshop({"a": cell}, cpu(), Path(), lambda *told: None)
    assert shop._train(cell, 0, Path())[1]["lr"] == 1e-2
    reached[1e-3] = {"robust": 0.002}, 9.0
    assert shop._train(cell, 0, Path())[1]["lr"] == 1e-3
    assert shop._train(cell, 0, Path())[1]["rates"]["0.1"] == 0.0
