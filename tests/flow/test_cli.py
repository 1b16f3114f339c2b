"""The command line, as a person meets it: every verb, every way to say a setting, bad input, and a run that is cut off."""

from __future__ import annotations

import copy
import html
import importlib
import io
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

import normwise
from normwise.__main__ import main
from normwise.auditing.auditor import Claim, asked_already
from normwise.auditing.checks.record import read
from normwise.cli.examples import EXAMPLES
from normwise.cli.progress import bar
from normwise.data import ArrayFile, Digits, Mnist
from normwise.experiments.grid import Finished
from normwise.experiments.improve import Improve, run_improve
from normwise.experiments.substitutes import described
from normwise.records import read_result
from normwise.registry import plain
from normwise.threats import Linf
from normwise.types import silent
from normwise.utils.model_state import Identity
from normwise.utils.run_folder import keep_settings
from toys import some

SMALL = shlex.split(
    "--model.width 4 --data.train_limit 60 --data.test_limit 50 --schedule.epochs 1"
    " --attacks fgsm,pgd --strongest '[{name: apgd, steps: 3}]'"
)
NETS = """
import torch
from torch import nn

def net(classes=10, **options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 6 * 6, classes))

def three(): return net(3)
def wide(): return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 64, 20))
def number(): return 5
def coloured(): return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 36, 10))
def bare(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
def fails(): raise RuntimeError("no luck\\ntoday")
class Words(nn.Module):
    def forward(self, x): return {"logits": x}
"""


class Said(NamedTuple):
    status: Any
    out: str
    err: str


def say(*words: object) -> Said:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # after --help and --print_config
            status = stop.code
    return Said(status, out.getvalue(), err.getvalue())


def done(*words: object) -> str:
    status, out, err = say(*words)
    assert status == 0, err
    return out


def settings(*words: object) -> dict[str, Any]:
    return yaml.safe_load(done(*words, "--print_config"))


def figures(folder: Path | str) -> dict[str, Any]:
    e = json.loads((Path(folder) / "result.json").read_text())["evaluation"]
    return {name: e[name] for name in ("clean_accuracy", "per_attack", "robust_accuracy", "n", "forwards")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of training and a module of the user's own."""
    place = tmp_path_factory.mktemp("cli")
    done("train", *SMALL, "--schedule.epochs", 2, "--out", place / "run")
    (place / "nets.py").write_text(NETS)
    return place


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in that folder; what a test puts in OUT is gone after it."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    yield place
    shutil.rmtree("OUT", ignore_errors=True)


def test_train_leaves_the_run_and_says_what_came_out():
    said = say("train", "--config", "run/config.yaml", "--out", "OUT")
    assert {"config.yaml", "last.pt", "log.jsonl", "model.json", "model.safetensors", "result.json", "report.html"} <= {
        path.name for path in Path("OUT").iterdir()
    }
    assert [line.split()[0] for line in said.out.splitlines()[-6:-1]] == ["clean", "fgsm", "pgd-20", "protocol", "worst"]
    assert [line.split(":")[0] for line in said.err.splitlines()] == ["epoch 1/2", "epoch 2/2"]


@pytest.mark.parametrize(
    "words",
    [
        "train --config run/config.yaml",
        "evaluate run",
        "evaluate --model run",
        "evaluate run/model.safetensors",
        "evaluate --config run/config.yaml",
        "attack run",
    ],
)
def test_a_run_is_repeated_to_the_same_figures(words):
    done(*words.split(), "--out", "OUT")
    assert figures("OUT") == figures("run")


def test_an_evaluation_is_repeated_from_its_own_settings(tmp_path):
    done("evaluate", "run", "--threat.eps", "8/255", "--seed", 7, "--out", tmp_path / "one")
    done("evaluate", "--config", tmp_path / "one/config.yaml", "--out", tmp_path / "two")
    assert figures(tmp_path / "two") == figures(tmp_path / "one") != figures("run")


def test_the_same_command_finds_its_result_and_computes_nothing():
    before = {Path("run", file): Path("run", file).stat().st_mtime_ns for file in ("result.json", "last.pt", "log.jsonl")}
    done("train", *SMALL, "--schedule.epochs", 2, "--out", "run")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_attack_keeps_images_inside_the_threat_model():
    done("attack", "run", "--threat.eps", 0.1, "--out", "OUT")
    with np.load("OUT/images.npz") as kept:
        assert np.abs(kept["x_adv"] - kept["x"]).max() <= 0.1 + 1e-5
        assert len(kept["x"]) == len(kept["y"]) == len(kept["broken_by"]) == 50
        assert (kept["predictions"] != kept["y"]).sum() > (kept["clean_predictions"] != kept["y"]).sum()
    assert Path("OUT/images.png").read_bytes().startswith(b"\x89PNG")


def test_a_bench_is_whole_and_the_second_time_free(tmp_path):
    words = ["bench", *SMALL, "--norms", "bn,rn", "--recipes", "[standard, {name: adversarial, steps: 2}]", "--jobs", "2"]
    words += ["--out", str(tmp_path / "bench")]
    subprocess.run([sys.executable, "-m", "normwise", *words], check=True, capture_output=True)
    names = {"bn-standard", "bn-adversarial", "rn-standard", "rn-adversarial"}
    cells = sorted((tmp_path / "bench/cells").glob("*/result.json"))
    assert {path.parent.name for path in cells} == names
    for file in ("config.yaml", "report.html", "results.json", "results.csv"):
        assert (tmp_path / "bench" / file).stat().st_size > 100
    assert {path.suffix for path in (tmp_path / "bench/figures").iterdir()} == {".png", ".svg"}
    before = [path.stat().st_mtime_ns for path in cells]
    said = say(*words, "--jobs", 1)
    assert said.status == 0
    assert [path.stat().st_mtime_ns for path in cells] == before
    assert {line.split(":")[0] for line in said.err.splitlines()} == names
    for cell in cells:  # a record that was kept alone can be reported too
        cell.unlink()
    assert say("report", tmp_path / "bench/results.json", "--out", tmp_path / "page").status == 0  # or its folder
    both = [json.loads((tmp_path / folder / "results.json").read_text())["cells"] for folder in ("bench", "page")]
    assert both[0] == both[1]
    assert "holds 4 results" in say("audit", "run", "--claim", tmp_path / "bench/results.json").err


def test_a_bench_grows_in_its_folder_and_does_not_shrink():
    words = ["bench", *SMALL, "--recipes", "standard", "--jobs", 1, "--out", "OUT"]
    done(*words, "--norms", "bn")
    first = Path("OUT/cells/bn-standard/result.json").stat().st_mtime_ns
    done(*words, "--norms", "in,bn", "--seeds", 2)
    cells = json.loads(Path("OUT/results.json").read_text())["cells"]
    assert [one["name"] for one in cells] == ["in-standard", "bn-standard", "in-standard-seed1", "bn-standard-seed1"]
    assert Path("OUT/cells/bn-standard/result.json").stat().st_mtime_ns == first
    other, shifted = (
        "[in, {name: bn, eps: 0.1}]",
        "[{name: bn, eps: 0.1}, bn, in]",
    )  # the second would number its cells otherwise
    for norms, seeds in (("in,bn", 1), ("bn", 2), (other, 2), (shifted, 2)):
        assert "holds a run with other settings" in say(*words, "--norms", norms, "--seeds", seeds).err


def test_a_report_is_made_of_several_runs():
    done("evaluate", "run", "--seed", 1, "--out", "OUT/other")
    assert "OUT/both/report.html" in done("report", "run", "OUT/other", "--out", "OUT/both")
    assert len(json.loads(Path("OUT/both/results.json").read_text())["cells"]) == 2


def test_an_audit_leaves_a_page_and_several_stand_on_one():
    few = ["--data.test_limit", 10, "--rows", 10, "--batch_size", 5, "--twin", "none"]
    few += ["--budget", 0.05]  # what would begin later is not asked
    said = done("audit", "run", *few, "--claim", 0.9, "--out", "OUT/one")
    assert said.splitlines()[-2:] == ["report: OUT/one/audit.html", "record: OUT/one/audit.json"]
    checks = json.loads(Path("OUT/one/audit.json").read_text())["checks"]
    assert [line.split(": ")[0] for line in said.splitlines()[:2]] == [
        f"pass            {one['name']} (n = {one['n']})" for one in checks[:2]
    ]
    assert all("n" in one for one in checks)
    assert "<h1>Doubtful: claimed 90.0%, at most " in Path("OUT/one/audit.html").read_text()
    before = Path("OUT/one/audit.json").read_text()
    assert done("audit", "run", *few, "--claim", 0.9, "--out", "OUT/one") == said  # it is read, and not made again
    assert Path("OUT/one/audit.json").read_text() == before
    ended = read(Path("OUT/one/audit.json"))
    about, one = Identity(ended.digest, ended.settings), Path("OUT/one")
    asked = [asked_already(one, about, claim) for claim in (Claim(0.9), Claim(0.8), Claim(0.9, {"n": 5}))]
    assert asked == [ended, None, None]  # of a claim's file that has changed the audit is another one
    for other in ({"digest": "other"}, {"settings": "other"}):  # other weights, edited code
        assert asked_already(one, about._replace(**other), Claim(0.9)) is None
    Path("OUT/one/audit.json").write_text(before.replace('"verdict"', '"verdicts"'))
    broken = say("audit", "run", *few, "--claim", 0.9, "--out", "OUT/one")
    assert (broken.status, "OUT/one/audit.json is not the record of an audit" in broken.err) == (2, True)
    Path("OUT/one/audit.json").write_text(before)
    done("audit", "run", *few, "--out", "OUT/two")
    assert done("report", "OUT/one", "OUT/two", "--out", "OUT/both") == "report: OUT/both/audit.html\n"
    assert Path("OUT/both/audit.html").read_text().count("Threat card</h3>") == 2
    assert len(Path("OUT/both/audits.csv").read_text().splitlines()) == 3
    mixed = done("report", "OUT/one", "run", "--out", "OUT/mixed")
    assert mixed.splitlines() == ["report: OUT/mixed/audit.html", "report: OUT/mixed/report.html"]


def test_the_images_of_an_attack_stand_on_its_page_and_on_later_ones():
    done("attack", "run", "--threat.eps", 0.1, "--out", "OUT/one")
    done("report", "OUT/one", "run", "--out", "OUT/both")
    kept = json.loads(Path("OUT/one/examples.json").read_text())
    assert 0 < len(kept) <= 12
    for path in ("OUT/one/report.html", "OUT/both/report.html"):
        page = Path(path).read_text()
        assert page.count("<img ") == 3 * len(kept)
        assert all(one["adversarial_png"] in page for one in kept)
    assert "<img " not in Path("run/report.html").read_text()


JUDGING = {  # verb: (its words beside the network's, the file of its record)
    "evaluate": ("--data.test_limit 10 --attacks fgsm --strongest []", "result.json"),
    "train": ("--data.train_limit 20 --data.test_limit 10 --schedule.epochs 1 --attacks fgsm --strongest []", "result.json"),
    "audit": ("--rows 4 --twin none --budget 0.001", "audit.json"),
    "improve": (
        "--data.train_limit 40 --data.validation_size 20 --data.test_limit 10 --schedule.epochs 1 --rates [0.001] --rows 4"
        " --ways [pgd-at] --attacks fgsm --strongest [] --budget 0.001",
        "improve.json",
    ),
    "diagnose": ("--rows 4 --only gamma", "diagnose.json"),
    "shifts": ("--rows 4 --kinds [fog] --severities [1] --adapt []", "shifts.json"),
    "selftest": ("--rows 1 --attack fgsm", "selftest.json"),
}


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=pytest.mark.slow) if verb == "improve" else verb for verb in JUDGING]
)
def test_what_is_said_of_weights_is_in_the_terminal_and_on_the_record_and_every_kind_of_record_is_drawn_again(verb):
    """And every run folder holds its settings, by which it is known again."""
    import nets

    words, file = JUDGING[verb]
    said = say(verb, "nets:net", *words.split(), "--out", "OUT/one")
    assert said.status < 2, said.err
    record = json.loads(Path("OUT/one", file).read_text())
    kept = record["evaluation"]["provenance"] if "evaluation" in record else record.get("provenance", record)
    assert kept["weights"].startswith("no weights file was named for nets:net")
    assert f"weights: {kept['weights']}" in said.err.splitlines()
    assert yaml.safe_load(Path("OUT/one/config.yaml").read_text())["seed"] == 0
    torch.save({"ema": {f"module.{key}": value for key, value in nets.net().state_dict().items()}}, "around.pt")
    said = say(verb, "nets:net", "--weights", "around.pt", *words.split(), "--out", "OUT/two")
    for remark in ("its entry ema was read", "the prefix module. was taken off"):
        assert remark in said.err
        assert remark in html.unescape(Path("OUT/two", file).read_text())
    *_, page = done("report", "OUT/one", "--out", "OUT/page").splitlines()
    assert kept["weights"] in html.unescape(Path(page.removeprefix("report: ")).read_text())
    refused = say("report", "run", "--out", "OUT/page")
    assert (refused.status, "holds a run with other settings" in refused.err) == (2, True)


