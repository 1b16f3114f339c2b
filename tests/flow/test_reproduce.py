"""`normwise reproduce`: made once, found again, refused in one line."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from normwise.__main__ import main
from normwise.attacks import PGD
from normwise.data import CORRUPTIONS, Digits
from normwise.data.corruptions import corrupted
from normwise.evaluation.evaluator import evaluate
from normwise.experiments.papers import figures
from normwise.experiments.papers.attackers import ATTACKERS, GROWING, NORMALIZED, TARGET
from normwise.experiments.papers.cell import built
from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.claims_large import claims_of
from normwise.experiments.papers.judging import measured
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.published import file_of
from normwise.experiments.papers.run import Reproduce, _before, planned, reproduce
from normwise.experiments.papers.scale import HISTORY, SCALES, smoke
from normwise.experiments.papers.starts import inflated, pictures
from normwise.experiments.papers.tables import extra_tables
from normwise.norms import BN, GN
from normwise.registry import digest_text
from normwise.training.loop import fit
from normwise.types import Batch, silent
from normwise.utils.model_state import digest
from toys import THREAT, Stripes, balanced, batches, trained


def say(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["reproduce", *map(str, words)])
    return status, out.getvalue(), err.getvalue()


def cell(folder: Path, name: str) -> Path:
    """The folder of a cell of the smallest size."""
    return CellStore(CELLS, smoke(), folder, silent).place(name, 0)


def record_of(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((cell(folder, name) / "record.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reproduce")
    status, said, err = say(
        "robustnorm",
        "--only",
        "[bnwot,bn-standard-corrupted,bn-standard-autoattack,bnwot-attackers,bn-standard-attackers]",
        "--out",
        out,
    )
    assert status == 0, err
    assert re.search(r"not decided \(this size .*smoke", said)
    return out


def test_records_and_claims_say_what_was_done(folder):
    table = json.loads((folder / "claims.json").read_text())
    assert {"claim", "system", "number", "paper", "protocol", "strongest", "verdict", "n", "seeds"} <= set(table[0])
    assert {one["verdict"] for one in table} == {"not decided"}
    for name in ("bn-standard", "bnwot"):  # what it needs was made too
        record = record_of(folder, name)
        assert {"command", "commit", "hardware", "versions", "seed", "seconds", "figures"} <= set(record)
        for side in ("paper", "strongest"):
            shares = list(record["figures"][side].values())
            assert shares == sorted(shares, reverse=True) or record["figures"]["coupled"]
    record = record_of(folder, "bn-standard")
    assert set(record["figures"]["drift"]) == {"clean", "noise", "adversarial"}
    assert set(record["figures"]["legacy"]) == {"0.004", "0.008", "0.02", "0.03"}
    assert "| `bnwot` | the same, reading the batch at inference; coupled images" in (folder / "claims.md").read_text()


def test_every_arm_is_tuned_and_its_record_says_how(folder):
    """The search of seed 0 serves the other seeds; an arm that does not train has none."""
    record = record_of(folder, "bn-standard")
    search = record["training"]["search"]
    assert [one["rate"] for one in search["tries"]] == list(smoke().rates)
    assert (search["seed"], search["edge"], record["training"]["lr"]) == (0, False, smoke().rates[0])
    assert search["forwards"] > 0 < search["seconds"]
    assert (cell(folder, "bn-standard") / "search.json").exists()
    assert record_of(folder, "bnwot")["training"] is None
    figures = record["figures"]
    assert (figures["classes"], len(figures["labels"].split())) == (10, len(figures["rows"]["paper"]["0"]))
    assert 1 <= figures["answered"] <= 10
    store = CellStore(CELLS, smoke(), folder, silent)
    assert store._search(CELLS["bn-standard"], store.scale.tuning).to_record() == {
        key: value for key, value in search.items() if key != "seed"
    }  # found, not made again


def test_a_record_without_weights_trains_again_where_another_cell_needs_it(tmp_path):
    """As the records of a repository, which have none: the record stays, and the new weights are the old ones."""
    settings = Reproduce(preset="smoke", only=("bn-foreign",), seeds=1)
    reproduce(settings, tmp_path, silent)
    kept = {path: path.read_bytes() for path in cell(tmp_path, "bn-foreign").iterdir()}
    for path in kept:
        if path.suffix != ".json" or path.name == "model.json":
            path.unlink()
    reproduce(replace(settings, only=("fine-tuned",)), tmp_path, silent)
    assert record_of(tmp_path, "fine-tuned")["needs"] == {
        "bn-foreign": record_of(tmp_path, "bn-foreign")["figures"]["clean"]
    }
    for path, old in kept.items():
        if path.name in ("record.json", "model.safetensors"):
            assert path.read_bytes() == old
    again = json.loads((cell(tmp_path, "bn-foreign") / "again.json").read_text())
    assert again["loss"] == again["recorded"]
    assert not CellStore(CELLS, smoke(), tmp_path, silent).records()[0]["bn-foreign"]["again"]


def test_the_seed_that_tunes_is_judged_on_rows_of_its_own_and_its_rate_serves_the_others(tmp_path):
    store = CellStore(CELLS, replace(smoke(), first=1), tmp_path, silent)
    tuning, deciding = (store.make("bn-eighth", seed) for seed in (0, 1))
    assert tuning["training"]["search"] == deciding["training"]["search"]
    assert tuning["figures"]["labels"] != deciding["figures"]["labels"]
    assert [one["scale"]["data"]["split_seed"] for one in (tuning, deciding)] == [0, 1]
    assert not list(tmp_path.glob("cells/bn-eighth-seed1-*/search.json"))


def test_a_published_network_is_known_by_its_file(tmp_path):
    (tmp_path / "akamaster_resnet20_cifar10.th").write_bytes(b"another")
    with pytest.raises(ValueError, match="expected 12fca82f"):
        file_of(replace(SCALES["l"](), published=str(tmp_path)), 20)


def test_too_few_validation_rows_choose_no_rate(tmp_path):
    few = replace(smoke(), tuning=replace(smoke().tuning, rows=1000))
    with pytest.raises(ValueError, match="on 1000 validation rows or more; the data has 200"):
        CellStore(CELLS, few, tmp_path, silent).make("bn-eighth", 0)


def test_a_cell_of_a_later_seed_waits_for_the_seed_that_tunes_it():
    settings = Reproduce(preset="s", only=("bnwot",), seeds=1)
    assert planned(settings) == [("bn-standard", 0), ("bnwot", 0), ("bn-standard", 1), ("bnwot", 1)]
    assert _before(("bn-standard", 1), settings.scale) == [("bn-standard", 0)]
    assert _before(("bnwot", 1), settings.scale) == [("bn-standard", 1)]


def test_networks_for_clips_are_made_at_the_size_that_has_clips(tmp_path):
    claims = {preset: next(one for one in claims_of(preset) if one.number == "12") for preset in ("smoke", "s", "m")}
    assert claims["smoke"].cells == claims["s"].cells == ("abnn-clips", "bn-clips")
    assert claims["m"].measure is None
    store = CellStore(CELLS, smoke(), tmp_path, silent)
    clips = store.scale_of(CELLS["bn-clips"]).data.test(batch_size=2)[0].x
    assert store.untrained("bn-clips", 0).eval()(clips).shape == (2, 4)
    network = inflated(store.scale_of(CELLS["abnn-clips"]), pictures(4)(store.scale))
    assert network.eval()(clips).shape == (2, 4)
    with pytest.raises(ValueError, match="bn-clips is made of clips, and this size has none"):
        CellStore(CELLS, SCALES["m"](), tmp_path, silent).schedule(CELLS["bn-clips"])
    assert [store.scale_of(CELLS[name]).data.axis for name in ("bn-clips", "bn-clips-other")] == ["horizontal", "vertical"]


@pytest.mark.parametrize("name", ["bn-standard-columns", "bn-clips-columns"])
def test_columns_hold_each_attacker_their_mean_and_their_union(name, tmp_path):
    store = CellStore(CELLS, replace(smoke(), batch_size=10), tmp_path, silent)
    scale = store.scale_of(CELLS[name])
    found = measured(CELLS[name], store.untrained(CELLS[name].needs[0], 0), replace(scale, batch_size=10), 0)
    columns = found["columns"]
    assert list(columns) == ["linf", "l2", "multav", "roa", "af", "spa", "mean", "union"]
    assert all(one["strongest"] <= one["protocol"] <= found["clean"] for one in columns.values())
    each = [one["strongest"] for kind, one in columns.items() if kind not in ("mean", "union")]
    assert columns["mean"]["strongest"] == pytest.approx(sum(each) / 6)
    assert columns["union"]["strongest"] <= min(each)
    (table,) = (
        one for one in extra_tables({name: [{"training": None, "figures": found}]}) if one.title == "Several attackers"
    )
    assert len(table.rows[0]) == len(table.heads) == 11


def test_a_corrupted_cell_holds_what_the_network_answers(folder):
    figures = record_of(folder, "bn-standard-corrupted")["figures"]
    assert {kind: list(each) for kind, each in figures["corruptions"].items()} == {
        kind: list("12345") for kind in CORRUPTIONS
    }
    store = CellStore(CELLS, smoke(), folder, silent)
    network, (first, *_) = store.network("bn-standard", 0), store.scale.data.test(batch_size=50)
    for bits, batch in (
        (figures["rows"]["clean"], first),
        (figures["rows"]["corruptions"]["fog"]["3"], corrupted(first, CORRUPTIONS["fog"], 3)),
    ):
        with torch.no_grad():
            assert bits == "".join("01"[right] for right in (network(batch.x).argmax(1) == batch.y).tolist())
    assert figures["corruptions"]["fog"]["3"] == figures["rows"]["corruptions"]["fog"]["3"].count("1") / 50
    assert "corrupted" not in (folder / "claims.md").read_text().split("| network |")[1]  # its figures are of no radius


def test_autoattack_is_asked_about_what_the_strongest_evaluation_left(folder):
    record, start = (record_of(folder, name) for name in ("bn-standard-autoattack", "bn-standard"))
    (key, after), *_ = record["figures"]["rows"]["strongest"].items()
    before = start["figures"]["rows"]["strongest"][key]
    assert float(key) == pytest.approx(smoke().eps / 8)
    assert all(one <= other for one, other in zip(after, before, strict=True))
    assert sum(record["figures"]["broken_by"].values()) == before.count("1") - after.count("1")
    assert record["figures"]["before"] == {key: start["figures"]["strongest"][key]}
    assert "## AutoAttack" in (folder / "claims.md").read_text()
    gpu, s = ([name for name, _ in planned(Reproduce(preset=preset))] for preset in ("gpu", "s"))
    alone = {name for name in set(s) - set(gpu) if not CELLS[name].clips}
    assert alone == {name for name, cell in CELLS.items() if cell.under == "autoattack"}  # asks of all anyway


def test_attackers_grow_and_the_illusions_of_older_protocols_stand_beside(folder):
    figures = {name: record_of(folder, f"{name}-attackers")["figures"] for name in ("bn-standard", "bnwot")}
    assert list(figures["bn-standard"]["attackers"]) == [name for name in ATTACKERS if name != TARGET]  # no ABNN
    assert list(figures["bnwot"]["attackers"]) == [NORMALIZED, *GROWING[:-1]]  # reads the batch already; rows are coupled
    for name, of in figures.items():
        kept = [of["clean"], *(of["attackers"][one] for one in GROWING if one in of["attackers"])]
        assert kept == sorted(kept, reverse=True)
        assert of["strongest"] == {f"{smoke().eps / 8:.6g}": kept[-1]}
        assert of["attackers"][NORMALIZED] >= kept[2]  # a smaller ball under the same attack
        start = record_of(folder, name)["figures"]
        assert (of["clean"], of["coupled"]) == (start["clean"], start["coupled"])
    written = (folder / "claims.md").read_text().split("## Where the effect of claim 2 comes from")[1]
    assert "| attacker | `bnwot` | `bn-standard` | difference |" in written
    assert f"| AutoAttack |  | {100 * figures['bn-standard']['attackers']['AutoAttack']:.1f} |  |" in written
    assert "Filled: bnwot; ring: bn-standard." in (folder / "claims.html").read_text()


def test_a_finished_cell_is_found_and_one_of_other_settings_is_made_again(folder):
    paths = {name: cell(folder, name) / "record.json" for name in ("bn-standard", "bnwot")}
    before = {name: path.stat().st_mtime_ns for name, path in paths.items()}
    record = json.loads(paths["bnwot"].read_text())
    paths["bnwot"].write_text(json.dumps(record | {"digest": "of other settings"}))
    assert say("robustnorm", "--only", "[bnwot]", "--out", folder)[0] == 0
    assert paths["bn-standard"].stat().st_mtime_ns == before["bn-standard"]
    assert json.loads(paths["bnwot"].read_text())["digest"] == record["digest"]


@pytest.mark.slow  # each worker imports torch; that a cell in other hands is left alone, the next test sees
def test_workers_side_by_side_make_what_one_makes_in_turn(folder, tmp_path):
    status, _, err = say(
        "robustnorm", "--only", "[bnwot,bn-eighth]", "--workers", 2, "--threads", torch.get_num_threads(), "--out", tmp_path
    )
    assert status == 0, err
    alone, beside = (record_of(out, "bnwot") for out in (folder, tmp_path))
    assert alone["figures"] == beside["figures"]
    made = {cell(tmp_path, name) for name in ("bn-standard", "bnwot", "bn-eighth")}
    assert set((tmp_path / "cells").iterdir()) == made


def test_a_cell_that_another_process_makes_is_left_to_it_and_waited_for(folder, tmp_path):
    (theirs := FileLock(tmp_path / "locks/bn-standard-seed0")).acquire()
    said = []

    def report(text, step, steps):
        said.append(text)
        if text.startswith("waiting for bn-standard-seed0"):
            shutil.copytree(cell(folder, "bn-standard"), cell(tmp_path, "bn-standard"))
            theirs.release()

    reproduce(Reproduce(only=("bn-standard", "bn-eighth")), tmp_path, report)
    assert said[0].startswith("bn-eighth")
    record, copied = ((cell(out, "bn-standard") / "record.json").read_bytes() for out in (folder, tmp_path))
    assert copied == record


class Elsewhere(torch.Tensor):
    """A tensor as on another device: nothing can be done with it before it is moved."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        assert func is torch.Tensor.to, f"{func} with a tensor on another device"
        with torch._C.DisableTorchFunctionSubclass():
            return args[0].as_subclass(torch.Tensor)


