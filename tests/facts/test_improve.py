"""The choice of `normwise improve`: on validation images, within what may be lost and what may be spent."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from normwise.auditing.checks.record import LATE
from normwise.data import Digits
from normwise.experiments.experiment import Experiment, build
from normwise.experiments.improve import Improve, _too_late
from normwise.experiments.unseen import unseen, with_validation
from normwise.experiments.ways import WAYS, against, choose, fitted, near, sentences, why_not
from normwise.report.improve import write_page
from normwise.threats import Linf
from normwise.utils.intervals import above, of_rows
from records import improved
from toys import Stripes, balanced, images


class ByHeart(nn.Module):
    """Knows the training images of a data set, and answers 0 for every other."""

    def __init__(self, data):
        super().__init__()
        self.data, self.known = data, {}
        for batch in data.train(batch_size=8, generator=torch.Generator()):
            self.known |= {str(x.tolist()): int(y) for x, y in zip(batch.x, batch.y, strict=True)}

    def forward(self, x):
        answers = torch.tensor([self.known.get(str(one.tolist()), 0) for one in x])
        return nn.functional.one_hot(answers, self.data.classes).float()


def row(name, clean, worst, n=100):
    scores = {key: asdict(of_rows(round(share * n), n)) for key, share in (("clean", clean), ("worst", worst))}
    return {"name": name, "state": "tried", "validation": {**scores, "n": n}, "seconds": 60.0}


def chosen_of(before, ways, lose):
    judged = [one | ({"against": against(before, one, lose, 1)} if one["state"] == "tried" else {}) for one in ways]
    return (choose(judged) or {}).get("name")


BEFORE = row("as given", 0.9, 0.1)


@pytest.mark.parametrize(
    ("ways", "chosen"),
    [
        ([row("a", 0.8, 0.4), row("b", 0.8, 0.5)], "b"),
        ([row("a", 0.7, 0.4), row("b", 0.69, 0.5)], "a"),  # b loses too much, and a just as much as is allowed
        ([row("a", 0.9, 0.1)], None),  # no better than before
        ([row("a", 0.9, 0.13)], None),  # or only by chance
        ([row("a", 0.9, 0.13, n=10_000)], None),  # of 100 images before
        ([{"name": "a", "state": "was not tried", "why": ""}], None),
        ([row("a", 0.8, 0.4), row("b", 0.8, 0.5) | {"dead": True}], "a"),
    ],
)
def test_the_most_robust_is_chosen_of_those_that_stay_accurate(ways, chosen):
    assert chosen_of(BEFORE, ways, 0.2) == chosen


def test_a_loss_that_is_too_large_is_told_in_numbers():
    sentence = against(BEFORE, row("b", 0.615, 0.5, n=200), 0.2, 1)
    assert sentence == "it loses 28.5 points of clean accuracy on validation images, and 20 are allowed"


@pytest.mark.parametrize(
    ("gained", "lost", "ways", "why"),
    [
        (13, 3, 1, ""),  # p = 0.021
        (13, 3, 5, "above the 75.0% of the network as it is given (13 images gained, 3 lost), but not by more than chance"),
        (20, 2, 5, ""),
        (2, 20, 1, "not above the 75.0% of the network as it is given"),
        (5, 0, 1, "above the 75.0% of the network as it is given (5 images gained, 0 lost), but not by more than chance"),
    ],
)
def test_chance_is_judged_image_by_image_and_corrected_for_the_ways(gained, lost, ways, why):
    def of(rows):
        found = row("a", 0.9, rows.count("1") / len(rows), n=len(rows))
        return found | {"validation": found["validation"] | {"rows": rows}}

    old = "1" * 150 + "0" * 50
    new = "0" * lost + "1" * (150 - lost) + "1" * gained + "0" * (50 - gained)
    sentence = against(of(old), of(new), 0.2, ways)
    assert why in sentence
    assert bool(sentence) == bool(why)


def test_a_lead_that_chance_explains_is_said_to_be_one():
    ways = [
        row("a", 0.9, 0.50) | {"against": ""},
        row("b", 0.9, 0.49) | {"against": ""},
        row("c", 0.9, 0.2) | {"against": ""},
    ]
    assert near(ways[0], ways) == ["b"]
    assert near(ways[0], [ways[0], ways[1] | {"against": "it loses too much"}]) == []


def test_groups_divide_the_channels_of_the_network():
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Conv2d(12, 32, 3), nn.BatchNorm2d(32))
    assert fitted(WAYS["groupnorm"], model).norm.groups == 4
    assert all(fitted(way, balanced()) == way for name, way in WAYS.items() if name != "groupnorm")


def test_any_network_is_better_than_one_that_gives_all_images_one_class():
    assert chosen_of(row("as given", 0.2, 0.2) | {"dead": True}, [row("a", 0.8, 0.1)], 0.2) == "a"


def test_the_choice_reads_no_test_image():
    record = improved()
    seen = chosen_of(record["before"], record["ways"], 0.2)
    assert seen == "pgd-at"
    for one in (record["before"], *record["ways"]):
        for key in ("clean", "worst", "protocol"):
            one.pop(key, None)
    assert chosen_of(record["before"], record["ways"], 0.2) == seen


@pytest.mark.parametrize(("budget", "begun"), [(10.0, True), (4.0, False)])
def test_no_way_is_begun_that_would_end_after_the_budget(budget, begun):
    settings = Improve(model="runs/bn", budget=budget)
    assert not _too_late(settings, [BEFORE]), "the first is always tried"
    warning = _too_late(settings, [BEFORE, {**row("a", 0.8, 0.4), "seconds": 120.0}])
    assert (not warning) == begun
    if warning:  # (1 + 2 + 2) / 60%
        assert warning.startswith(
            "3.0 minutes were spent, it would take about 2.0 more, and 1.6 of 4 are kept for two audits"
        )
        assert "--budget 8.4 " in warning


def test_a_gain_that_chance_explains_is_said_to_be_one():
    record, audited = (
        improved(),
        {"verdict": "trustworthy", "upper_bound": 0.5, "n": 50, "interval": (0.4, 0.6), "seconds": 60.0},
    )
    before, (way, _) = record["before"], record["ways"]
    audits = {"before": audited, "after": audited}
    assert "chance" not in sentences(before, [way], way, audits)[0]
    near = {**way, "worst": {**way["worst"], "value": 0.3, "low": 0.2, "high": 0.4}}
    assert "chance" in sentences(before, [near], near, audits)[0]
    rows = "1" * 8 + "0" * 32, "1" * 14 + "0" * 26  # six images gained, none lost
    assert "chance" not in sentences({**before, "rows": rows[0]}, [near], {**near, "rows": rows[1]}, audits)[0]


def test_a_network_without_norms_has_its_norms_neither_trained_nor_converted():
    assert {name for name, way in WAYS.items() if not why_not(way, nn.Linear(2, 2))} == {"pgd-at", "mixed"}
    assert not any(why_not(way, balanced()) for way in WAYS.values())


def test_what_limits_a_figure_is_said():
    record, sure = (
        improved(),
        {"verdict": "trustworthy", "upper_bound": 0.5, "n": 50, "interval": (0.4, 0.6), "seconds": 60.0},
    )
    before, (way, _) = record["before"], record["ways"]
    plain = sentences(before, [way], way, {"before": sure, "after": sure})
    assert "audit says" not in plain[0]
    assert not any("tuned" in one or "coupled" in one for one in plain)
    doubtful = {"before": sure, "after": {**sure, "verdict": "doubtful"}}
    assert sentences(before, [way], way, doubtful)[0].endswith("its audit says doubtful: it may be less")
    late = {"name": "stronger search", "status": "could not run", "measured": f"0.44 {LATE}, its part of the budget"}
    for checks, why in (([late], "too little time; give a larger --budget"), ([], "no gradient arrives")):
        hurried = {**sure, "verdict": "not established", "checks": checks, "reasons": ["no gradient arrives"]}
        text = sentences(before, [way], way, {"before": hurried, "after": hurried})
        assert text[0].endswith(f"its audit says not established ({why}): it may be less")
        figure = f"at most 50.0% of 50 images are robust [40.0, 60.0]; this figure is not established ({why})"
        assert f"Audit of the network as it is given: {figure}" in text
    edge = {**way, "search": {**way["search"], "edge": True}, "coupled": True}
    text = " ".join(sentences(before, [edge], edge, {"before": sure, "after": sure}))
    assert "not tuned to the end" in text
    assert "coupled in pgd-at" in text
    assert (
        "Minutes spent: 1.5 on trainings, 0.5 on short trainings that choose learning rates, 2.0 on evaluations, 2.0 on audits"
        in text
    )
    assert "one class from pgd-at: that is no robustness" in " ".join(
        sentences(before, [way | {"dead": True}], None, {"before": sure})
    )


@pytest.mark.parametrize("way", [way for way in WAYS.values() if way.norm], ids=lambda way: way.name)
def test_a_network_with_converted_norms_can_be_attacked_before_it_trains(way):
    """What BatchNorm did not track is measured on training images."""
    model = build(Experiment(data=Stripes(), start="toys:balanced", norm=way.norm)).eval()
    assert model(images(4)).isfinite().all()


def test_images_that_the_network_has_learned_do_not_choose():
    """The validation images are then taken from the test images, half of them at most, before anything is tried."""
    data = Digits(validation_size=200, test_limit=60)
    network = ByHeart(replace(data, validation_size=0))
    found, reason = unseen(data, network, Linf(), 50)
    assert (found.validation_from, found.validation_size, reason["from"]) == ("test", 30, "test")
    assert reason["learned"]["validation"]["value"] == 1
    assert reason["learned"]["test"]["value"] < 0.3
    assert "100.0%" in reason["sentence"]
    assert "30 test images were made validation images" in reason["sentence"]
    unlearned = ByHeart(data)
    assert unseen(data, unlearned, Linf(), 50) == (data, {"learned": None, "sentence": "", "from": "train"})


def test_a_record_that_lacks_what_its_page_shows_is_refused(tmp_path):
    record = improved()
    del record["validation"]
    with pytest.raises(ValueError, match=r"the record is incomplete: .*validation"):
        write_page(tmp_path, record)


def test_data_without_validation_images_gets_a_tenth_of_its_training_images():
    assert with_validation(Digits(validation_size=0)).validation_size == 129
    assert with_validation(Digits(validation_size=0, validation_from="test", test_limit=60)).validation_size == 30
    assert with_validation(Digits()) == Digits()


def test_shares_of_different_rows_differ_by_more_than_chance_where_newcombe_says_so():
    """His example (table II a): 56/70 and 48/80, difference 0.2, interval 0.0524 to 0.3339."""
    one, other = of_rows(56, 70), of_rows(48, 80)
    assert one.value - other.value - 0.0524 == pytest.approx(
        ((one.value - one.low) ** 2 + (other.high - other.value) ** 2) ** 0.5, abs=1e-4
    )
    assert above(one, other)
    assert not above(other, one)
    assert not above(of_rows(52, 70), other)
