"""Claims are decided as was said beforehand, on records whose truth is planted."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from normwise import BNwoT, convert
from normwise.attacks import PGD
from normwise.experiments.papers.cell import Cell
from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.claims import CLAIMS
from normwise.experiments.papers.claims_large import LARGE
from normwise.experiments.papers.decide import (
    NEVER,
    NONE,
    OPEN,
    OPPOSITE,
    PREMISE,
    REPRODUCED,
    SMALLER,
    Claim,
    Size,
    decide,
    word,
)
from normwise.experiments.papers.inference import estimate
from normwise.experiments.papers.judging import DECIDING, measured
from normwise.experiments.papers.measures import (
    AtRadius,
    above_constant,
    counted,
    falls_less,
    more_robust,
    more_robust_at_equal_clean,
    operations,
    steadier,
    unmatched,
)
from normwise.experiments.papers.papers import CELLS, SYSTEMS
from normwise.experiments.papers.premises import calibrated, close, fragile, gap, trains, unfit
from normwise.experiments.papers.run import Reproduce, _networks, decided, wanted
from normwise.experiments.papers.scale import EIGHTH, WHOLE, s, smoke
from normwise.experiments.papers.tables import extra_tables
from normwise.report.claims import figure as written
from normwise.report.claims import to_html, to_markdown
from normwise.types import silent
from records import claims


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
    figures = {"rows": bits, "clean": share["paper"]["0"], "classes": 10, "answered": 10, **share}
    return {"figures": figures, "training": {"loss": 1.0, "lr": 0.01, "search": {"edge": False}}}


SIZE = s()
LOW = (0.9, 0.5, 0.1, 0.0, 0.0)
HIGH = (0.9, 0.8, 0.5, 0.1, 0.0)
S = Size("S", (3,))


def claim(effect=0.05, **options):
    settings = {"number": "0", "system": "robustnorm", "claim": "a beats b", "paper": "", "cells": ("a", "b")}
    return Claim(**settings, measure=more_robust("a", "b", 1 / 8), effect=effect, **options)


def seeds(a, b, count=3, rows=400, **options):
    return {s: {"a": record(a, rows, 2 * s, **options), "b": record(b, rows, 2 * s + 1)} for s in range(count)}


def only(claims, records, size=S):
    (entry,) = decide([claims], records, size)
    return entry


NEAR = (0.9, 0.54, 0.1, 0.0, 0.0)


@pytest.mark.parametrize(
    ("records", "effect", "verdict"),
    [
        (seeds(HIGH, LOW, rows=4000), 0.05, REPRODUCED),
        (seeds(LOW, HIGH, rows=4000), 0.05, OPPOSITE),
        ({s: {"a": one["b"], "b": one["b"]} for s, one in seeds(LOW, LOW).items()}, 0.05, NONE),
        (seeds(NEAR, LOW, count=8, rows=20_000), 0.2, SMALLER),
        (seeds(HIGH, LOW, strongest=LOW, rows=20_000, count=8), 0.2, NONE),  # the paper's protocol alone decides nothing
        (seeds(NEAR, LOW), 0.05, OPEN),
        (seeds(HIGH, LOW, count=2), 0.05, OPEN),
    ],
    ids=["reproduced", "opposite", "none", "smaller", "paper only", "near the effect", "two seeds"],
)
def test_a_planted_difference_is_decided_as_it_is(records, effect, verdict):
    size = Size("S", (3, 8) if len(records) > 3 else (3,))
    assert only(claim(effect), records, size)["verdict"] == verdict


def test_a_word_says_no_more_than_is_refuted():
    """Every verdict is one of seven, and only refuting the effect gives any but the open one."""
    assert word(0.5, 0.1, 0.2, 0.001) == OPEN
    assert [word(value, 0.1, 0.01, 0.01) for value in (0.5, 0.05, -0.5)] == [REPRODUCED, SMALLER, OPPOSITE]
    assert [word(value, 0.1, 0.01, 0.9) for value in (0.05, -0.05)] == [NONE, NONE]
    for value in np.linspace(-1, 1, 21).tolist():
        assert word(value, 0.0, 0.01, 0.01) in (REPRODUCED, OPPOSITE, SMALLER)


def test_more_claims_ask_more_of_each():
    """Holm: what stands alone may be open among eighteen."""
    records = seeds((0.9, 0.77, 0.5, 0.1, 0.0), LOW, count=3, rows=2000)
    alone = only(claim(0.19), records)
    among = decide([claim(0.19), *[claim(0.27)] * 17], records, S)[0]
    assert alone["verdict"] == REPRODUCED
    assert (among["verdict"], among["adjusted_p"] > alone["adjusted_p"]) == (OPEN, True)


def test_only_planned_looks_are_read_and_the_seeds_before_the_first_decide_nothing():
    records = seeds(HIGH, LOW, count=7)
    entry = only(claim(), records, Size("S", (3, 5), first=1))
    assert entry["seeds"] == 5  # of seeds 1 to 6: five, not six, and not seed 0
    records[0] = {"a": record(LOW), "b": record(HIGH)}
    assert only(claim(), records, Size("S", (3, 5), first=1))["strongest"] == entry["strongest"]
    assert only(claim(), seeds(HIGH, LOW, count=3), Size("S", (3,), first=1))["why"] == "2 of 3 seeds"


def test_smoke_is_never_evidence_and_a_guard_overrules():
    entry = only(claim(), seeds(HIGH, LOW), Size("smoke", evidence=False))
    assert (entry["verdict"], entry["why"], entry["size"]) == (OPEN, "this size is never evidence", "smoke")
    guarded = only(claim(guard=lambda records: "unequal"), seeds(HIGH, LOW))
    assert (guarded["verdict"], guarded["why"]) == (OPEN, "unequal")


def test_the_radius_is_the_claims_own_and_the_whole_curve_stands_beside():
    entry = only(claim(), seeds(HIGH, HIGH))
    assert entry["strongest"]["what"] == "robust accuracy at 1/255, a less b"
    assert (entry["n"], entry["seeds"]) == (400, 3)
    assert [round(255 * one["radius"]) for one in entry["curve"]] == [1, 2, 4, 8]
    other = Claim(**{**vars(claim()), "measure": more_robust("a", "b", 1 / 3)})
    assert only(other, seeds(HIGH, LOW))["why"] == "nothing was measured at the claim's own radius"


def searched(before, best):
    """A search that ended at its highest rate."""
    tries = [{"rate": rate, "accuracy": share} for rate, share in ((0.1, 0.2), (0.3, before), (0.9, best))]
    return {"edge": True, "rate": 0.9, "tries": tries}


def test_an_edge_at_which_accuracy_is_flat_is_tuned():
    assert unfit([{"a": {"training": {"search": searched(0.3, 0.312), "loss": 1.0}, "figures": {}}}], ["a"]) == ""


def test_that_a_network_does_not_learn_is_what_a_premise_of_learning_asks():
    one = {**record(LOW), "training": {"loss": 2.29, "lr": 0.01, "search": {"edge": False}}}
    learns = claim(premises=(trains("a", standing=False),))
    entry = only(learns, {0: {"a": one}}, S._replace(first=1))
    assert (entry["verdict"], entry["why"].split(";")[0]) == (PREMISE, "a: training loss 2.29, asked below 2.2")
    other = claim(premises=(close("a", "b", 0.01),))
    assert only(other, {0: {"a": one, "b": record(HIGH)}}, S._replace(first=1))["verdict"] == OPEN


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"search": None}, "a was not tuned"),
        ({"search": searched(0.3, 0.35)}, "a was not tuned: the search ended at its edge, 0.01"),
        ({"loss": 0.99 * math.log(10)}, "a did not converge: training loss 2.28 of ln 10 = 2.3"),
    ],
)
def test_an_arm_that_was_not_tuned_or_has_not_learned_decides_nothing(change, why):
    records = seeds(HIGH, LOW)
    records[1]["a"]["training"] |= change
    assert (only(claim(), records)["verdict"], only(claim(), records)["why"]) == (OPEN, why)
    records[1]["c"] = records[1].pop("a")  # nor does a network that listens to it, or starts from it
    records[1]["a"] = {**record(HIGH), "training": None, "needs": {"c": 0.9}}
    assert only(claim(), records)["why"] == why.replace("a was", "c was").replace("a did", "c did")


def test_an_arm_that_answers_two_classes_has_not_learned():
    one = {"a": record(HIGH)}
    assert unfit([one], ("a",)) == ""
    one["a"]["figures"]["answered"] = 2
    assert unfit([one], ("a",)) == "a did not converge: it answers 2 classes"


def test_a_premise_is_measured_on_a_seed_that_decides_nothing():
    size = Size("S", (3,), first=1)
    one = claim(premises=(gap("a", "b", 1 / 8, 0.1),))
    met = only(one, seeds(HIGH, LOW, count=4, rows=2000), size)
    assert (met["verdict"], met["premises"][0]["holds"]) == (REPRODUCED, True)
    records = seeds(HIGH, LOW, count=4)
    records[0] = {"a": record(LOW), "b": record(LOW, seed=1)}
    failed = only(one, records, size)
    assert (failed["verdict"], failed["premises"][0]["holds"]) == (PREMISE, False)
    assert "asked +10" in failed["why"]
    assert only(one, {0: records[0]}, size)["verdict"] == PREMISE  # nothing else needs to be made then
    both = claim(premises=(close("a", "elsewhere", 0.02), *one.premises))
    assert only(both, {0: records[0]}, size)["verdict"] == PREMISE  # one that does not hold is enough
    assert only(claim(premises=both.premises[:1]), {0: records[0]}, size)["verdict"] == OPEN
    del records[0]
    assert only(one, records, size)["why"] == "a premise was not measured: it needs a, b of seed 0"
    records[0] = {name: {**record(LOW), "training": {"search": None}} for name in "ab"}
    unsure = only(one, records, size)
    assert (unsure["verdict"], "not tuned" in unsure["why"], unsure["premises"][0]["holds"]) == (OPEN, True, None)


def test_arms_that_are_judged_on_other_images_are_resampled_apart():
    """Of equal answers the difference is sure where images are shared, and is not where they are not."""
    one = {"a": record(HIGH), "b": record(HIGH)}
    paired, apart = (close("a", "b", 0.05, paired=paired).of(one).what for paired in (True, False))
    assert "+0.0 points [+0.0, +0.0]" in paired
    low, high = (float(end) for end in apart.split("[")[1].split("]")[0].split(", "))
    assert high - low == pytest.approx(2 * 196 * math.sqrt(2 * 0.9 * 0.1 / 400), rel=0.2)


def test_networks_judged_at_other_radii_have_a_table_of_their_own_and_seeds_that_did_not_learn_are_named():
    """Otherwise the radii of clips stand over the accuracies of images, and an arm at chance looks like one that learned."""
    images, clips, missed = record(HIGH), record(HIGH), record(HIGH)
    for each in (images, clips, missed):
        each["figures"]["coupled"] = False
    for side in ("paper", "strongest"):
        clips["figures"][side] = {f"{4 * float(radius):.6g}": one for radius, one in clips["figures"][side].items()}
    missed["training"] = {**missed["training"], "loss": 2.3}
    made = _networks({2: {"bn-standard": missed}, 0: {"bn-standard": missed}, 1: {"bn-standard": images, "bn-clips": clips}})
    radii = {columns: [one.name for one in networks] for columns, networks in made.items()}
    assert radii == {
        ("clean", "1/255", "2/255", "4/255", "8/255"): ["bn-standard"],
        ("clean", "4/255", "8/255", "16/255", "32/255"): ["bn-clips"],
    }
    about = made["clean", "1/255", "2/255", "4/255", "8/255"][0].about
    assert about == f"{CELLS['bn-standard'].about} (seeds 0, 2 not converged)"
    size = ("s", "small")
    table, *_ = claims()
    for page in (to_markdown(table, made, [], [], size), to_html(table, made, [], [], size, "")):
        assert page.index("8/255") < page.index("bn-standard") < page.index("32/255") < page.index("bn-clips")


def test_premises_say_what_was_found():
    at, strong = record((0.7, 0.6, 0.5, 0.45, 0.4)), record((0.9, 0.5, 0.1, 0.0, 0.0))
    labels = " ".join(str(row % 10) for row in range(400))
    at["figures"]["labels"] = labels
    one = {"at": at, "bn": strong}
    assert [calibrated("at", *cited).of(one).holds for cited in ((0.74, 0.45), (0.9, 0.45), (0.74, 0.6))] == [
        True,
        False,
        False,
    ]
    assert close("at", "bn", 0.5).of(one).holds
    assert not close("at", "bn", 0.02).of(one).holds
    assert fragile("bn").of(one).holds
    assert not fragile("at").of(one).holds
    assert trains("at").of(one).holds
    at["training"]["loss"] = 2.25
    assert not trains("at").of(one).holds
    assert not trains("bn").of({"bn": {**strong, "figures": {**strong["figures"], "labels": labels}}}).holds


def test_class_balanced_accuracy_of_a_constant_answer_is_nothing_above_the_best_one():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    bits = {"0": "1" * 60 + "0" * 40, "0.03": "1" * 60 + "0" * 40}
    always_first = {"figures": {"rows": {"strongest": bits}, "strongest": bits, "labels": " ".join(map(str, labels))}}
    sample = above_constant("a")([{"a": always_first}] * 3, "strongest")
    assert estimate(sample).value == pytest.approx(0, abs=1e-12)
    right = {"figures": {**always_first["figures"], "rows": {"strongest": {"0": "1" * 100, "0.03": "1" * 100}}}}
    assert estimate(above_constant("a")([{"a": right}] * 3, "strongest")).value == pytest.approx(2 / 3)
    assert estimate(above_constant("a", level=0.05, sign=-1)([{"a": right}] * 3, "strongest")).value == pytest.approx(
        -0.6167, abs=1e-4
    )
    del right["figures"]["labels"]
    assert above_constant("a")([{"a": right}] * 3, "strongest") is None


def test_costs_are_counted_and_clocks_stand_beside():
    costs = {"at": (8, 8, 300.0), "abnn": (2, 1, 100.0)}
    one = {
        name: {"training": dict(zip(("forwards", "backwards", "seconds"), cost, strict=True))}
        for name, cost in costs.items()
    }
    measure = counted(
        "log of the ratio of {}",
        lambda one: math.log(one["at"]["training"]["seconds"] / one["abnn"]["training"]["seconds"]),
        lambda one: math.log(operations(one["at"]) / operations(one["abnn"])),
    )
    clock, operated = (measure([one] * 3, protocol) for protocol in ("paper", "strongest"))
    assert (math.exp(estimate(clock).value), math.exp(estimate(operated).value)) == (pytest.approx(3), pytest.approx(6))
    assert (clock.what, operated.what) == (
        "log of the ratio of seconds of a clock",
        "log of the ratio of counted operations",
    )


def test_a_fall_is_counted_from_each_sides_own_start():
    names = ("own", "before", "theirs", "its")
    clean = ("1100", "1111", "1000", "1110")  # falls of 2 and of 2 rows: none is larger
    records = [{name: {"figures": {"rows": {"paper": {"0": bits}}}} for name, bits in zip(names, clean, strict=True)}] * 3
    sample = falls_less(*names)(records, "paper")
    assert estimate(sample).value == 0
    assert sample.what == "fall of clean accuracy, its to theirs less before to own"


def test_equal_clean_accuracy_is_drawn_between_two_networks():
    low, high, own = (record(shares) for shares in ((0.5, 0.4, 0, 0, 0), (0.9, 0.7, 0, 0, 0), (0.7, 0.9, 0, 0, 0)))
    records = [{"low": low, "high": high, "own": own}] * 3
    sample = more_robust_at_equal_clean("own", ("high", "low"), 1 / 8)(records, "paper")
    share = (own["figures"]["clean"] - low["figures"]["clean"]) / (high["figures"]["clean"] - low["figures"]["clean"])
    one = f"{1 / 255:.6g}"
    at = [each["figures"]["paper"][one] for each in (own, low, high)]
    assert sample.what == "robust accuracy at 1/255, own less low trained until as accurate"
    assert estimate(sample).value == pytest.approx(at[0] - (1 - share) * at[1] - share * at[2])
    same = [{"low": low, "high": high, "own": high}] * 3
    assert estimate(more_robust_at_equal_clean("own", ("low", "high"), 1 / 8)(same, "paper")).value == 0


def test_seeds_that_decide_are_judged_whole_where_claims_are_decided_and_in_part_on_the_curve():
    scale = replace(smoke(), curve=25)
    model = CellStore(CELLS, scale, Path("nowhere"), silent).untrained("bn-standard", 1)
    whole, part = (measured(CELLS["bn-standard"], model, one, 1) for one in (replace(scale, curve=0), scale))
    assert whole.keys() - part.keys() == {"legacy"}
    assert part["clean"] == whole["clean"]
    for side, found in part["rows"].items():
        assert [len(bits) for bits in found.values()] == [50, 25, 25, 50, 25, 25, 50]
        assert all(whole["rows"][side][radius].startswith(bits[:25]) for radius, bits in found.items())
    coupled = measured(CELLS["bnwot"], convert(model, BNwoT()), scale, 1)
    assert {len(bits) for found in coupled["rows"].values() for bits in found.values()} == {
        25
    }  # attacked as whole batches: dear
    beside = [{"coupled": {"figures": coupled}, "alone": {"figures": part}}]
    assert more_robust("coupled", "alone", 1.0)(beside, "strongest").values.shape == (2, 1, 25)
    looks = {(one.measure.exactly, one.measure.share) for one in (*CLAIMS, *LARGE) if isinstance(one.measure, AtRadius)}
    assert looks == {(0, EIGHTH), (0, WHOLE), (DECIDING[0], 1)}  # of the radius of training, and the side of a patch
    patched = measured(CELLS["bn-standard-patch"], model, replace(scale, batch_size=15), 1)
    assert list(patched["strongest"]) == ["0", *map(str, DECIDING)]
    assert more_robust("a", "b", patch=3)([{"a": {"figures": patched}, "b": {"figures": patched}}], "paper").what.endswith(
        "a less b"
    )


def test_on_the_curve_equal_clean_accuracy_is_drawn_of_the_rows_that_were_judged_there():
    one, first = f"{1 / 255:.6g}", 100
    records = [{"low": record(LOW, seed=1), "high": record(HIGH, seed=2), "own": record(HIGH, seed=3)}] * 2
    for each in records[0].values():
        rows = each["figures"]["rows"]["paper"]
        rows[one] = rows[one][:first]
    assert more_robust_at_equal_clean("own", ("low", "high"), 1 / 8)(records, "paper").values.shape == (6, 2, first)


def test_the_matching_is_in_the_interval():
    """With a steep ladder the error of clean accuracy counts: the interval is wider than at a fixed mixture."""
    ladder = {"low": record((0.5, 0.1, 0, 0, 0), seed=1), "high": record((0.56, 0.6, 0, 0, 0), seed=2)}
    records = [{**ladder, "own": record((0.53, 0.5, 0, 0, 0), seed=3)}] * 2
    matched = estimate(more_robust_at_equal_clean("own", ("low", "high"), 1 / 8)(records, "paper")).draws.std()
    fixed = estimate(more_robust("own", "high", 1 / 8)(records, "paper")).draws.std()
    assert matched > 1.5 * fixed


def test_without_a_network_of_equal_clean_accuracy_nothing_is_decided():
    records = {s: {"low": record(LOW), "own": record((0.2, 0, 0, 0, 0))} for s in range(3)}
    one = Claim(
        number="0",
        system="robustnorm",
        claim="",
        paper="",
        cells=("low", "own"),
        effect=0.0,
        measure=more_robust_at_equal_clean("own", ("low",), 1 / 8),
        guard=unmatched("own", ("low",)),
    )
    assert (only(one, records)["verdict"], only(one, records)["why"]) == (
        OPEN,
        "in 3 seeds no low network is as accurate as own",
    )


def test_of_corruptions_the_kept_share_of_clean_accuracy_is_compared():
    def kept(clean, *bits):
        kinds = {"fog": {"1": bits[0], "5": bits[1]}, "snow": {"1": bits[2], "5": bits[3]}}
        return {"figures": {"rows": {"clean": clean, "corruptions": kinds}}}

    a, b = kept("1111", "1111", "1110", "1100", "1000"), kept("1100", "1000", "1100", "1100", "0000")
    sample = steadier("a", "b")([{"a": a, "b": b}] * 3, "paper")
    assert estimate(sample).value == pytest.approx(10 / 16 - (5 / 16) / 0.5)


def test_what_a_cell_is_judged_under_counts_in_its_digest():
    cell = Cell(name="a", system="nofrost", about="", begin=lambda scale: None, extras=("drift",))
    others = [replace(cell, extras=()), replace(cell, under="patch"), replace(cell, under="corruptions")]
    digests = {CellStore({"a": one}, SIZE, Path(), lambda *report: None).digest("a", 0) for one in (cell, *others)}
    assert len(digests) == 4


def test_how_cells_are_attacked_counts_in_the_digests_of_those_cells_alone():
    stores = [CellStore(CELLS, size, Path(), lambda *report: None) for size in (SIZE, replace(SIZE, patches=PGD()))]
    same = {
        name: len({store.digest(name, 1) for store in stores}) == 1
        for name in ("bn-standard", "bn-standard-columns", "bn-standard-patch")
    }
    assert same == {"bn-standard": True, "bn-standard-columns": True, "bn-standard-patch": False}


def test_a_ratio_is_written_as_a_factor_and_accuracies_in_points():
    ratio = {"value": np.log(4), "low": np.log(2), "high": np.log(8), "what": "log of the ratio of seconds"}
    points = {"value": 0.1, "low": None, "high": None, "what": "clean accuracy"}
    assert [written(ratio), written(points)] == ["4 [2, 8] times", "+10 points"]


def test_claims_and_cells_name_what_there_is():
    assert {one.system for one in CLAIMS} == set(SYSTEMS)
    assert {cell for one in (*CLAIMS, *LARGE) for cell in one.cells} <= set(CELLS)
    assert {cell for one in (*CLAIMS, *LARGE) for premise in one.premises for cell in premise.cells} <= set(CELLS)
    assert {need for cell in CELLS.values() for need in cell.needs} <= set(CELLS)
    assert len({one.number for one in CLAIMS}) == len(CLAIMS)


def test_video_is_not_attempted_where_a_size_has_no_clips():
    video = next(one for one in CLAIMS if one.number == "12")
    assert only(video, {})["verdict"] == NEVER
    assert only(CLAIMS[0], {})["why"] == "no seed has all of its cells: bn-standard"


@pytest.mark.parametrize("one", [*CLAIMS, *LARGE], ids=lambda one: one.number)
def test_of_every_network_a_claim_reads_the_tuning_and_learning_are_seen(one):
    """What a claim compares has trained itself, or names in its needs what has."""
    for cell in one.cells:
        assert CELLS[cell].recipe or CELLS[cell].needs or CELLS[cell].published


def test_what_a_cell_needs_is_made_before_it():
    for system in (*SYSTEMS, "all"):
        order = wanted(Reproduce(system=system))
        assert all(order.index(need) < order.index(name) for name in order for need in CELLS[name].needs)
    assert wanted(Reproduce(only=("rn",))) == ["rnt-standard", "rn"]


def test_cells_on_other_data_and_long_ones_are_made_where_they_are_named():
    attacked = {name for name, cell in CELLS.items() if cell.under == "attackers"}
    apart = {"other-standard", "abnn-other", "affine-fragile-long"} | attacked
    published = {name for name in CELLS if "published" in name}
    apart |= {"bn-pictures", "abnn-clips-inflated"}
    assert set(CELLS) - set(wanted(Reproduce(preset="s"))) == apart | published
    assert set(CELLS) - set(wanted(Reproduce(preset="s", published="there"))) == apart
    assert {name for name in CELLS if "clips" in name} - apart <= set(wanted(Reproduce(preset="smoke")))
    assert not [name for name in wanted(Reproduce(preset="m")) if "clips" in name]
    assert set(wanted(Reproduce(preset="l", published="there"))) == published
    assert set(wanted(Reproduce(preset="s", only=tuple(apart)))) == apart | {
        need for name in apart for need in CELLS[name].needs
    } | {"rnt-standard", "bn-foreign", "bn-standard"}


@pytest.mark.parametrize(("preset", "page"), [("s", "claims"), ("cpu", "claims-cpu")])
def test_the_page_of_claims_is_made_of_the_committed_records(preset, page, tmp_path):
    root = Path(__file__).parents[2]
    kept = root / "results/reproduce" / preset
    for path in (one for name in ("record", "again") for one in (kept / "cells").glob(f"*/{name}.json")):
        target = tmp_path / "cells" / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    table = decided(tmp_path, preset)
    made = (tmp_path / "claims.md").read_text()
    assert made == (root / "docs/laboratory" / f"{page}.md").read_text()
    assert "| `bn-standard` |" in made
    if preset == "cpu":
        assert {one["verdict"] for one in table} == {OPEN, NEVER}  # history decides nothing
    else:
        assert (kept / "claims.json").read_text() == (tmp_path / "claims.json").read_text()


def test_beside_the_claims_stands_what_training_cost_what_weaker_attackers_saw_and_what_is_missing():
    search = {"forwards": 10, "backwards": 20}
    trained = {"seconds": 300.0, "epochs": 20, "lr": 0.003, "trained_parameters": 1234, "forwards": 3000, "backwards": 1000}
    trained |= {"search": search, "loss": 1.234}
    seen = {"0": 0.6, "0.0313725": 0.1}
    abnn = {"training": trained, "figures": {"paper": seen, "strongest": seen, "detached": {"0.0313725": 0.5}}}
    slower = {**abnn, "training": {**trained, "seconds": 400.0, "lr": 0.01}}
    busy = {**abnn, "training": {**trained, "seconds": 9000.0}}  # beside other work: the median does not see it
    patched = {"training": None, "figures": {"paper": {"0": 0.6, "2": 0.4}, "strongest": {"0": 0.6, "2": 0.3}}}
    tables = {
        table.title: table
        for table in extra_tables({"abnn": [abnn, slower, busy], "bn-standard-patch": [patched]}, tuple(CELLS))
    }
    assert tables["Training"].rows == [("abnn", "20", "400", "20", "5,000", "50", "1.23", "0.003, 0.01", "1,234")]
    assert tables["Weaker attackers of ABNN"].rows == [("abnn", "gradient of the target alone", "50.0 / 10.0")]
    assert tables["Under patches"].rows == [("bn-standard-patch", "60.0", "40.0 / 30.0")]
    assert len(tables["Not made yet"].rows) == len(CELLS) - 2
    later = {"training": None, "figures": {"paper": {"0": 0.8, "3": 0.2}, "strongest": {"0": 0.8, "3": 0.1}}}
    (both,) = (one for one in extra_tables({"bn-standard-patch": [patched, later]}) if one.title == "Under patches")
    assert both.rows == [("bn-standard-patch", "70.0", "40.0 / 30.0", "20.0 / 10.0")]  # each size of the seeds that have it
    assert "RobustNorm's own protocol" not in tables


def test_what_differs_between_cells_is_in_their_digest():
    cell = Cell(name="a", system="fragile-features", about="", begin=lambda scale: None)
    others = [replace(cell, decayed=False), replace(cell, stream=1), replace(cell, part=0.5), replace(cell, published=20)]
    made = {CellStore({"a": one}, SIZE, Path(), lambda *report: None).digest("a", 0) for one in (cell, *others)}
    assert len(made) == 5


def test_how_an_arm_is_tuned_is_in_its_digest_and_which_seeds_decide_is_not():
    cell = Cell(name="a", system="fragile-features", about="", begin=lambda scale: None)

    def digest(scale, seed=1):
        return CellStore({"a": cell}, scale, Path(), lambda *report: None).digest("a", seed)

    ours = digest(SIZE)
    assert len({ours, digest(replace(SIZE, rates=(1e-3,))), digest(replace(SIZE, tuning=replace(SIZE.tuning, most=4)))}) == 3
    assert digest(replace(SIZE, looks=(5, 9), cells=("a",), published="there")) == ours


def test_every_seed_has_images_of_its_own_and_the_first_is_judged_on_other_ones():
    store = CellStore(CELLS, SIZE, Path(), lambda *report: None)
    data = [store.scale_of(CELLS["bn-standard"], seed).data for seed in (0, 1, 2)]
    assert [(one.split_seed, one.test_from, one.test_limit) for one in data] == [(0, 2000, 2000), (1, 0, 2000), (2, 0, 2000)]
    assert store.scale_of(CELLS["bn-foreign"], 1).data.split_seed == 10_001  # another seed's images, the same test rows
    assert store.scale_of(CELLS["bn-foreign"], 1).data.test_from == 0
    assert [store.scale_of(CELLS["bn-standard"], seed).curve for seed in (0, 1)] == [0, 500]