class Far(Stripes):
    def train(self, *, batch_size, generator):
        for x, y, ids in super().train(batch_size=batch_size, generator=generator):
            yield Batch(x.as_subclass(Elsewhere), y.as_subclass(Elsewhere), ids)


def test_what_is_computed_beside_the_verdict_moves_images_to_the_network():
    near = batches(2)
    far = [Batch(x.as_subclass(Elsewhere), y.as_subclass(Elsewhere), ids) for x, y, ids in near]
    for figure in (figures.drift, figures.smoothness):
        assert figure(trained(BN()), far, 0.05, 0) == figure(trained(BN()), near, 0.05, 0)
    begin = CELLS["statistics-fragile"].begin
    found = [digest(begin(replace(smoke(), data=data), trained(BN()))) for data in (Far(), Stripes())]
    assert found[0] == found[1]


def test_the_device_is_that_of_training_and_no_setting_of_a_cell(monkeypatch, tmp_path):
    class Stopped(Exception):
        pass

    def watched(model, *args, **options):
        assert {p.device for p in model.parameters()} == {torch.device("meta")}
        raise Stopped

    monkeypatch.setattr("normwise.experiments.papers.run.set_up_device", lambda settings: torch.device("meta"))
    monkeypatch.setattr("normwise.experiments.papers.cell_store.fit", watched)
    for name in ("bn-eighth", "affine-random"):  # one that trains whole, one of which a part trains
        with pytest.raises(Stopped):
            reproduce(Reproduce(only=(name,), device="cuda:1"), tmp_path, silent)
    here, there = (CellStore(CELLS, smoke(), tmp_path, lambda *report: None, device) for device in ("cpu", "meta"))
    assert here.digest("bnwot", 0) == there.digest("bnwot", 0)