@pytest.mark.slow
def test_what_was_trained_to_improve_a_network_is_used_again_and_its_settings_train_it_again():
    words = ["improve", "nets:net", *JUDGING["improve"][0].split(), "--out", "OUT/one"]
    done(*words)
    cell = Path("OUT/one/cells/pgd-at")
    before = (cell / "result.json").stat().st_mtime_ns
    first = json.loads(Path("OUT/one/improve.json").read_text())
    done(*words, "--lose", 1, "--rows", 3)
    assert (cell / "result.json").stat().st_mtime_ns == before
    assert json.loads(Path("OUT/one/improve.json").read_text())["ways"][0]["worst"] == first["ways"][0]["worst"]
    assert json.loads(Path("OUT/one/audit-before/audit.json").read_text())["n"] in (0, 3)
    refused = say(*words, "--seed", 1)
    assert (refused.status, "holds a run with other settings" in refused.err) == (2, True)
    done("train", "--config", cell / "config.yaml", "--out", "OUT/two")
    accuracies = [
        json.loads((folder / "result.json").read_text())["evaluation"]["per_attack"] for folder in (cell, Path("OUT/two"))
    ]
    assert accuracies[0] == accuracies[1]


def test_the_claims_are_drawn_again_where_their_cells_are(monkeypatch):
    monkeypatch.setattr("normwise.experiments.papers.run.planned", lambda settings: [])
    done("reproduce", "--preset", "smoke", "--out", "OUT/one")
    assert yaml.safe_load(Path("OUT/one/config.yaml").read_text())["preset"] == "smoke"
    done("reproduce", "--preset", "smoke", "--seeds", 2, "--out", "OUT/one")  # which several runs share
    refused = say("reproduce", "--preset", "s", "--out", "OUT/one")
    assert (refused.status, "holds a run with other settings" in refused.err) == (2, True)
    done("report", "OUT/one", "--out", "OUT/page")
    assert Path("OUT/page/claims.html").read_text().count("normwise reproduce, preset smoke") > 0
    assert Path("OUT/page/claims.json").read_text() == Path("OUT/one/claims.json").read_text()


