"""`normwise status`: how far a run is, read from its folder."""

import json
import os
import time
from dataclasses import replace

import pytest

from normwise.__main__ import main
from normwise.attacks import FGSM
from normwise.auditing.auditor import Audit
from normwise.data import Digits
from normwise.experiments.evaluation_run import Evaluate, clear, run_evaluation
from normwise.experiments.experiment import Experiment, train
from normwise.experiments.status import status
from normwise.models import ResNet
from normwise.records import read_result
from normwise.training.schedule import Schedule
from normwise.utils.run_folder import keep_settings

DATA = Digits(train_limit=64, validation_size=16, test_limit=40)
SETTINGS = Experiment(
    data=DATA, model=ResNet(depth=8, width=4), attacks=(FGSM(),), strongest=(), schedule=Schedule(epochs=3, lr=0.01)
)


def stop_after(count):
    def report(text, done, total):
        if ": " in text and done == count:
            raise InterruptedError

    return report


@pytest.mark.parametrize(
    "line", ['{"a": 1}', '{"epoch": "x"}', '{"epoch": 1, "seconds": "y"}', '{"epoch": 1e400, "seconds": 1}', "[1]", "\xff"]
)
def test_an_odd_line_of_a_log_tells_nothing(line, tmp_path):
    keep_settings(SETTINGS, tmp_path)
    (tmp_path / "log.jsonl").write_bytes(line.encode("latin-1") + b"\n")
    assert [part.state for part in status(tmp_path).parts] == ["waiting"]


def test_a_training_says_its_epochs_and_the_time_left(tmp_path, capsys):
    with pytest.raises(InterruptedError):
        train(
            SETTINGS,
            tmp_path,
            report=lambda text, done, total: stop_after(done)(text, done, total) if text.startswith("epoch 2") else None,
        )
    found = status(tmp_path)
    (part,) = found.parts
    assert (found.verb, part.state, part.says) == ("train", "under way", "epoch 2 of 3")
    assert found.seconds_left == pytest.approx(part.seconds)  # one epoch and the evaluation: as much as was done
    assert found.running  # written a moment ago
    assert main(["status", str(tmp_path), "--json", "true"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["verb"], shown["done"], shown["parts"][0]["share"]) == ("train", 0, 0.5)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "lo')  # torn
    assert status(tmp_path).parts == found.parts


@pytest.fixture(scope="module")
def e(tmp_path_factory):
    """An evaluation of a network that is trained."""
    folder = str(tmp_path_factory.mktemp("trained") / "run")
    assert main(["train", "digits", *WORDS, "--out", folder]) == 0
    return Evaluate(model=folder, data=DATA, attacks=(FGSM(),), strongest=(), batch_size=10, device="cpu")


def test_an_evaluation_says_its_batches_and_then_its_figure(e, tmp_path, capsys):
    seen = []

    def stop(text, done, total):
        seen.append(status(tmp_path / "evaluate").parts[0].says)
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_evaluation(e, tmp_path / "evaluate", stop)
    assert seen == ["1 of 4 batches", "2 of 4 batches", "3 of 4 batches"]
    run_evaluation(e, tmp_path / "evaluate")
    capsys.readouterr()
    assert main(["status", str(tmp_path / "evaluate")]) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("evaluate: done, 1 of 1 done, 0:00:00 of work left, last written 0:00:0")
    )


def test_two_evaluations_in_one_folder_end_with_one_result(e, tmp_path):
    """The second begins when the first has made two batches, and is faster."""
    found = []

    def report(text, done, total):
        if done == 2 and not found:
            found.append(run_evaluation(e, tmp_path / "both")[0])
            clear(tmp_path / "both")

    with pytest.raises(ValueError, match=r"another process has made this evaluation meanwhile; its result is in .*both"):
        run_evaluation(e, tmp_path / "both", report)
    alone, _ = run_evaluation(e, tmp_path / "alone")
    assert found[0].evaluation.robust_accuracy == alone.evaluation.robust_accuracy
    assert read_result(tmp_path / "both/result.json").evaluation == found[0].evaluation
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"config.yaml", "result.json"}