def test_what_a_stopped_process_trained_counts_in_a_cells_seconds(monkeypatch, tmp_path):
    def resumed(*args, **options):
        fitted = fit(*args, **options)
        return fitted._replace(training=replace(fitted.training, seconds=1000 + fitted.training.seconds))

    monkeypatch.setattr("normwise.experiments.papers.cell_store.fit", resumed)
    record = CellStore(CELLS, smoke(), tmp_path, silent).make("bn-eighth", 0)
    assert 1000 < record["training"]["seconds"] < record["seconds"] < 1200


def test_at_every_size_the_network_without_norms_has_the_convolutions_of_the_one_with_norms():
    for make in SCALES.values():
        scale = replace(make(), data=Digits())
        shapes = [
            sorted(tuple(m.weight.shape) + m.stride for m in CELLS[name].begin(scale).modules() if isinstance(m, nn.Conv2d))
            for name in ("bn-at", "nofrost")
        ]
        without_shortcuts = [
            [shape for shape in each if shape[2] > 1] for each in shapes
        ]  # there an average halves the picture
        assert without_shortcuts[0] == without_shortcuts[1]


def test_controls_that_no_claim_needs_are_made_once():
    work = planned(Reproduce(preset="s"))
    seeds = {name: [seed for one, seed in work if one == name] for name, _ in work}
    assert (
        seeds["bn-standard"] == seeds["abnn-foreign"] == seeds["rnt-0.5-standard"] == [0, 1, 2, 3, 4, 5]
    )  # the first tunes, five decide
    assert seeds["bnm"] == seeds["head-fragile"] == seeds["bn-half-autoattack"] == [0]
    more = planned(Reproduce(preset="s", only=("bnm",), first_seed=6, seeds=1))
    assert more == [("bn-standard", 0), ("bn-standard", 6), ("bnm", 6)]
    later = planned(Reproduce(preset="l", published="there", first_seed=6))
    assert ("bn-published-20", 0) in later  # a premise reads it