def test_several_diagnoses_are_drawn_side_by_side():
    for name in ("one", "two"):
        done("diagnose", "run", *JUDGING["diagnose"][0].split(), "--seed", len(name), "--out", f"OUT/{name}")
    pages = done("report", "OUT/one", "OUT/two", "--out", "OUT/both").splitlines()
    assert pages == [f"report: OUT/both/{name}/diagnose.html" for name in ("one", "two")]


def test_attacks_that_make_no_step_are_said_in_the_terminal_and_on_the_record():
    words = ["evaluate", "run", "--data.test_limit", 10, "--strongest", "[]", "--out"]
    out = done(*words, "OUT/one", "--attacks", "[{name: pgd, steps: 0}]")
    assert "warn: attacks search: no attack searched: pgd-0 makes no step" in out
    checks = json.loads(Path("OUT/one/result.json").read_text())["evaluation"]["checks"]
    assert [check["status"] for check in checks if check["name"] == "attacks search"] == ["warn"]
    assert "attacks search" not in done(*words, "OUT/two", "--attacks", "[{name: pgd, steps: 0}, {name: fgsm}]")


def test_the_record_of_a_network_trained_further_names_its_own_model_not_the_one_that_was_not_used():
    done("train", "run", *SMALL[2:], "--out", "OUT")
    assert json.loads(Path("OUT/result.json").read_text())["experiment"]["model"]["width"] == 4


@pytest.mark.parametrize("norm", ["null", "none"])
def test_null_and_none_are_both_words_for_a_network_that_normalizes_nothing(norm):
    done("train", "--model", "nfresnet", "--norm", norm, *SMALL, "--out", "OUT")


def test_shares_that_no_norm_can_read_are_said(here):
    said = say("shifts", "nets:bare", *JUDGING["shifts"][0].split()[:-1], "[0.5]", "--out", "OUT")
    assert said.status == 0
    assert "adapt: without running statistics to mix with batch statistics, tested only as they are: nets:bare" in said.err


@pytest.mark.parametrize(("done_", "time_"), [(0, "0:01:05 so far"), (5, "0:02:30 left"), (20, "0:05:00 so far")])
def test_the_bar_shows_the_time_left_only_where_it_is_known(done_, time_):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    shown, now = bar(console), [65.0]
    shown.get_time = lambda: now[0]
    task = shown.add_task("train: epoch 3/20, and much more than there is room for on a line of 80 columns", total=20)
    now[0] *= 2
    for step in range(1, done_ + 1):
        now[0] += 10
        shown.update(task, completed=step)
    now[0] = {0: 130, 5: now[0], 20: 365}[done_]
    console.print(shown.make_tasks_table(shown.tasks))
    line = console.file.getvalue()
    assert line.count("\n") == 1
    assert len(line.rstrip("\n")) <= 80
    assert f"{done_}/20 {time_}" in " ".join(line.split())


def test_list_says_what_there_is():
    whole, attacks = done("list"), done("list", "attacks")
    for word in ("norms", "rnt", "pgd", "linf", "adversarial", "resnet", "digits", "presets", "cifar10-at"):
        assert f"{word}" in whole
    assert re.search(r"\n +relative_step +0\.25 +\S", attacks)  # an option, its default, and what it is
    assert "relative_step" not in whole
    assert "rnt" not in attacks


@pytest.mark.parametrize("verb", ["bench", "train", "evaluate", "attack", "selftest", "list", "report"])
def test_help_names_every_option_with_its_default_and_nothing_else(verb):
    text = done(verb, "--help")
    assert f"usage: normwise {verb}" in text
    yours = f"\ndefaults depend on data and model; to see yours, name them too: normwise {verb} --data PATH --help\n"
    assert text.endswith("examples:\n" + "".join(f"  {line}\n" for line in EXAMPLES[verb]) + yours * ("--data" in text))
    assert ("--out DIR" in text) == (verb != "list")
    assert ("--threat.eps NUMBER" in text) == (verb not in ("list", "report"))
    assert not [noise for noise in ("type:", "typing", "<class", "{'name'", ".name") if noise in text]


@pytest.mark.parametrize("file", ["w.pt", "w.safetensors", "checkpoint.pth"])
def test_anybodys_network_is_evaluated_with_weights_of_any_kind(file, tmp_path):
    import nets

    state = {name: tensor * 2 for name, tensor in nets.net().state_dict().items()}
    path = tmp_path / file
    if file.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    done("evaluate", "nets:net", "--data.test_limit", 50, "--weights", path, "--out", "OUT")
    done("evaluate", "nets:net", "--data.test_limit", 50, "--out", "OUT/without")
    assert figures("OUT") != figures("OUT/without")


@pytest.mark.parametrize("norm", [[], ["--norm", "rnt"]], ids=["as it is", "converted"])
@pytest.mark.parametrize("start", ["run", "nets:net"])
def test_a_network_trained_further_is_found_again(start, norm):
    message = done("train", start, *norm, *SMALL[2:], "--out", "OUT").splitlines()[-1]
    found = ["OUT"] if start == "run" else message.removeprefix("network: ").split()
    done("evaluate", *found, "--data.test_limit", 50, "--out", "OUT/again")
    assert figures("OUT/again") == figures("OUT")


@pytest.mark.parametrize("chain", [("wsgn", "bn"), ("mbn", "gn", "bnwot")], ids="-".join)
def test_a_network_that_was_converted_is_built_again_step_by_step(chain):
    runs = ["-".join(chain[: step + 1]) for step in range(len(chain))]
    done("train", "--model.width", 8, *SMALL[2:], "--norm", chain[0], "--out", runs[0])
    for before, norm, run in zip(runs, chain[1:], runs[1:], strict=False):
        done("train", "--start", before, "--norm", norm, *SMALL[2:], "--out", run)
    done("evaluate", runs[-1], "--data.test_limit", 50, "--out", "OUT/again")
    assert figures("OUT/again") == figures(runs[-1])


def test_an_abnn_is_built_again_with_norms_converted_before_and_after():
    around = ["--substitute", "run", "--recipe", "abnn", *SMALL[2:]]
    done("train", "--start", "run", "--norm", "rnt", *around, "--out", "OUT/abnn")  # rnt's range is not known before
    done("train", "--start", "OUT/abnn", "--norm", "bnwot", *SMALL[2:], "--out", "OUT/other")
    for run in ("OUT/abnn", "OUT/other"):
        done("evaluate", run, "--data.test_limit", 50, "--out", "OUT/again")
        assert figures("OUT/again") == figures(run)
        shutil.rmtree("OUT/again")


def test_a_run_that_began_with_other_weights_or_code_is_not_taken_for_this_one():
    import nets

    words = ["train", "nets:net", "--weights", "OUT/w.pt", *SMALL[2:], "--out", "OUT/run"]
    improve = Improve(model="nets:net", weights="OUT/w.pt")
    Path("OUT").mkdir()
    torch.save(nets.net().state_dict(), "OUT/w.pt")
    done(*words)
    done(*words)  # the same weights
    code = Path(nets.__file__)
    before = code.read_text()
    code.write_text(before + "\nWIDTH = 2\n")
    said = say(*words)
    assert (said.status, f"began with another network: {code} has changed since" in said.err) == (2, True), said.err
    code.write_text(before)
    keep_settings(improve, Path("OUT/improve"))
    torch.save({name: tensor * 2 for name, tensor in nets.net().state_dict().items()}, "OUT/w.pt")
    said, why = say(*words), "began with another network: OUT/w.pt has changed since"
    assert (said.status, why in said.err) == (2, True), said.err
    with pytest.raises(ValueError, match=why):
        run_improve(improve, Path("OUT/improve"), silent)
    for text in ("[]", "{", "5"):
        Path("OUT/run/began.json").write_text(text)
        assert "OUT/run/began.json is not what a run left" in say(*words).err
        Path("OUT/improve/before.json").write_text(text)
        assert "OUT/improve/before.json is not what improve writes" in say("status", "OUT/improve").err
    Path("OUT/improve/before.json").write_text('{"seconds": 60}')
    assert "improve: running, 1 of 8 done, 0:07:00 of work left" in done("status", "OUT/improve")


