"""The report says what the records say, whatever they say, and shows names as names."""

import csv
import dataclasses
import html
import json
import re
from html.parser import HTMLParser

import pytest

from normwise.evaluation.dead import NAME
from normwise.records import Check, Curve, Result, Score, read_result
from normwise.registry import plain
from normwise.report import answer, card, cells, page, tables
from normwise.report.robustbench import Entry
from records import HOSTILE, grid, result, score


def said(results, failures=None):
    return answer.of(cells.of(results), failures or {})


def words(results, failures=None):
    summary = said(results, failures)
    findings = [line for name, lines in summary.findings for line in (name, *lines)]
    return "\n".join([summary.lead, summary.rest, *findings, *(": ".join(pair) for pair in summary.cautions)])


def write(out, results, failures=None):
    provenance = {
        "command": "normwise bench --seed 0",
        "commit": None,
        "hardware": {"cores": 2},
        "versions": {"torch": "2.9"},
    }
    return page.write(out, results, title="normwise bench", provenance=provenance, failures=failures)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with the report of twelve cells, one of hostile name, and of one that failed."""
    out = tmp_path_factory.mktemp("bench")
    results = [*grid(gn_adversarial=0.6)[:-1], result("none", "adversarial", 0.4, label=HOSTILE)]
    write(out, results, {"ln-standard": f"it broke: {HOSTILE}"})
    return out, results


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_loads_nothing_from_elsewhere(bench):
    text = (bench[0] / "report.html").read_text()
    for tag, attributes in Tags(text).found:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert not re.match(r"(?:https?:)?//", attributes.get(name) or ""), (tag, attributes)
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", text)
    assert "default-src 'none'" in text


def test_names_from_records_stay_text(bench):
    page_text = (bench[0] / "report.html").read_text()
    tags = Tags(page_text)
    assert sum(tag == "script" for tag, _ in tags.found) == 1
    assert not [attributes for _, attributes in tags.found if any(name.startswith("on") for name in attributes)]
    assert any("<script>alert(1)</script>" in text and "{{7*7}}" in text for text in tags.text)
    assert "<script>" not in (bench[0] / "figures/accuracy.svg").read_text()


def test_csv_and_json_hold_the_numbers_of_the_records(bench, tmp_path):
    out, results = bench
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [r.name for r in results]
    for row, r in zip(rows, results, strict=True):
        e = r.evaluation
        for name, one in {
            "clean": e.clean_accuracy,
            "pgd-20": e.per_attack["pgd-20"],
            "worst_case": e.robust_accuracy,
        }.items():
            assert [float(row[f"{name}_{part}"]) for part in ("value", "low", "high")] == [one.value, one.low, one.high]
            assert (int(row[f"{name}_n"]), row[f"{name}_unit"]) == (one.n, one.unit)
        assert float(row["training_seconds"]) == r.training.seconds
    data = json.loads((out / "results.json").read_text())
    assert (data["schema"], data["title"], list(data["failures"])) == (1, "normwise bench", ["ln-standard"])
    for cell, r in zip(data["cells"], results, strict=True):
        assert cell == plain(r)
        (tmp_path / "cell.json").write_text(json.dumps(cell))
        assert read_result(tmp_path / "cell.json") == r


def test_the_same_records_give_the_same_bytes(bench, tmp_path):
    out, results = bench
    write(tmp_path, results, {"ln-standard": f"it broke: {HOSTILE}"})
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    figures = [f"figures/{name}.{kind}" for name in ("accuracy", "cost") for kind in ("png", "svg")]
    assert names == [*figures, "report.html", *(f"results.{kind}" for kind in ("csv", "json", "md", "tex"))]
    for name in names:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_a_norm_beyond_the_intervals_is_named_and_others_are_not_told_apart():
    summary = said(grid(gn_adversarial=0.6, none_adversarial=0.2))
    assert summary.lead.startswith(
        "GroupNorm is more robust than BatchNorm with PGD adversarial training: 60.0% against 40.0%"
    )
    text = words(grid(gn_adversarial=0.6, none_adversarial=0.2))
    assert "Above BatchNorm by more than chance: GroupNorm (60.0%)." in text
    assert "Below BatchNorm by more than chance: no norm (20.0%)." in text
    assert (
        "Not told apart from it: BatchNorm reading the batch; RobustNorm, tracked; and RobustNorm reading the batch." in text
    )


def test_differences_within_the_intervals_are_no_differences():
    summary = said(grid(gn_adversarial=0.47))
    assert (
        summary.lead
        == "None of 5 alternatives to BatchNorm is measurably more robust by 5 points or more with the same training."
    )
    assert "GroupNorm with PGD adversarial training, 47.0%" in summary.rest
    assert words(grid(gn_adversarial=0.47)).count("these data cannot tell them apart") == 2


def test_a_vit_is_compared_with_layernorm():
    def vit(norm, worst):
        made = result(norm, worst=worst, label=norm)
        return dataclasses.replace(made, experiment=made.experiment | {"model": {"name": "vit"}})

    text = words([vit("bn", 0.3), vit("layernorm2d", 0.4), vit("dyt", 0.6)])
    assert "dyt is more robust than LayerNorm over channels with standard training: 60.0% against 40.0%" in text
    assert "Below LayerNorm over channels by more than chance: bn (30.0%)." in text
    assert "There is no norm to compare with" in words([vit("bn", 0.3), vit("dyt", 0.6)])


def test_a_gain_of_coupled_rows_is_not_the_headline():
    summary = said(grid(rn_standard=0.5))
    assert (
        summary.lead
        == "None of 5 alternatives to BatchNorm is measurably more robust by 5 points or more with the same training, with 1 exception."
    )
    text = words(grid(rn_standard=0.5))
    assert "RobustNorm reading the batch (50.0%, coupled)" in text
    assert "4 of 12 networks" in text
    assert "have 43% of the apparent robustness" in text


def test_what_lowers_trust_is_said():
    doubted = [*grid()[:-1], result("gn", "adversarial", 0.7, warn=True)]
    text = words([*doubted[:-2], doubted[-1]], {"gn-standard": "out of memory"})
    assert "A sanity check warns about it." in text
    assert "gn-standard failed" in text
    assert (
        "One training each (one seed): the luck of training is in no interval: Another seed may give other figures." in text
    )
    assert "FGSM and PGD-20 is an upper bound" in text


def test_seeds_are_averaged_and_widen_the_interval():
    seeds = [
        result(norm, worst=worst + 0.03 * seed, seed=seed) for norm, worst in (("bn", 0.3), ("gn", 0.5)) for seed in range(3)
    ]
    found = cells.of(seeds)
    assert [len(cell.results) for cell in found] == [3, 3]
    assert found[0].worst.value == pytest.approx(0.33)
    half = 4.303 * 0.03 / 3**0.5  # Student's t of two degrees of freedom
    assert found[0].worst.high - 0.33 == pytest.approx((0.04**2 + half**2) ** 0.5, rel=1e-3)
    assert "One seed" not in words(seeds)
    assert "3 seeds" in words(seeds)
    assert cells.of([seeds[0], seeds[0]])[0].results == (seeds[0],)


def test_cells_under_different_threat_models_are_not_compared():
    both = [result("bn", worst=0.1, eps=0.3), result("gn", worst=0.6, eps=0.1)]
    assert {cell.setting for cell in cells.of(both)} == {"digits (eps 0.3)", "digits (eps 0.1)"}
    assert "more robust than BatchNorm" not in words(both)
    assert said(both).lead == "Worst case of each, in 2 settings: BatchNorm 10.0% and GroupNorm 60.0%."


def given(network="mine:network", weights="net.pt", worst=0.02, **settings):
    """The record of `normwise evaluate`: it lacks what only training has, and has what only evaluation has."""
    whole = result(worst=worst)
    own = {key: whole.experiment[key] for key in ("data", "threat", "attacks", "seed")}
    own |= {"model": network, "weights": weights, "craft_on": "", "through_substitute": True, "goal": "misclassified"}
    evaluation = dataclasses.replace(whole.evaluation, norms={"BatchNorm": 7})
    return Result(name="before", experiment=own | settings, training=None, evaluation=evaluation)


def trained(norm, worst, start="mine:network", weights="./net.pt", label=None):
    """The record of `normwise train START`."""
    one = result(norm or "bn", "adversarial", worst, clean=0.7, label=label)
    experiment = one.experiment | {"start": start, "weights": weights, "model": None}
    experiment |= {} if norm else {"norm": None}
    evaluation = dataclasses.replace(one.evaluation, norms={"BatchNorm": 7} if norm in (None, "bn") else {})
    return dataclasses.replace(one, experiment=experiment, evaluation=evaluation)


def test_a_network_is_compared_with_what_training_made_of_it():
    found = [given(eps_curve=[0.1]), trained(None, 0.23), trained("gn", 0.21)]
    assert [(cell.setting, cell.norm, cell.reference) for cell in cells.of(found)] == [
        ("", "mine:network (BatchNorm)", ""),
        ("", "its own BatchNorm", "BatchNorm"),
        ("", "GroupNorm", ""),
    ]
    summary = said(found)
    assert summary.lead == (
        "After PGD adversarial training, mine:network (BatchNorm) is right on 23.0% of images under attack, before on 2.0%; "
        "without an attack on 70.0%, before on 90.0%."
    )
    assert "The alternative to BatchNorm is not measurably more robust" in summary.rest
    assert (
        dict(summary.findings)["Before and after: mine:network (BatchNorm)"][0]
        == "Before: worst case 2.0% [0.0, 6.0], clean 90.0%."
    )
    assert card.compared(cells.of(found))[1].startswith(
        "mine:network (BatchNorm), and 2 normalizations in mine:network, each with PGD adversarial training. On 500"
    )
    assert "this may be chance" in said([given(worst=0.2), trained("gn", 0.21)]).lead
    before, after = (
        dataclasses.replace(one, evaluation=dataclasses.replace(one.evaluation, standing="1" * right + "0" * (500 - right)))
        for one, right in ((given(worst=0.2), 100), (trained("gn", 0.214), 107))
    )  # seven images gained, none lost: image by image no chance, by intervals it would be
    assert "chance" not in said([before, after]).lead
    assert "The luck of these 500 images does not explain the gain" in dict(said([before, after]).cautions)
    others = [trained("gn", 0.2, label=str(number)) for number in range(4)]
    assert "this may be chance" in said([before, after, *others]).lead  # one of five: p = 5/64
    assert not any("gain" in about for about, _ in said([given(), trained("gn", 0.01)]).cautions)
    with pytest.raises(ValueError, match="standing is not what robust_accuracy says"):
        dataclasses.replace(before.evaluation, standing="1" * 99 + "0" * 401)
    assert said([given(), trained("gn", 0.01)]).lead.startswith(
        "No training made mine:network (BatchNorm) more robust: under attack it is right on 2.0%"
    )


@pytest.mark.parametrize(
    "other", [{"weights": "other.pt"}, {"network": "mine:other"}, {"craft_on": "runs/a"}, {"batch_size": 1}]
)
def test_a_network_of_other_weights_or_measured_otherwise_is_no_before(other):
    found = [given(**other), trained("gn", 0.23)]
    assert "before on" not in words(found)
    assert "As given\nmine:" in words(found)


def test_settings_are_told_apart_in_words():
    found = [given(), given(craft_on="runs/a", attacks=[{"name": "pgd", "steps": 10}])]
    assert [cell.setting for cell in cells.of(found)] == [
        "digits (made on the network itself, attacked by FGSM and PGD-20)",
        "digits (made on runs/a, attacked by PGD-10)",
    ]


def dead(one):
    """The same record, had almost all images got one class."""
    check = Check(name=NAME, status="warn", measured="100%", why="useless")
    return dataclasses.replace(one, evaluation=dataclasses.replace(one.evaluation, checks=(*one.evaluation.checks, check)))


def test_a_dead_network_never_wins():
    found = [result("bn", worst=0.1), dead(result("gn", worst=0.9)), result("none", worst=0.12)]
    assert said(found).lead.startswith("The alternative to BatchNorm is not measurably more robust")
    assert "no norm with standard training, 12.0%" in said(found).rest
    assert "GroupNorm with standard training: 90.0%" in words(found)
    assert said([dead(one) for one in found]).lead.endswith("this is no robustness.")
    assert said([dead(found[0])]).lead == said([dead(one) for one in found]).lead
    assert "before on" not in said([dead(given(worst=0.3)), trained("gn", 0.4)]).lead
    assert "with GroupNorm, mine" in said([given(), trained("gn", 0.2), dead(trained("bn", 0.9))]).lead


def test_equal_names_are_told_apart_by_their_options():
    one, other = result("rnt"), result("rnt")
    one.experiment["norm"]["power"], other.experiment["norm"]["power"] = 0.2, 0.5
    assert [cell.norm for cell in cells.of([one, other])] == [
        "RobustNorm, tracked (power=0.2)",
        "RobustNorm, tracked (power=0.5)",
    ]


def test_one_network_that_was_not_trained_here_makes_a_report(tmp_path):
    whole = result(worst=0.25)
    settings = {"model": "package.module:network", "weights": "", "threat": whole.experiment["threat"], "seed": 0}
    text = write(
        tmp_path, [Result(name="evaluate", experiment=settings, training=None, evaluation=whole.evaluation)]
    ).read_text()
    assert "25.0% of test images stay correctly classified under attack, 90.0% without." in html.unescape(text)
    assert "package.module:network" in text
    assert [path.name for path in sorted((tmp_path / "figures").iterdir())] == ["accuracy.png", "accuracy.svg"]
    with pytest.raises(ValueError, match="at least one result"):
        write(tmp_path, [])


def test_curves_are_drawn_with_their_numbers_and_published_models_stand_beside(tmp_path):
    def over(name, values):
        return Curve(over=name, values=values, scores=tuple(score(0.9 - 0.2 * k) for k in range(len(values))))

    curves = over("eps", (0.0, 2 / 255, 8 / 255)), over("steps", (1, 10))
    results = [result("bn"), result("gn")]
    results = [dataclasses.replace(r, evaluation=dataclasses.replace(r.evaluation, curves=curves)) for r in results]
    entry = Entry(name=HOSTILE, eps="8/255", clean_acc="87.03", autoattack_acc="49.25", unreliable=True)
    path = page.write(tmp_path, results, title="curves", provenance={}, published=[entry])
    text = html.unescape(path.read_text())
    assert {"eps.svg", "steps.svg"} <= {found.name for found in (tmp_path / "figures").iterdir()}
    for row in ("2/255", "8/255", "Accuracy over the radius", "Accuracy over the attack's steps", "87.03%", "49.2%"):
        assert row in text
    assert "<script>alert" not in path.read_text()


def test_markdown_and_latex_hold_the_rows_of_the_page():
    lines = tables.to_markdown(results := grid()).split("\n\n")[0].splitlines()
    assert len(lines) == 14
    assert len({line.count("|") for line in lines}) == 1
    line = "| GroupNorm | standard | sample | no | 90.0% (86.0–94.0) | 10.0% (6.0–14.0) | 5.0% (1.0–9.0) | 5.0% (1.0–9.0) | 1 | 22.0 s |"
    assert any(row.startswith(line) and row.endswith("| 500 images |") for row in lines)
    rows = [line for line in tables.to_latex(results).splitlines() if line.endswith("\\\\")]
    assert len(rows) == 13
    assert {row.count("&") for row in rows} == {lines[0].count("|") - 2}
    assert rows[5].startswith("GroupNorm & standard & sample & no & 90.0\\% (86.0--94.0) & ")
    columns, shown = tables.main(cells.of(results))
    assert len(shown) == len(rows) - 1
    assert len(columns) == rows[0].count("&")  # and n, which the page writes below each figure


def paired(one, protocol):
    """The same record, had stronger attacks searched on what the protocol's left standing."""
    strongest = [{"name": "apgd", "steps": 50, "label": "apgd-ce"}]
    more = {"strongest": strongest, "protocol_accuracy": score(protocol, one.evaluation.coupled)}
    return dataclasses.replace(one, evaluation=dataclasses.replace(one.evaluation, **more))