def test_records_of_before_are_read_as_history_and_never_taken_for_cells_of_today():
    kept = Path(__file__).parents[2] / "results/reproduce/cpu"
    store = CellStore(CELLS, HISTORY["cpu"](), kept, silent)
    paths = list(kept.glob("cells/*/record.json"))
    assert len(paths) >= 17
    found = {(name, seed) for seed, each in store.records().items() for name in each}
    assert len(found) == len(paths)
    assert not [one for one in found if store.record(*one) is not None]


def test_a_record_of_before_is_shown_and_a_cell_is_made_beside_it(folder, tmp_path):
    """The first record stays where it is; what is made today has its settings in the name of its folder."""
    old = tmp_path / "cells/bn-standard-seed0"
    shutil.copytree(cell(folder, "bn-standard"), old)
    record = json.loads((old / "record.json").read_text())
    del record["digest_version"]
    record["figures"]["clean"] = 0.123
    (old / "record.json").write_text(json.dumps(record))
    store = CellStore(CELLS, smoke(), tmp_path, silent)
    assert store.record("bn-standard", 0) is None
    assert store.records()[0]["bn-standard"]["figures"]["clean"] == 0.123
    shutil.copytree(cell(folder, "bn-standard"), cell(tmp_path, "bn-standard"))
    assert store.records()[0]["bn-standard"]["figures"] == record_of(folder, "bn-standard")["figures"]
    assert json.loads((old / "record.json").read_text()) == record


