"""The choice of `normwise improve`: on validation images, within what may be lost and what may be spent."""

import pytest
from torch import nn

from normwise.auditing.checks.record import LATE
from normwise.experiments.experiment import Experiment, build
from normwise.experiments.improve import Improve, _too_late
from normwise.experiments.ways import WAYS, choose, sentences, why_not
from records import improved
from worlds import Stripes, balanced, images


def row(name, clean, worst, seconds=60.0):
    return {"name": name, "state": "tried", "validation": {"clean": clean, "worst": worst}, "seconds": seconds}


BEFORE = row("as given", 0.9, 0.1)


@pytest.mark.parametrize(
    ("ways", "chosen"),
    [
        ([row("a", 0.8, 0.4), row("b", 0.8, 0.5)], "b"),
        ([row("a", 0.8, 0.4), row("b", 0.6, 0.5)], "a"),  # b loses too much
        ([row("a", 0.9, 0.1)], None),  # no better than before
        ([{"name": "a", "state": "was not tried", "why": ""}], None),
        ([row("a", 0.8, 0.4), row("b", 0.8, 0.5) | {"dead": True}], "a"),
    ],
)
def test_the_most_robust_is_chosen_of_those_that_stay_accurate(ways, chosen):
    found = choose(BEFORE, ways, 0.2)
    assert (found["name"] if found else None) == chosen


def test_any_network_is_better_than_one_that_gives_all_images_one_class():
    assert choose(row("as given", 0.2, 0.2) | {"dead": True}, [row("a", 0.8, 0.1)], 0.2)["name"] == "a"


def test_the_choice_reads_no_test_image():
    record = improved()
    seen = choose(record["before"], record["ways"], 0.2)
    for one in (record["before"], *record["ways"]):
        for key in ("clean", "worst", "protocol"):
            one.pop(key, None)
    assert choose(record["before"], record["ways"], 0.2) == seen


@pytest.mark.parametrize(("budget", "begun"), [(10.0, True), (4.0, False)])
def test_no_way_is_begun_that_would_end_after_the_budget(budget, begun):
    settings = Improve(model="runs/bn", budget=budget)
    assert not _too_late(settings, [BEFORE]), "the first is always tried"
    assert (not _too_late(settings, [BEFORE, row("a", 0.8, 0.4, 120.0)])) == begun


def test_intervals_that_overlap_are_said_to():
    record, audited = improved(), {"verdict": "trustworthy", "upper_bound": 0.5, "interval": (0.4, 0.6), "seconds": 60.0}
    before, (way, _) = record["before"], record["ways"]
    audits = {"before": audited, "after": audited}
    assert "chance" not in sentences(before, [way], way, audits)[0]
    near = {**way, "worst": {**way["worst"], "low": 0.3}}
    assert "chance" in sentences(before, [near], near, audits)[0]


def test_a_network_without_norms_has_its_norms_neither_trained_nor_converted():
    assert {name for name, way in WAYS.items() if not why_not(way, nn.Linear(2, 2))} == {"pgd-at", "mixed"}
    assert not any(why_not(way, balanced()) for way in WAYS.values())


def test_what_limits_a_figure_is_said():
    record, sure = improved(), {"verdict": "trustworthy", "upper_bound": 0.5, "interval": (0.4, 0.6), "seconds": 60.0}
    before, (way, _) = record["before"], record["ways"]
    plain = sentences(before, [way], way, {"before": sure, "after": sure})
    assert "audit says" not in plain[0]
    assert not any("tuned" in one or "coupled" in one for one in plain)
    doubtful = {"before": sure, "after": {**sure, "verdict": "doubtful"}}
    assert sentences(before, [way], way, doubtful)[0].endswith("its audit says doubtful")
    late = {"name": "stronger search", "status": "could not run", "measured": f"0.44 {LATE}, of a budget of 1.25"}
    for checks, why in (([late], "too little time; give a larger --budget"), ([], "no gradient arrives")):
        hurried = {**sure, "verdict": "not established", "checks": checks, "reasons": ["no gradient arrives"]}
        told = sentences(before, [way], way, {"before": hurried, "after": hurried})
        assert told[0].endswith(f"its audit says not established ({why})")
        assert f"Audit of the network as it is given: not established ({why}): at most 50.0%" in " ".join(told)
    edge = {**way, "search": {**way["search"], "edge": True}, "coupled": True}
    told = " ".join(sentences(before, [edge], edge, {"before": sure, "after": sure}))
    assert "not tuned to the end" in told
    assert "coupled in pgd-at" in told
    assert (
        "Minutes spent: 1.5 on trainings, 0.5 on short trainings that choose learning rates, 2.0 on evaluations, 2.0 on audits"
        in told
    )
    assert "one class from pgd-at: that is no robustness" in " ".join(
        sentences(before, [way | {"dead": True}], None, {"before": sure})
    )


@pytest.mark.parametrize("way", [way for way in WAYS.values() if way.norm], ids=lambda way: way.name)
def test_a_network_with_converted_norms_can_be_attacked_before_it_trains(way):
    """What BatchNorm did not track is measured on training images."""
    model = build(Experiment(data=Stripes(), start="worlds:balanced", norm=way.norm)).eval()
    assert model(images(4)).isfinite().all()