def test_the_pair_stands_in_every_table_and_comparisons_stand_on_the_strongest(tmp_path):
    results = [paired(result("bn", worst=0.3), 0.33), paired(result("gn", worst=0.31), 0.6)]
    found = cells.of(results)
    text = words(results)
    assert said(results).lead.startswith(
        "The alternative to BatchNorm is not measurably more robust"
    )  # though its protocol says so
    assert "lowered the accuracy by up to 29.0 points: 31.0% instead of 60.0% (GroupNorm, standard training)." in text
    assert "Best worst case: GroupNorm, 31.0% [27.0, 35.0]; under the protocol alone 60.0%." in text
    assert "31.0% [27.0, 35.0] in the worst case (60.0% under the protocol alone)" in text
    assert "FGSM, PGD-20 and APGD-CE is an upper bound" in text
    assert "are the same" not in text
    titles, rows = tables.main(found)
    pair = [column.title for column in titles].index("Protocol")
    assert [[value.text for value in row.values[pair : pair + 2]] for row in rows] == [
        ["33.0%", "30.0%"],
        ["60.0%", "31.0%"],
    ]
    head, _, first, *_ = tables.to_markdown(results).splitlines()
    assert "| Protocol | Worst case |" in head
    assert "| 33.0% (29.0–37.0) | 30.0% (26.0–34.0) |" in first
    assert "33.0\\% (29.0--37.0) & 30.0\\% (26.0--34.0)" in tables.to_latex(results)
    lines = list(csv.DictReader(tables.to_csv(results).splitlines()))
    assert [(line["protocol_value"], line["worst_case_value"], line["strongest"]) for line in lines] == [
        ("0.33", "0.3", "apgd-ce"),
        ("0.6", "0.31", "apgd-ce"),
    ]
    assert "on the images that these left correct: APGD-CE, steps 50" in card.of(results[0]).attacks
    assert "on every batch again: APGD-CE, steps 50" in card.of(paired(result("rn"), 0.5)).attacks
    page_text = html.unescape(write(tmp_path, results).read_text())
    assert "Stronger attacks then searched on the images that these left correct" in page_text
    assert page_text.count("60.0%<small>56.0–64.0") == 2  # behind both figures