def test_an_option_that_is_added_with_a_default_moves_no_digest_and_no_draw():
    """The same cell with an attack, a recipe, a schedule, a scale and a cell that know one option more."""

    def more(value, **changes):
        kind = type(value)
        longer = dataclasses.make_dataclass(
            kind.__name__, [("sparkle", int, 7)], bases=(kind,), frozen=True, kw_only=True, namespace={"__doc__": ""}
        )
        return longer(**{field.name: getattr(value, field.name) for field in dataclasses.fields(kind)} | changes)

    def digest_of(cell, scale):
        return CellStore({**CELLS, "bn-at": cell}, scale, Path(), silent).digest("bn-at", 0)

    scale, now = smoke(), CELLS["bn-at"]
    attacks = {"paper": more(scale.paper), "strongest": tuple(map(more, scale.strongest))}
    then, later = more(scale, robust=more(scale.robust), **attacks), more(now, recipe=lambda scale: more(now.recipe(scale)))
    ours = digest_of(now, scale)
    assert digest_of(later, then) == ours
    assert digest_of(more(later, sparkle=8), then) != ours
    assert digest_of(later, more(then, sparkle=8)) != ours
    assert digest_of(replace(now, begin=built(GN())), scale) != ours
    attack, model, parts = more(PGD(steps=3)), balanced(), batches()
    assert digest_text(attack) == digest_text(PGD(steps=3)) != digest_text(PGD(steps=4))
    assert torch.equal(*(evaluate(model, parts, THREAT, one).x_adv for one in (PGD(steps=3), attack)))