def test_an_evaluation_keeps_to_its_budget_and_goes_on_with_a_larger_one(e, tmp_path, monkeypatch):
    clock = time.monotonic

    def passes(text, done, total):
        if done == 2:
            monkeypatch.setattr("normwise.utils.forward.time.monotonic", lambda: clock() + 61)

    message = "the budget of 1 minutes is over; finished batches: 2; give a larger --budget, and the same command goes on"
    with pytest.raises(ValueError, match=message):
        run_evaluation(replace(e, budget=1.0), tmp_path / "cut", passes)
    monkeypatch.undo()
    resumed, _ = run_evaluation(replace(e, budget=2.0), tmp_path / "cut")
    whole, _ = run_evaluation(e, tmp_path / "whole")
    assert resumed.evaluation.robust_accuracy == whole.evaluation.robust_accuracy
    assert (resumed.evaluation.n, resumed.evaluation.forwards) == (whole.evaluation.n, whole.evaluation.forwards)
    with pytest.raises(ValueError, match="finished batches: 0; give a larger --budget, or smaller batches"):
        run_evaluation(replace(e, budget=1e-9), tmp_path / "none")
    with pytest.raises(ValueError, match="budget is nan; give minutes"):
        replace(e, budget=float("nan"))


WORDS = ["--data.train_limit", "64", "--data.validation_size", "16", "--data.test_limit", "40", "--model.width", "4"]
WORDS += ["--schedule.epochs", "1", "--attacks", "fgsm", "--strongest", "[]", "--device", "cpu"]


def test_a_bench_names_what_is_done_and_what_waits(tmp_path, capsys):
    words = ["bench", "--norms", "[bn,rnt]", "--recipes", "[standard]", *WORDS, "--out", str(tmp_path)]
    assert main(words) == 0
    kept = (tmp_path / "cells/rnt-standard/result.json").rename(tmp_path / "moved.json")
    (tmp_path / "cells/rnt-standard/log.jsonl").unlink()
    capsys.readouterr()
    assert [(part.name, part.state) for part in status(tmp_path).parts] == [
        ("bn-standard", "done"),
        ("rnt-standard", "waiting"),
    ]
    assert status(tmp_path).seconds_left == pytest.approx(status(tmp_path).parts[0].seconds)
    kept.rename(tmp_path / "cells/rnt-standard/result.json")
    assert status(tmp_path).seconds_left == 0


def test_a_reproduction_names_its_cells(tmp_path):
    assert (
        main(
            [
                "reproduce",
                "robustnorm",
                "--only",
                "[bnwot]",
                "--preset",
                "smoke",
                "--max_minutes",
                "1e-9",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert [(part.name, part.state) for part in status(tmp_path).parts] == [
        ("bn-standard seed 0", "waiting"),
        ("bnwot seed 0", "waiting"),
    ]
    assert status(tmp_path).seconds_left is None


def test_an_audit_says_its_batches_and_then_its_verdict(tmp_path):
    keep_settings(Audit(model="x:y", data=DATA, budget=2), tmp_path)
    assert [(part.state, part.says) for part in status(tmp_path).parts] == [("waiting", "0 batches kept, 2 minutes at most")]
    (tmp_path / "parts/search").mkdir(parents=True)
    for number in range(3):
        (part := tmp_path / f"parts/search/{number}.safetensors").write_bytes(b"")
        os.utime(part, ((tmp_path / "config.yaml").stat().st_mtime + 30,) * 2)
    found = status(tmp_path)
    assert (found.verb, found.parts[0].state, found.parts[0].says[:14]) == ("audit", "under way", "3 batches kept")
    assert found.seconds_left == pytest.approx(90)
    record = {
        "verdict": "doubtful",
        "claimed_accuracy": 0.5,
        "upper_bound": 0.1,
        "interval": [0, 0.2],
        "n": 40,
        "checks": [],
    }
    record |= {"threat": {"name": "linf", "eps": 0.1}, "coupled": False, "reasons": [], "examples": [], "seconds": 7.0}
    (tmp_path / "audit.json").write_text(json.dumps(record))
    assert [(part.state, part.says) for part in status(tmp_path).parts] == [("done", "doubtful")]


@pytest.mark.parametrize("reason", ["holds no run", "keeps no pieces"])
def test_folders_of_nothing_are_refused_in_one_line(reason, tmp_path, capsys):
    if reason == "keeps no pieces":
        (tmp_path / "config.yaml").write_text("severities: [1]\n")
    assert main(["status", str(tmp_path)]) == 2
    assert reason in capsys.readouterr().err