def with_single(one, value):
    """The same record, had single rows been attacked among clean neighbours too."""
    of = Score(value=value, low=value - 0.1, high=value + 0.1, n=32, unit="rows", rows=32)
    return dataclasses.replace(one, evaluation=dataclasses.replace(one.evaluation, single=of))


@pytest.mark.parametrize(("value", "worst", "which"), [(0.25, "25.0%", "single"), (0.5, "40.0%", "joint")])
def test_of_coupled_rows_the_lower_of_joint_and_single_counts_and_both_are_shown(tmp_path, value, worst, which):
    results = [result("bn", worst=0.3), with_single(result("bnwot", worst=0.4), value)]
    titles, rows = tables.main(cells.of(results))
    place = [column.title for column in titles].index("Joint")
    assert [column.title for column in titles[place : place + 3]] == ["Joint", "Single", "Worst case"]
    shown = [[one.text for one in row.values[place : place + 3]] for row in rows]
    assert shown == [["–", "–", "30.0%"], ["40.0%", f"{100 * value}%", worst]]
    assert rows[1].values[place + 2].small[-1] == which
    line = list(csv.DictReader(tables.to_csv(results).splitlines()))[1]
    assert [line[f"{name}_value"] for name in ("joint", "single", "worst_case")] == ["0.4", str(value), f"{min(0.4, value)}"]
    text = words(results[1:])
    assert f"{worst} of test images stay correctly classified under attack" in text
    assert {"single": "whole batches 40.0%", "joint": "one image among clean neighbours 50.0%"}[which] in text
    assert "PGD-20 on each of 32 images; the lower of both figures counts" in card.of(results[1]).changes[1]
    whole = html.unescape(write(tmp_path, results).read_text())
    assert "The worst case is the lower of Joint and Single" in whole
    (tmp_path / "one.json").write_text(json.dumps(plain(results[1])))
    assert read_result(tmp_path / "one.json") == results[1]