def test_cells_of_other_data_are_made_only_when_named_and_say_what_is_missing(tmp_path, monkeypatch):
    assert not {"other-standard", "abnn-other"} & {name for name, _ in planned(Reproduce(preset="s"))}
    asked = planned(Reproduce(preset="s", only=("abnn-other",), seeds=1))
    assert asked == [("other-standard", 0), ("abnn-other", 0), ("other-standard", 1), ("abnn-other", 1)]
    monkeypatch.setenv("NORMWISE_DATA", str(tmp_path))
    store = CellStore(CELLS, SCALES["s"](), tmp_path, silent)
    assert store.scale_of(CELLS["other-standard"]).data.size == 32
    assert store.scale_of(CELLS["abnn-other"], 1).data == replace(store.scale.data, split_seed=1)
    for preset, reason in (("s", f"put it at {tmp_path / 'tiny-imagenet-20'}"), ("smoke", "no data but digits comes")):
        status, _, err = say("abnn", "--preset", preset, "--only", "[abnn-other]", "--out", tmp_path / preset)
        assert (status, reason in err) == (2, True), err
    before = store.digest("other-standard", 0)
    (tmp_path / "elsewhere/tiny-imagenet-20").mkdir(parents=True)
    monkeypatch.setenv("NORMWISE_DATA", str(tmp_path / "elsewhere"))
    assert store.digest("other-standard", 0) == before  # where data lies is no setting
    assert store.digest("abnn-other", 0) != store.digest("abnn", 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["robustnrm"], "no system is named 'robustnrm'; did you mean 'robustnorm'?"),
        (["all", "--preset", "huge"], "no preset is named 'huge'"),
        (["all", "--preset", "cpu"], "nothing is made at preset cpu any more"),
        (["all", "--preset", "l"], "give --published FOLDER"),
        (["all", "--preset", "l", "--published", "nowhere"], "is not at nowhere/"),
        (["all", "--only", "[bnwt]"], "no cell is named 'bnwt'; did you mean 'bnwot'?"),
        (["all", "--only", ""], "--only needs a value; write --only VALUE, or see normwise reproduce --help"),
        (["all", "--max-minutes", "-1"], "are numbers >= 0"),
        (["all", "--threads", "1000000"], "threads is 1000000; give a whole number from 0"),
        (["all", "--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path):
    status, _out, err = say(*words, "--out", tmp_path)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
