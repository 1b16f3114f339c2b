"""RobustBench's files: what is written is what they store; what they store is read."""

import dataclasses
import json

import pytest

from normwise.attacks import AutoAttack, Square
from normwise.evaluation.acceleration import Speed
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.sanity_checks import crafted_elsewhere
from normwise.experiments import leaderboard
from normwise.registry import plain
from normwise.report import robustbench
from toys import THREAT, Neighbours, agreeing, balanced, batches

KEYS = ["link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps"]
KEYS += ["clean_acc", "reported", "autoattack_acc", "unreliable"]


QUICK = AutoAttack(steps=5, queries=20)


def judged(model=None, attacks=(QUICK,), give_up=False):
    """An evaluation by a quick AutoAttack, recorded as if it had been the published one."""
    model = model or balanced()
    e = evaluate(model, agreeing(model, batches(3)), THREAT, attacks).named("", {"name": "cifar10"}).evaluation
    scores = {name.removesuffix("-steps5-queries20"): score for name, score in e.per_attack.items()}
    recorded = [plain(AutoAttack()) if attack == plain(QUICK) else attack for attack in e.attacks]
    return dataclasses.replace(e, per_attack=scores, attacks=recorded, speed=e.speed | {"give_up": give_up})


def test_an_entry_is_written_as_the_leaderboard_stores_it():
    e = judged()
    found = leaderboard.entry(dataclasses.replace(e, threat={"name": "linf", "eps": 8 / 255}), name="Mine", venue="N/A")
    data = json.loads(found.to_json())
    assert list(data) == KEYS
    assert (data["eps"], data["clean_acc"], data["name"]) == ("8/255", "100.0", "Mine")
    assert data["autoattack_acc"] == str(round(100 * e.robust_accuracy.value, 2))
    assert data["unreliable"] is False
    assert found.to_json() == json.dumps(data, indent=2)
    assert leaderboard.entry(dataclasses.replace(e, threat={"name": "l2", "eps": 0.5})).eps == "0.5"


def test_a_lower_accuracy_by_another_attack_is_external_and_coupled_rows_are_unreliable():
    e = judged(attacks=(QUICK, Square(steps=300)))
    lower = dataclasses.replace(e.robust_accuracy, value=e.per_attack["autoattack-standard"].value - 0.1)
    found = leaderboard.entry(dataclasses.replace(e, robust_accuracy=lower, standing=""))
    assert found.robust == pytest.approx(lower.value, abs=1e-4)
    assert float(found.external) < float(found.autoattack_acc)
    elsewhere = leaderboard.entry(dataclasses.replace(e, checks=(*e.checks, crafted_elsewhere("other"))))
    assert elsewhere.unreliable
    assert "crafted on other" in elsewhere.footnote
    coupled = leaderboard.entry(judged(Neighbours(balanced())))
    assert coupled.unreliable
    assert "coupled" in coupled.footnote


def test_searches_that_may_give_up_are_told():
    assert judged(give_up=True).speed == plain(Speed())  # as it was evaluated
    for record in (judged(give_up=True), dataclasses.replace(judged(), speed={})):  # and of before it was recorded
        found = leaderboard.entry(record)
        assert (found.unreliable, found.footnote) == (False, leaderboard.GAVE_UP)
    assert leaderboard.entry(judged()).footnote is None


def test_their_files_are_read_and_others_refused(tmp_path):
    path = tmp_path / "Model.json"
    stored = {
        "name": "A model",
        "dataset": "cifar10",
        "eps": None,
        "clean_acc": "85.71",
        "autoattack_acc": "40.1",
        "external": "39.2",
    }
    path.write_text(json.dumps(stored | {"reported": "44.0", "footnote": None, "corruptions_acc": "70.0"}))
    assert robustbench.read(path).robust == pytest.approx(0.392)
    for text in ("{", "[]", '{"name": "x"}', json.dumps(stored | {"clean_acc": "high"})):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"Model.json is no RobustBench entry"):
            robustbench.read(path)


def test_what_is_read_is_written_again(tmp_path):
    path, written = tmp_path / "Model.json", robustbench.Entry(name="A model", dataset="imagenet", clean_acc="76.72")
    shares = {
        "corruptions_acc": "52.73",
        "corruptions_mce": "58.6",
        "corruptions_acc_3d": "53.7",
        "corruptions_mce_3d": "62.1",
    }
    stored = json.loads(written.to_json()) | shares | {"reported": "52.7", "footnote": "DeepAugment"}
    path.write_text(json.dumps(stored))
    assert json.loads(robustbench.read(path).to_json()) == stored


def test_what_the_leaderboard_does_not_have_is_refused():
    with pytest.raises(ValueError, match="needs autoattack-standard; got square-5"):
        leaderboard.entry(judged(attacks=(Square(steps=5),)))
    with pytest.raises(ValueError, match="linf and l2; got patch"):
        leaderboard.entry(dataclasses.replace(judged(), threat={"name": "patch", "eps": 1.0}))


def test_only_the_published_settings_are_the_leaderboards():
    with pytest.raises(ValueError, match="needs autoattack-standard; got autoattack-standard-steps1-queries1"):
        leaderboard.entry(judged(attacks=(AutoAttack(steps=1, queries=1),)))
    with pytest.raises(ValueError, match="with its published settings"):  # a record that calls other settings so
        leaderboard.entry(dataclasses.replace(judged(), attacks=[plain(QUICK)]))