def test_where_nothing_stronger_searched_the_pair_is_one_number_and_said_to_be(bench):
    old = grid()
    assert {cell.protocol == cell.worst for cell in cells.of(old)} == {True}
    assert "Protocol" not in [column.title for column in tables.main(cells.of(old))[0]]
    assert "the protocol's figure and the worst case are the same" in words(old)
    assert "No attack searched after FGSM and PGD-20" in html.unescape((bench[0] / "report.html").read_text())


def test_networks_of_one_recipe_that_began_otherwise_are_rows_of_one_setting():
    grid_row, tuned = result("bn"), result("bn")
    tuned.experiment["start"] = "runs/standard"
    found = cells.of([grid_row, tuned])
    assert [cell.setting for cell in found] == ["", ""]
    assert [cell.recipe for cell in found] == ["standard (from random weights)", "standard (from runs/standard)"]


def test_what_a_bench_trains_first_has_one_name_for_all_seeds_and_those_of_two_benches_are_two():
    starts = ("a/pretrained/other-seed0", "a/pretrained/other-seed1", "b/pretrained/other-seed0", "b/pretrained/other-seed7")
    rows = [result("bn", seed=seed) for seed in (0, 1, 0, 1)]
    for row, start in zip(rows, starts, strict=True):
        row.experiment["start"] = start
    found = cells.of([result("bn", seed=0), *rows])
    assert [len(cell.results) for cell in found] == [1, 2, 1, 1]
    assert [cell.recipe for cell in found][1:3] == ["standard (from other)", "standard (from other) #2"]


