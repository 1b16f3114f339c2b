"""Records: JSON there and back, written whole or not at all."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from normwise.attacks import ATTACKS, FGSM, PGD
from normwise.checkout import commit
from normwise.data import DATA
from normwise.diagnostics import DIAGNOSES
from normwise.evaluation.acceleration import Speed
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.experiments.papers.cell import Cell
from normwise.experiments.papers.scale import Scale
from normwise.models import MODELS
from normwise.norms import NORMS
from normwise.records import Result, Several, Substitute, Training, provenance, read_result, to_json, write
from normwise.registry import DIGEST_VERSION, Registry, as_json, changed, plain
from normwise.threats import THREATS, Linf
from normwise.training.recipes import RECIPES
from normwise.training.schedule import Schedule
from normwise.types import Batch
from toys import images, labels, trained

REGISTRIES = [ATTACKS, DATA, DIAGNOSES, MODELS, NORMS, RECIPES, THREATS]


def result():
    batches = [Batch(images(), labels(), labels())]
    evaluation = evaluate(trained(), batches, Linf(), (FGSM(), PGD(steps=2))).evaluation
    training = Training(
        seconds=1.5,
        forwards=3,
        backwards=2,
        epochs=1,
        best_epoch=1,
        validation={"clean": 0.5},
        parameters=9,
        trained_parameters=8,
    )
    return Result(name="one", experiment={"norm": plain(NORMS["rn"]())}, training=training, evaluation=evaluation)


def test_a_result_is_the_same_after_json(tmp_path):
    before = result()
    path = write(tmp_path / "result.json", to_json(before))
    assert read_result(path) == before
    assert to_json(read_result(path)) == to_json(before)


def test_an_unknown_key_of_a_later_version_is_left_aside_and_a_foreign_file_is_refused(tmp_path):
    data = json.loads(to_json(result()))
    (tmp_path / "later.json").write_text(json.dumps(data | {"later": 1}))
    assert read_result(tmp_path / "later.json").name == "one"
    for name, text in [
        ("foreign.json", "[1]"),
        ("cut.json", to_json(result())[:200]),
        ("other.json", json.dumps(data | {"schema": 99})),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=name):
            read_result(tmp_path / name)


def test_a_record_from_before_the_pair_is_read_as_one_number(tmp_path):
    before = result()
    data = json.loads(to_json(before))
    for key in ("strongest", "protocol_accuracy"):
        del data["evaluation"][key]
    del data["substitute"]
    read = read_result(write(tmp_path / "old.json", json.dumps(data)))
    assert read == before
    assert read.evaluation.pair == (before.evaluation.robust_accuracy,) * 2


def test_a_pair_and_a_substitute_are_the_same_after_json(tmp_path):
    batches = [Batch(images(), labels(), labels())]
    evaluation = evaluate(trained(), batches, AttackPlan(Linf(), (FGSM(),), strongest=(PGD(steps=2),))).evaluation
    heard = Substitute(source="runs/a", trained_on=plain(DATA["digits"]()), clean_accuracy=evaluation.clean_accuracy)
    before = dataclasses.replace(result(), evaluation=evaluation, substitute=heard)
    assert read_result(write(tmp_path / "result.json", to_json(before))) == before


def test_several_attackers_are_the_same_after_json(tmp_path):
    one = result()
    score = one.evaluation.clean_accuracy
    several = Several(evaluations={"roa": one.evaluation}, mean=score, union=score, oracle={"clean": score})
    before = dataclasses.replace(one, several=several)
    assert read_result(write(tmp_path / "result.json", to_json(before))) == before


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = write(tmp_path / "a" / "file.txt", "one")
    with pytest.raises(TypeError):
        write(path, 3)
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_the_record_says_what_ran():
    found = provenance()
    assert set(found) == {"command", "commit", "hardware", "versions"}
    assert found["hardware"]["threads"] == 1


def test_the_commit_is_that_of_the_code_when_it_began(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True).stdout

    def now(folder):
        commit.cache_clear()
        return commit(folder)

    code, ignored = tmp_path / "code", tmp_path / "venv"
    for folder in (code, ignored):
        write(folder / "file.py", "1")
    write(tmp_path / ".gitignore", "venv")
    assert now(code) is None  # no checkout
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "1")
    head = git("rev-parse", "HEAD").strip()
    assert now(code) == head
    assert now(ignored) is None  # installed inside somebody's own checkout
    write(code / "file.py", "2")
    assert now(code) == head + "-dirty"
    git("commit", "-qam", "2")
    assert commit(code) == head + "-dirty"  # what began goes on to be what it was
    assert now(code) == git("rev-parse", "HEAD").strip()
    monkeypatch.setenv("PATH", "")
    assert now(code) is None


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_every_choice_is_itself_after_plain_data(registry):
    for name, choice in registry.items():
        if name == "npz":
            continue  # needs a path
        one = choice()
        assert registry.make(plain(one)) == one
        assert registry.make(json.loads(json.dumps(plain(one)))) == one
        assert registry.make(name) == one
        assert plain(one)["name"] == name


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
def test_a_wrong_name_or_option_is_answered_with_the_nearest(registry):
    name = next(iter(registry))
    with pytest.raises(ValueError, match=f"no {registry.kind} is named '{name}x'; did you mean '{name}'?"):
        registry[name + "x"]
    with pytest.raises(ValueError, match=f"no option of {registry.kind} '{name}' is named 'nonsense'"):
        registry.make({"name": name, "nonsense": 1})


def test_a_wrong_type_is_named():
    with pytest.raises(ValueError, match="steps of attack 'pgd' is 'many'; expected int"):
        ATTACKS.make({"name": "pgd", "steps": "many"})


def test_equal_names_and_imported_classes_are_kept_out():
    class One:
        name = "same"

    class Two:
        name = "same"

    with pytest.raises(ValueError, match="two things are named 'same'"):
        Registry("thing", __name__, {"One": One, "Two": Two})
    assert "One" not in Registry("thing", "elsewhere", {"One": One})


def defaults():
    """Every option with a default of what digests and random draws stand on."""
    kinds = [*ATTACKS.values(), *THREATS.values(), *RECIPES.values(), *NORMS.values(), *DATA.values(), *MODELS.values()]
    kinds += [Schedule, Speed, Cell, Scale]
    given = {
        f"{kind.__module__.removeprefix('normwise.')}.{kind.__name__}": {
            field.name: as_json(field.default)
            for field in dataclasses.fields(kind)
            if field.default is not dataclasses.MISSING
        }
        for kind in kinds
    }
    return {name: options for name, options in sorted(given.items()) if options}


def test_a_default_changes_with_the_version_of_digests_alone():
    """Digests leave out what is at its default: who changes one raises `DIGEST_VERSION`, and writes this file anew."""
    path = Path(__file__).parent.parent / "facts/given/defaults.json"
    known = json.loads(path.read_text())
    assert known["digest_version"] == DIGEST_VERSION
    now = defaults()
    for name, options in known["defaults"].items():
        assert {key: now[name].get(key) for key in options} == options, f"{name}: raise DIGEST_VERSION"
    assert {name: list(options) for name, options in now.items()} == {
        name: list(options) for name, options in known["defaults"].items()
    }, "an option is new: add it to defaults.json"


def test_what_was_kept_before_an_option_came_is_the_same_with_it():
    before = {"name": "pgd", "steps": 5}
    assert changed(before, PGD(steps=5)) == ""
    assert changed(before, PGD(steps=5, restarts=2)) == ".restarts was 1, not 2"[1:]
    assert changed({"attacks": [before, before]}, {"attacks": (PGD(steps=5), PGD(steps=6))}).startswith("attacks was")
    assert changed({**before, "sparkle": 1}, PGD(steps=5)) == "sparkle was 1, not null"
    assert changed({"name": "fgsm"}, PGD()) == 'name was "fgsm", not "pgd"'