def test_a_page_of_an_evaluation_and_a_training_says_before_and_after():
    import nets

    Path("OUT").mkdir()
    torch.save(nets.net().state_dict(), "OUT/w.pt")
    alike = ["nets:net", "--weights", "OUT/w.pt", "--data.test_limit", 50, "--attacks", "fgsm,pgd"]
    done("evaluate", *alike, "--threat.eps", 0.2, "--batch_size", 25, "--out", "OUT/before")
    done("train", *alike, "--threat.eps", 0.2, "--batch_size", 25, "--schedule.epochs", 1, "--out", "OUT/after")
    done("report", "OUT/before", "OUT/after", "--out", "OUT/both")
    assert "Before and after: nets:net (BatchNorm)" in html.unescape(Path("OUT/both/report.html").read_text())


def test_an_evaluation_of_other_weights_says_that_it_replaces_a_result():
    import nets

    Path("OUT").mkdir()
    words = [
        "evaluate",
        "nets:net",
        "--weights",
        "OUT/w.pt",
        "--data.test_limit",
        50,
        "--attacks",
        "fgsm",
        "--strongest",
        "[]",
    ]
    for scale, warned in ((1, False), (1, False), (2, True)):
        torch.save({name: scale * tensor for name, tensor in nets.net().state_dict().items()}, "OUT/w.pt")
        said = say(*words, "--out", "OUT/run")
        assert (said.status, "OUT/run holds that of other weights" in said.err) == (0, warned), said.err


def test_a_network_of_another_bench_is_another_one():
    for bench in ("OUT", "OUT/elsewhere"):
        shutil.copytree("run", f"{bench}/pretrained/other")
    words = ["train", *SMALL[2:], "--out", "OUT/cells/one", "--start"]
    done(*words, "OUT/pretrained/other")
    assert "other settings" in say(*words, "OUT/elsewhere/pretrained/other").err


@pytest.mark.parametrize(
    ("steps", "why"), [(5, "not int"), (["nope"], "no norm is named 'nope'"), (["bn"] * 101, "at most 100")]
)
def test_a_card_that_says_no_norms_to_convert_to_is_refused(steps, why):
    shutil.copytree("run", "OUT")
    card = json.loads(Path("OUT/model.json").read_text())
    Path("OUT/model.json").write_text(json.dumps({**card, "converted": steps}))
    said = say("evaluate", "OUT", "--data.test_limit", 50, "--out", "OUT/again")
    assert (said.status, why in said.err, said.err.count("\n")) == (2, True, 1), said.err


def test_a_pretrained_network_cannot_begin_with_another_one():
    words = "--pretrained [{name: one, start: two}, {name: two}] --methods [{name: a, start: one}] --norms [] --recipes [] --out OUT"
    said = say("bench", *re.split(r" (?=--)|(?<=\w) (?=[\[O])", words))
    assert (said.status, "one begins with two" in said.err) == (2, True), said.err


def test_a_run_folder_alone_runs_nobodys_code_and_decides_data_and_radius_beside_the_function():
    done("train", "nets:net", *SMALL[2:], "--threat.eps", 0.07, "--data.test_limit", 30, "--out", "OUT")
    said = say("evaluate", "OUT", "--out", "OUT/again")
    assert said.status == 2
    assert "nets:net --weights OUT/model.safetensors" in said.err
    said = say("evaluate", "nets:net", "--weights", "OUT/model.safetensors", "--out", "OUT/again")
    assert (said.status, "are those of OUT/config.yaml" in said.err) == (0, True)
    assert figures("OUT/again") == figures("OUT")
    assert yaml.safe_load(Path("OUT/again/config.yaml").read_text())["threat"]["eps"] == 0.07


def written(text: str) -> str:
    Path("settings.yaml").write_text(text)
    return "settings.yaml"


def test_a_fraction_and_an_exponent_are_numbers_in_words_and_files():
    pgd = "attacks: [{name: pgd, relative_step: 1/8}, {name: fgsm}]\nschedule: {lr: 1e-3}\n"
    for said in (
        settings("train", "--threat.eps=8/255", "--schedule.lr", "1e-3", "--attacks", pgd.splitlines()[0][9:]),
        settings("train", "--config", written(f"threat: {{eps: 8/255}}\n{pgd}")),
    ):
        assert said["threat"]["eps"] == 8 / 255
        assert said["schedule"]["lr"] == 1e-3
        assert said["attacks"][0]["relative_step"] == 1 / 8


@pytest.mark.parametrize(
    ("words", "file", "setting", "value"),
    [
        ("", "seed: 3", "seed", 3),
        ("--seed 4", "seed: 3", "seed", 4),
        ("cifar10", "", "schedule.epochs", 10),
        ("cifar10", "schedule: {epochs: 3}", "schedule.epochs", 3),
        ("cifar10 --schedule.epochs 4", "schedule: {epochs: 3}", "schedule.epochs", 4),
        ("cifar10", "schedule: {epochs: 3}", "schedule.crop", 4),  # what the file leaves out is the preset's
        ("", "data: cifar10", "model.depth", 20),  # a data set brings what suits it
        ("--data cifar10", "", "model.depth", 20),
        ("--data mnist", "data: digits", "threat.eps", 0.3),
        ("--data cifar10 --download", "", "data.download", True),
        ("--threat l2", "threat: {name: linf, eps: 0.1}", "threat.eps", 0.5),
        ("--norm rnt", "norm: {name: bn, momentum: 0.2}", "norm.momentum", 0.1),  # another norm, other options
        ("--norm bn", "norm: {name: bn, momentum: 0.2}", "norm.momentum", 0.2),
        ("--norm.momentum 0.3", "norm: {name: bn, momentum: 0.2}", "norm.momentum", 0.3),
        ("--data.train_limit 7 --weights 2024/05 --start 8/255", "", "weights", "2024/05"),  # a path is no fraction
        ("", "weights: 1/2", "weights", "1/2"),
        ("", "weights: '8/255'", "weights", "8/255"),
        ("", "data: {name: video, root: 2024/05}", "data.root", "2024/05"),
        ("", "data: {root: 1/2, name: video}\nthreat: {eps: 1/4}", "threat.eps", 0.25),
        ("", "threat: {eps: -0/4}", "threat.eps", 0),
        ("run", "start: elsewhere", "start", "run"),
        ("run", "norm: gn", "norm.name", "gn"),
    ],
)
def test_later_wins_preset_file_operand_words(words, file, setting, value):
    said: Any = settings("train", *words.split(), *(["--config", written(file)] if file else []))
    for key in setting.split("."):
        said = said[key]
    assert said == value


def test_a_vit_is_benched_at_a_size_for_the_data_and_with_norms_of_its_own():
    found = settings("bench", "--model", "vit", "--model.depth", 3)
    assert (found["norms"][0], found["schedule"]["epochs"]) == ("layernorm2d", 40)
    assert {key: found["model"][key] for key in ("side", "stem", "depth")} == {"side": 8, "stem": "conv", "depth": 3}
    assert settings("bench", "--model", "vit", "--data", "cifar10")["model"]["side"] == 32
    assert settings("bench", "--model", "vit", "--norms", "bn,gn")["norms"] == "bn,gn"