def test_several_seeds_are_compared_with_a_t_for_all_comparisons():
    one, other = (
        [result(norm, worst=worst + 0.01 * seed, seed=seed) for seed in (0, 1, 2)]
        for norm, worst in (("gn", 0.3), ("bn", 0.1))
    )
    (high, low) = cells.of([*one, *other])
    assert cells.beyond_chance(high, low, 1)
    assert not cells.beyond_chance(high, low, 10_000)
    scores = [r.evaluation.robust_accuracy for r in one]
    assert cells.over_seeds(scores, 12).high - cells.over_seeds(scores, 12).value > 1.46 * (
        cells.over_seeds(scores).high - cells.over_seeds(scores).value
    )


def test_every_figure_leads_to_the_card_it_was_measured_under(bench):
    tags = Tags((bench[0] / "report.html").read_text()).found
    ids = {attributes["id"] for _, attributes in tags if attributes.get("id", "").startswith("card-")}
    leads = [attributes["href"] for tag, attributes in tags if tag == "a" and attributes.get("class") == "carded"]
    assert ids == {"card-1", "card-2"}  # independent and coupled rows
    assert set(leads) == {"#card-1", "#card-2"}
    assert len(leads) == 12 * (2 + 4)  # clean and worst case; behind the fold the two attacks too


@pytest.mark.parametrize(("norm", "changes"), [("bn", "each image alone"), ("rn", "all images of a batch together")])
def test_a_card_says_who_changes_what(norm, changes):
    lines = dict(card.of(result(norm)).lines)
    assert lines["The attacker changes"][0].startswith(changes)
    assert "51/255" in lines["Threat model"][0]
    assert [line.split(":")[0] for line in lines["Attacks"]] == ["FGSM", "PGD-20"]
    assert lines["Checked on"] == ["500 test images of digits, in fixed batches of 25, the network in eval mode"]