@pytest.mark.parametrize("words", ["train", "train cifar10-at", "train run", "bench", "evaluate run", "attack nets:net"])
def test_printed_settings_are_read_back(words):
    said = settings(*words.split())
    assert settings(words.split()[0], "--config", written(yaml.safe_dump(said))) == said


LONG = ["train", *SMALL, "--data.train_limit", "300", "--schedule.epochs", "20", "--schedule.validate_every", "1"]


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """A run that nothing disturbed."""
    done(*LONG, "--out", place / "whole")
    return place / "whole"


def heard():
    """Ctrl-C ends the new process, even where the tests themselves run in the background of a shell that ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "status"), some([(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)], (signal.SIGINT, 130))
)
def test_a_run_that_is_cut_off_goes_on_to_the_same_end(number, status, tmp_path, whole):
    command = [sys.executable, "-m", "normwise", *LONG, "--out", tmp_path / "cut"]
    cut = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=heard
    )
    log = tmp_path / "cut/log.jsonl"
    while not (tmp_path / "cut/last.pt").exists() and cut.poll() is None:  # it is written after the log
        time.sleep(0.01)
    cut.send_signal(number)
    err = cut.communicate()[1]
    assert cut.returncode == status, err
    assert 0 < len(log.read_text().splitlines()) < 20
    if number == signal.SIGINT:
        assert [line for line in err.splitlines() if not line.startswith("epoch ")] == [
            "normwise: stopped; finished work is kept, and the same command resumes there"
        ]
    done(*LONG, "--out", tmp_path / "cut")
    assert figures(tmp_path / "cut") == figures(whole)
    assert len(log.read_text().splitlines()) == 20


def test_a_killed_evaluation_goes_on_to_the_same_rows_and_images(place, tmp_path):
    words = [
        "attack",
        "run",
        "--attacks",
        "[{name: pgd, steps: 40, restarts: 5}]",
        "--batch_size",
        5,
        "--data.test_limit",
        50,
    ]
    command = [sys.executable, "-m", "normwise", *map(str, words), "--out", tmp_path / "cut"]
    cut = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=heard
    )
    while not list(tmp_path.glob("cut/parts/*.safetensors")) and cut.poll() is None:
        time.sleep(0.001)
    cut.kill()
    cut.communicate()
    finished = len(list(tmp_path.glob("cut/parts/*.safetensors")))
    assert 0 < finished < 10
    said = say(*words, "--seed", 9, "--out", tmp_path / "cut")
    assert (said.status, len(said.err.splitlines())) == (2, 1)
    assert "holds a run with other settings" in said.err
    done(*words, "--out", tmp_path / "cut")
    done(*words, "--out", tmp_path / "whole")
    for name in ("rows.csv", "images.npz"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "cut/parts").exists()


def test_the_self_test_says_what_it_found_and_its_status_is_the_answer(place, tmp_path):
    words = ["selftest", "run", "--rows", 5, "--threat.eps", 0.1, "--out", tmp_path]
    said = say(*words, "--attack", "autoattack", "--attack.steps", 10, "--attack.queries", 50)
    found = json.loads((tmp_path / "selftest.json").read_text())
    failed = [check["name"] for check in found["checks"] if check["status"] == "fail"]
    assert said.status == int(bool(failed)), said
    assert len(found["checks"]) == 5
    assert f"record: {tmp_path / 'selftest.json'}" in said.out
    said = say("selftest", "run", "--rows", 6, "--out", tmp_path)
    assert (said.status, "holds a run with other settings" in said.err) == (2, True)
    words[-1] = tmp_path / "weak"
    said = say(
        *words, "--attack", "pgd", "--attack.steps", 1, "--attack.relative_step", 0.01, "--attack.random_start", "false"
    )
    assert (said.status, "fail: planted image" in said.out) == (1, True)


@pytest.mark.slow  # each device's process imports torch; that shards add up, test_resume sees
def test_several_devices_share_an_evaluation(place, tmp_path):
    words = ["evaluate", "run", "--batch_size", 10, "--data.test_limit", 50, "--eps_curve", "[0, 0.1, 1]"]
    done(*words, "--devices", 2, "--out", tmp_path / "two")
    done(*words, "--out", tmp_path / "one")
    assert (tmp_path / "two/rows.csv").read_bytes() == (tmp_path / "one/rows.csv").read_bytes()
    two, one = (json.loads((tmp_path / name / "result.json").read_text())["evaluation"] for name in ("two", "one"))
    assert (two["robust_accuracy"], two["forwards"], two["curves"]) == (
        one["robust_accuracy"],
        one["forwards"],
        one["curves"],
    )
    said = say(*words, "--devices", 10**6, "--out", tmp_path / "many")
    assert (said.status, "more than this machine has" in said.err) == (2, True)
    said = say(*words, "--devices", 2, "--device", "cuda:1", "--out", tmp_path / "three")
    assert (said.status, "each process takes its own" in said.err) == (2, True)


@pytest.mark.slow  # the other process imports torch; that processes share an audit, test_audit sees
def test_several_devices_share_an_audit(place, tmp_path):
    words = ["audit", "run", "--rows", 10, "--at_once", 5, "--victims", 2, "--twin", "none", "--threads", 1]
    done(*words, "--devices", 2, "--out", tmp_path / "two")
    done(*words, "--out", tmp_path / "one")
    two, one = (json.loads((tmp_path / name / "audit.json").read_text()) for name in ("two", "one"))
    assert all(two[key] == one[key] for key in one.keys() - {"seconds", "provenance"})
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"audit.html", "audit.json", "began.json", "config.yaml"}


@pytest.mark.slow  # three start-ups of torch; that processes train as one, test_distributed sees
def test_train_with_devices_and_torchrun_do_the_same(place, tmp_path):
    words = ["train", *SMALL, "--schedule.epochs", "1", "--threads", "1", "--out"]
    done(*words, tmp_path / "started", "--devices", "2")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "normwise"]
    run = subprocess.run([*torchrun, *words, str(tmp_path / "found")], cwd=place, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert figures(tmp_path / "started") == figures(tmp_path / "found")
    files = "model.safetensors", "config.yaml"
    assert all((tmp_path / "started" / one).read_bytes() == (tmp_path / "found" / one).read_bytes() for one in files)
    done(*words, tmp_path / "found")  # with one process: the result is there


def test_a_bench_with_a_failed_cell_keeps_the_others_and_ends_with_1(monkeypatch):
    finished = Finished([read_result(Path("run/result.json"))], {"rn-standard": "no luck today"})
    monkeypatch.setattr("normwise.cli.commands.run_bench", lambda *args: finished)
    said = say("bench", "--out", "OUT")
    assert (said.status, said.out.splitlines()[-1]) == (1, "failed: rn-standard: no luck today")
    assert "no luck today" in Path("OUT/report.html").read_text()


def test_ctrl_c_ends_a_bench_and_its_workers_in_one_line(tmp_path):
    command = [sys.executable, "-m", "normwise", "bench", *SMALL, "--schedule.epochs", "9999", "--norms", "bn"]
    command += ["--out", tmp_path]
    bench = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard)
    while not list(tmp_path.glob("cells/*/last.pt")) and bench.poll() is None:
        time.sleep(0.05)
    os.killpg(bench.pid, signal.SIGINT)  # as a terminal does: to the workers too
    err = bench.communicate()[1]  # returns once every process that holds the pipe is gone
    assert bench.returncode == 130, err
    said = [
        line for line in err.splitlines() if not line.startswith("cells: making")
    ]  # once in half a minute, on a slow machine
    assert said == ["normwise: stopped; finished work is kept, and the same command resumes there"]


# Bad input: (words, what the one line on stderr says). `--out OUT` is added where it is not said.
T, E = "train --model.width 4", "evaluate nets:net"
BAD = [
    ("trian", "'trian'; did you mean 'train'"),
    ("list nroms", "'nroms'; did you mean 'norms'"),
    ("report nowhere", "nowhere holds no result.json and no audit.json"),
    ("report", "no run is named; write normwise report RUN"),
    ("train digit", "'digit'; did you mean 'digits'"),
    ("train digits twice", "one argument too many: 'twice'"),
    (f"{T} --nrom bn", "no option is named '--nrom'; did you mean '--norm'"),
    (f"{T} --epochs 3", "did you mean '--schedule.epochs'"),
    (f"{T} --norm rmt", "no norm is named 'rmt'; did you mean 'rnt'"),
    (f"{T} --threat lnf", "no threat model is named 'lnf'; did you mean 'linf'"),
    (f"{T} --recipe adverse", "did you mean 'adversarial'"),
    (f"{T} --model resnt", "did you mean 'resnet'"),
    (f"{T} --data digit", "did you mean 'digits'"),
    (f"{T} --attacks fgsm,pgdd", "did you mean 'pgd'"),
    (f"{T} --attacks [5]", "no attack is named '5'"),
    (f"{T} --attacks [{{name:pgd}}", "no attack is named"),
    (f"{T} --norm.momentm 1", "no option of norm 'bn' is named 'momentm'; did you mean 'momentum'"),
    (f"{T} --norm rnt --norm.groups 2", "no option of norm 'rnt' is named 'groups'"),
    (f"{T} --download", "no option of data 'digits' is named 'download'"),
    (f"{T} --seed one", "--seed is one; expected integer"),
    (f"{T} --schedule.lr fast", "--schedule.lr is fast; expected number"),
    (f"{T} --schedule.accumulate 1000", "schedule.accumulate is 1000; give at most batch_size, 64"),
    (f"{T} --schedule.decay cosin", "expected cosine|multistep|onecycle|constant"),
    (f"{T} --train_eps x", "expected number|null"),
    (f"{T} --seed", "--seed needs a value"),
    (f"{T} --seed --norm bn", "--seed needs a value"),
    (f"{T} --eps", "no option is named '--eps'; did you mean '--norm.eps' or '--threat.eps'?"),
    (f"{T} --schedule.lr --seed 1", "--schedule.lr needs a value"),
    ("train --out", "--out needs a value"),
    *((f"{T} {option}=", f"{option} needs a value") for option in ("--norm", "--data", "--config", "--seed", "--strongest", "--start")),
    ("train --out=", "--out needs a value"),
    ("train ''", "an argument is empty; write normwise train"),
    *((f"{T} --threat.eps {eps}", text) for eps, text in {
        "-1": "got -1.0", "nan": "is nan; expected number", "inf": "is inf; expected number", ".nan": "got nan", "2": "at most 1",
        "8/0": "8/0 divides by zero", "-8/255": "got -0.03",
    }.items()),
    ("train --config zero.yaml", "8/0 divides by zero; give a number such as 8/255"),
    ("train --config twice.yaml", "twice.yaml needs each setting once; got eps in lines 2 and 3; keep one of them"),
    (f"{T} --train_eps -1", "got -1.0"),
    (f"{T} --recipe adversarial --recipe.steps -1", "steps of pgd is a count; got -1"),
    (f"{T} --attacks '[{{name: pgd, steps: -1}}]'", "steps of pgd is a count; got -1"),
    (f"{T} --attacks '[{{name: pgd, steps: \"20\"}}]'", "steps of attack 'pgd' is '20'; expected integer"),
    (f"{T} --attacks '[{{name: pgd, stesp: 2}}]'", "did you mean 'steps'"),
    (f"{T} --batch_size 0", "batch_size is 0"),
    (f"{T} --threads -1", "threads is -1"),
    (f"{T} --threads 1000000", "threads is 1000000; give a whole number from 0"),
    (f"{T} --schedule.crop 8", "crop is 8, the pixels of padding around images of 8 by 8; give a whole number from 0 to 7"),
    (f"{T} --threat normalized", "normalized has std for 3 channels; images have 1"),
    ("bench --threat normalized --norms bn --recipes standard", "normalized has std for 3 channels; images have 1"),
    ("audit run --threat normalized", "normalized has std for 3 channels; images have 1"),
    (f"{T} --threat patch --attacks square", "square needs linf"),
    (f"{T} --norm.momentum 2", "momentum is the weight of a new batch; got 2.0"),
    (f"{T} --norm gn", "cannot divide a site of 4 channels"),
    (f"{T} --schedule.precision fp16 --device cpu", "fp16 needs a CUDA device"),
    (f"{T} --data.train_limit 1", "2 images or more"),
    (f"{T} --device abacus", "device 'abacus' cannot be used"),
    (f"{T} --weights w.pt", "but no model is named"),
    ("bench --seeds 0", "seeds is 0"),
    ("bench --jobs 0", "jobs 0"),
    ("bench --norms bn,gn --model.width 4", "cannot divide a site of 4 channels"),
    ("train --config nowhere.yaml", "nowhere.yaml cannot be read"),
    ("train --config corrupt.yaml", "corrupt.yaml is not YAML"),
    ("train --config weights.yaml", "weights.yaml is not YAML"),
    ("train --config list.yaml", "list.yaml holds no settings"),
    ("train --config unknown.yaml", "no setting of train is named 'epohcs'"),
    ("train --config type.yaml", "norm is 5"),
    ("train --config nameless.yaml", "this attack has no name: {'steps': 2}"),
    ("train --config text.yaml", "seed is 'one'; expected integer"),
    ("bench --config run/config.yaml", "no setting of bench is named 'norm'; did you mean 'norms'"),
    ("evaluate", "no model is named"),
    ("evaluate nowhere", "no model 'nowhere'"),
    ("evaluate run --craft_on nowhere", "no model 'nowhere'"),
    ("evaluate run --through_substitute false", "which has no substitute; give a model made by abnn(...)"),
    ("evaluate run --through_substitute false --craft_on run", "both say what to attack; give one of them"),
    ("evaluate run --stateful forever", "expected refuse|restore|sequence"),
    ("evaluate run --eps_curve [0.1,2]", "eps of linf is a radius"),
    ("evaluate run --step_curve [5] --attacks fgsm", "none of the attacks has steps"),
    ("evaluate run --speed.precision int8", "expected float32|bfloat16|float16"),
    ("evaluate run --threat patch --attacks pgd,square", "square needs linf"),
    ("selftest --rows 0", "rows is 0"),
    ("selftest nowhere", "no model 'nowhere'"),
    ("evaluate empty", "empty holds no model.json"),
    ("evaluate torn", "torn/model.safetensors cannot be read as weights"),
    ("evaluate half", "no weights file half/model.safetensors"),
    ("evaluate w.pt", "w.pt has no model.json beside it"),
    (f"{E} --weights nowhere.pt", "no weights file nowhere.pt"),
    (f"{E} --weights evil.pt", "evil.pt was refused: it wants to run code"),
    (f"{E} --weights torn.pt", "torn.pt cannot be read as weights"),
    (f"{E} --weights nets.py", "nets.py is not a weights file"),
    (f"{E} --weights lacking.pt", "lacking.pt does not fit Sequential: it lacks 3.bias"),
    (f"{E} --weights run/model.safetensors", "does not fit Sequential"),
    (f"{E} --data d.npz --batch_size 0", "batch_size is 0"),
    ("evaluate nets:nothing", "has no attribute 'nothing'"),
    ("evaluate nets:number", "returned int"),
    ("evaluate nets:fails", "no luck today"),
    ("evaluate elsewhere:net", "No module named 'elsewhere'"),
    ("evaluate nets:three", "the model has 3 classes"),
    ("evaluate nets:Words", "expected logits of shape (b, classes)"),
    ("export nets:Words", "expected logits of shape (b, classes)"),
    ("export nets:coloured", "give it images of its own kind (on the command line: --data)"),
    ("train nets:three", "labels from 0 to 9; expected 0 to 2, as the model has 3 classes"),
    ("train nets:Words", "expected logits of shape (b, classes)"),
    (f"{E} --data bytes.npz", "lie in [0, 1]"),
    (f"{E} --data nan.npz", "NaN"),
    (f"{E} --data shape.npz", "(12, 8, 8)"),
    (f"{E} --data wide.npz", "cannot take images of shape"),
    (f"{E} --data labels.npz", "labels from 5 to 16"),
    (f"{E} --data empty.npz", "needs test images"),
    (f"{E} --data corrupt.yaml", "must be a folder or an .npz file"),
    (f"{E} --data cifar10", "looked in data/cifar-10-batches-py, data/cifar-10-batches-bin: not there; add --download"),
    (f"{T} --out settings.yaml", "cannot write in settings.yaml"),
    (f"{E} --out settings.yaml/x", "cannot write in settings.yaml/x"),
    (f"{T} --out run", "run holds a run with other settings"),
    (f"{E} --out run", "run holds a run with other settings"),
    ("bench --out run", "run holds a run with other settings"),
    ("report run run --out run", "run holds a run with other settings"),
    pytest.param("evaluate timm:resnet18", "pip install 'normwise[timm]'", marks=pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="it is installed")),
    pytest.param("evaluate run --device cuda", "device 'cuda' cannot be used", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")),
    pytest.param("evaluate run --out /proc/x", "cannot write in /proc/x", marks=pytest.mark.skipif(not Path("/proc").exists(), reason="no such place")),
]  # fmt: skip


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("PWNED"),)


@pytest.fixture(scope="module")
def traps(place: Path) -> None:
    """Files that are not what they should be."""
    x, y = np.random.default_rng(0).random((12, 1, 8, 8)), np.arange(12) % 10
    wide = np.zeros((12, 1, 8, 9))
    arrays = {"d": (x, y), "bytes": (255 * x, y), "nan": (np.where(x > 0.9, np.nan, x), y), "shape": (x[:, 0], y)}
    arrays |= {"labels": (x, np.arange(5, 17)), "empty": (x[:0], y[:0]), "wide": (wide, y)}
    for name, (pixels, labels) in arrays.items():
        np.savez(place / f"{name}.npz", x=pixels, y=labels)
    texts = {"corrupt": "{a: [", "list": "[1, 2]", "unknown": "epohcs: 3", "type": "norm: 5", "text": "seed: one"}
    texts |= {"zero": "threat: {eps: 8/0}", "twice": "threat: {\n  eps: 0.1, name: linf,\n  eps: 0.2}"}
    texts["nameless"] = "attacks: [{steps: 2}]"
    for name, text in texts.items():
        (place / f"{name}.yaml").write_text(text)
    (place / "settings.yaml").write_text("")
    (place / "empty").mkdir()
    for name in ("torn", "half"):
        shutil.copytree(place / "run", place / name)
    whole = (place / "run/model.safetensors").read_bytes()
    (place / "torn/model.safetensors").write_bytes(whole[: len(whole) // 2])
    (place / "half/model.safetensors").unlink()
    (place / "weights.yaml").write_bytes(whole)
    (place / "evil.pt").write_bytes(pickle.dumps(Evil()))
    state = {"0.weight": torch.zeros(4, 1, 3, 3), "0.bias": torch.zeros(4), "3.weight": torch.zeros(10, 144)}
    state |= {f"1.{name}": torch.ones(4) for name in ("weight", "bias", "running_mean", "running_var")}
    torch.save(state, place / "lacking.pt")
    torch.save(state, place / "w.pt")
    (place / "torn.pt").write_bytes((place / "w.pt").read_bytes()[:900])


def contents() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path().rglob("*") if "__pycache__" not in str(path)}


@pytest.mark.usefixtures("traps")
@pytest.mark.parametrize(("words", "text"), BAD)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(words, text):
    out = [] if "--out" in words or words.startswith(("list", "trian")) else ["--out", "OUT"]
    before = contents()
    said = say(*shlex.split(words), *out)
    assert said.status == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("normwise: ")
    assert text in said.err
    assert contents() == before


def test_the_installed_command_is_this_one():
    command = Path(sys.executable).with_name("normwise")
    said = subprocess.run([command, "trian"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (2, "")
    assert "did you mean 'train'" in said.stderr
    assert subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout == (
        f"normwise {normwise.__version__}\n"
    )


@pytest.mark.parametrize("source", some(["features", "statistics", "plain"], "statistics", "plain"))
def test_an_abnn_listens_to_a_run_and_is_found_again(source):
    words = ["--substitute", "run"] if source != "plain" else []
    done("train", "--recipe", "abnn", "--adaptive.source", source, *words, *SMALL, "--seed", 1, "--out", "OUT")
    assert json.loads(Path("OUT/result.json").read_text())["training"]["forwards"] > 0
    model = normwise.load("OUT").model
    assert len(model.adaptive) == 4
    if words:
        own, other = model.substitute.network.state_dict(), normwise.load("run").model.state_dict()
        assert all(torch.equal(own[key], other[key]) for key in other)
    whole = json.loads(Path("OUT/result.json").read_text())
    trained, heard = whole["evaluation"], whole["substitute"]
    if words:  # it is judged on the same clean rows as when it was trained
        assert heard["trained_on"]["name"] == "digits"
        assert heard["clean_accuracy"] == figures("run")["clean_accuracy"]
        assert "trained on digits (its own accuracy: " in html.unescape(Path("OUT/report.html").read_text())
    else:
        assert heard is None
    done("evaluate", "OUT", "--out", "OUT/again")
    again = json.loads(Path("OUT/again/result.json").read_text())["evaluation"]
    assert again["robust_accuracy"] == trained["robust_accuracy"]
    assert again["digest_before"] == trained["digest_before"]
    if source == "statistics":
        done("evaluate", "OUT", "--through_substitute", "false", "--out", "OUT/weaker")
        weaker = json.loads(Path("OUT/weaker/result.json").read_text())["evaluation"]
        checks = {check["name"]: (check["status"], check["measured"]) for check in weaker["checks"]}
        whom = "crafted on the network itself, without the gradient through its substitute"
        assert checks["attacked itself"] == ("warn", whom)
        assert "attacked itself" not in {check["name"] for check in again["checks"]}


def test_a_substitute_may_be_anybodys_network_of_other_classes_and_its_function_is_called_only_when_named(here):
    torch.manual_seed(1)
    save_file((made := importlib.import_module("nets").wide()).state_dict(), "wide.safetensors")
    words = ["--substitute", "nets:wide", "--substitute_weights", "wide.safetensors", "--adaptive.taps", "[layer1]"]
    done("train", "--recipe", "abnn", *words, "--adaptive.substitute_taps", '["1"]', *SMALL, "--out", "OUT")
    heard = json.loads(Path("OUT/result.json").read_text())["substitute"]
    assert (heard["source"], heard["trained_on"], heard["clean_accuracy"]) == ("nets:wide", None, None)
    assert "does not say which classes" in heard["why"]
    status, _, err = say("evaluate", "OUT", "--out", "OUT/again")
    assert (status, "write nets:wide --weights OUT/model.safetensors" in err) == (2, True), err
    model = normwise.load("nets:wide", "OUT/model.safetensors").model
    assert torch.equal(model.substitute.network[3].weight, made[3].weight)
    done("evaluate", "nets:wide", "--weights", "OUT/model.safetensors", "--data.test_limit", 50, "--out", "OUT/again")
    one, two = (json.loads(Path(p, "result.json").read_text())["evaluation"] for p in ("OUT", "OUT/again"))
    assert one["digest_before"] == two["digest_before"]
    assert one["clean_accuracy"] == two["clean_accuracy"]


def test_a_substitute_of_other_classes_cannot_be_judged_on_these_rows(here):
    shutil.copytree("run", "OUT/other")
    card = json.loads(Path("run/model.json").read_text())
    rows, threat, device = Digits(test_limit=50).test(batch_size=25), Linf(eps=0.1), torch.device("cpu")
    for data, known in [(Mnist(), False), (Digits(train_limit=7), True), (ArrayFile(path="run"), False)]:
        Path("OUT/other/model.json").write_text(json.dumps(card | {"data": plain(data)}))
        heard = described("OUT/other", "", Digits(test_limit=50), rows, threat, device)
        assert heard.trained_on == plain(data)
        assert (heard.clean_accuracy is not None) == known
        assert ("other classes" in heard.why) == (not known)


def test_timms_networks_are_found_by_name_with_their_standardization_in_front(monkeypatch):
    class Net(nn.Module):
        pretrained_cfg: ClassVar[dict[str, Any]] = {"mean": (0.5,), "std": (0.25,)}

        def __init__(self) -> None:
            super().__init__()
            self.layer1 = nn.Conv2d(1, 4, 3, padding=1)
            self.fc = nn.Linear(4, 7)

        def forward(self, x):
            return self.fc(self.layer1(x).mean((2, 3)))

    timm = types.ModuleType("timm")
    timm.create_model = lambda name: {"resnet7": Net}[name]()
    monkeypatch.setitem(sys.modules, "timm", timm)
    save_file((own := Net()).state_dict(), "timm.safetensors")
    loaded, x = normwise.load("timm:resnet7", "timm.safetensors").model, torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(loaded(x), own((x - 0.5) / 0.25))
    torch.testing.assert_close(copy.deepcopy(loaded)(x), loaded(x))
    model = normwise.abnn(normwise.load("run").model, loaded, normwise.Adaptive(taps=("layer1",)), shape=(1, 8, 8))
    assert model.eval()(x).shape == (2, 10)
    with pytest.raises(ValueError, match="timm:resnet8 gave no network"):
        normwise.load("timm:resnet8")


def test_methods_are_rows_of_a_bench_beside_its_grid(tmp_path):
    methods = [
        {"name": "nofrost", "norm": "none", "recipe": {"name": "nofrost", "steps": 1}},
        {"name": "affine", "start": "other", "recipe": {"name": "standard", "trains": "affine"}},
        {"name": "abnn", "substitute": "other", "recipe": "abnn"},
        {"name": "mbn-clean", "norm": "mbn", "recipe": {"name": "mbn", "steps": 1}},
        {"name": "mbn-adversarial", "norm": {"name": "mbn", "route": 1}, "recipe": {"name": "mbn", "steps": 1}},
    ]
    config = {"norms": ["bn"], "recipes": ["standard"], "methods": methods, "strongest": [{"name": "apgd", "steps": 3}]}
    config["pretrained"] = [{"name": "other", "data": {"train_limit": 60}}]
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(config))
    words = ["bench", "--config", tmp_path / "bench.yaml", *SMALL, "--jobs", 1, "--out", tmp_path / "bench"]
    said = say(*words)
    assert said.status == 0, said.err
    assert "failed" not in said.out
    results = {one["name"]: one for one in json.loads((tmp_path / "bench/results.json").read_text())["cells"]}
    assert list(results) == ["bn-standard", "nofrost", "affine", "abnn", "mbn-clean", "mbn-adversarial"]
    for one in results.values():
        e = one["evaluation"]
        assert (
            e["robust_accuracy"]["value"]
            <= e["protocol_accuracy"]["value"]
            <= min(s["value"] for s in e["per_attack"].values())
        )
    assert set(results["nofrost"]["evaluation"]["norm_reads"]) == {"none"}
    affine = results["affine"]["training"]
    assert 0 < affine["trained_parameters"] < affine["parameters"] / 10
    other = str(tmp_path / "bench/pretrained/other")
    assert results["abnn"]["substitute"]["source"] == other
    first = json.loads((tmp_path / "bench/pretrained/other/result.json").read_text())["experiment"]
    assert (first["seed"], first["data"]["train_limit"], first["columns"]["kinds"]) == (10_000, 60, [])
    page = html.unescape((tmp_path / "bench/report.html").read_text())
    assert "Networks are compared only within one setting" not in page
    assert "from other" in page
    parts = json.loads(done("status", tmp_path / "bench", "--json", "true"))["parts"]
    assert parts[0]["name"] == "other"
    shutil.move(tmp_path / "bench", tmp_path / "moved")
    assert "failed" not in done(*words[:-1], tmp_path / "moved")  # its rows are found, not made again
    again = {one["name"]: one for one in json.loads((tmp_path / "moved/results.json").read_text())["cells"]}
    assert again == results


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ([{"norm": "gn"}], "a method of a bench is {name: WORD, setting: value, ...}; got {'norm': 'gn'}"),
        ([{"name": "../x"}], "a method of a bench is {name: WORD"),
        ([{"name": "bn-standard"}], "two networks of the bench are called bn-standard"),
        ([{"name": "one", "seed": 3}], "method one sets seed"),
        ([{"name": "one", "start": [1]}], "method one: start is (1,); expected text"),
        (
            [{"name": "one", "recipee": "abnn"}],
            "method one: no setting of Experiment is named 'recipee'; did you mean 'recipe'?",
        ),
        ([{"name": "one", "schedule": 3}], "method one: schedule is 3; give {option: value}"),
        ([{"name": "one", "adaptive": [1]}], "method one: adaptive is [1]; give {option: value}"),
    ],
)
def test_methods_that_cannot_be_are_refused_in_one_line(methods, reason, tmp_path):
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump({"methods": methods}))
    status, _, err = say("bench", "--config", tmp_path / "bench.yaml", "--out", tmp_path / "bench")
    assert (status, reason in err, err.count("\n")) == (2, True, 1), err
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--recipe abnn", "got a Network without any; make one with abnn(target, substitute), or name a substitute"),
        ("--adaptive.scope sample", "adaptive is set (source features), but no substitute"),
        ("--substitute nets:net", "the substitute, a Sequential, has no taps that are known"),
        ("--substitute nothing", "no model 'nothing': neither a run folder"),
        ("--substitute_weights net.pt", "but no model is named; name one as substitute"),
        ("--start nets:net --norm bn --substitute nets:net", "can name one function that makes a network, not two"),
        ("--substitute run --adaptive.taps [layer9]", "no module of the target is named 'layer9'"),
        ("--substitute run --adaptive.source plain --adaptive.head flattened", "source plain has no head"),
    ],
)
def test_what_cannot_be_an_abnn_is_refused_before_training(words, reason):
    status, _, err = say("train", *SMALL[2 if "--start" in words else 0 :], *words.split(), "--out", "OUT")
    assert (status, reason in err) == (2, True), err
    assert not Path("OUT").exists()
