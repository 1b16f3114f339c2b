"""`normwise audit` of several networks: each is audited once, as by itself, and all are on one page."""

import json
import shutil

import pytest
from test_cli import SMALL, done, say

from normwise.auditing.auditor import run_audit
from normwise.experiments.status import status

QUICK = ("--rows", 4, "--twin", "none", "--budget", 0.001, "--jobs", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("audits")
    done("train", *SMALL, "--out", place / "bn")
    shutil.copytree(place / "bn", place / "rnt")
    (place / "elsewhere").mkdir()
    shutil.copytree(place / "bn", place / "elsewhere/bn")
    return place


def test_networks_are_audited_once_each_and_shown_together(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    words = "audit", "bn", "rnt", "elsewhere/bn", *QUICK, "--out", tmp_path / "all"
    assert "records" in done(*words)
    names = ["bn", "rnt", "bn~2"]
    found = [json.loads((tmp_path / f"all/cells/{name}/audit.json").read_text()) for name in names]
    assert [one["model"] for one in found] == ["bn", "rnt", "elsewhere/bn"]
    done("audit", "rnt", *QUICK[:-2], "--threads", 1, "--out", tmp_path / "alone")
    alone = json.loads((tmp_path / "alone/audit.json").read_text())
    assert all(found[1][key] == alone[key] for key in ("verdict", "n", "threat", "claimed_accuracy", "digest"))
    assert len((tmp_path / "all/audits.csv").read_text().splitlines()) == 4
    before = [(tmp_path / f"all/cells/{name}/audit.json").stat().st_mtime_ns for name in names]
    (tmp_path / "all/cells/rnt/parts").mkdir()  # as one leaves it that was killed before it put its batches away
    done("audit", "--config", tmp_path / "all/config.yaml", "--out", tmp_path / "all")
    after = [(tmp_path / f"all/cells/{name}/audit.json").stat().st_mtime_ns for name in names]
    assert before == after
    assert not (tmp_path / "all/cells/rnt/parts").exists()
    assert [(part.name, part.state) for part in status(tmp_path / "all").parts] == [(name, "done") for name in names]
    other = json.loads((tmp_path / "all/cells/rnt/audit.json").read_text()) | {"digest": "of other weights"}
    (tmp_path / "all/cells/rnt/audit.json").write_text(json.dumps(other))
    done("audit", "--config", tmp_path / "all/config.yaml", "--out", tmp_path / "all")
    assert json.loads((tmp_path / "all/cells/rnt/audit.json").read_text())["digest"] == found[1]["digest"]
    after = [(tmp_path / f"all/cells/{name}/audit.json").stat().st_mtime_ns for name in names]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    (tmp_path / "all/cells/rnt/audit.json").unlink()
    shutil.rmtree(tmp_path / "all/cells/bn~2")
    assert [part.state for part in status(tmp_path / "all").parts] == ["done", "waiting", "waiting"]


def test_an_audit_that_fails_is_named_and_the_others_go_on(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)

    def unlucky(one, folder, report):
        if one.model == "bn":
            raise RuntimeError("no luck today")
        return run_audit(one, folder, report)

    monkeypatch.setattr("normwise.experiments.audits.run_audit", unlucky)
    said = say("audit", "bn", "rnt", *QUICK, "--out", tmp_path)
    assert (said.status, said.out.splitlines()[-1]) == (1, "failed: bn: no luck today")
    assert (tmp_path / "audit.html").is_file()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("bn", "bn"), "name two or more, each once"),
        (("bn", "nowhere"), "nowhere"),
        (("bn", "rnt", "--weights", "w.pt"), "model and weights are of one network"),
        (("bn", "rnt", "--jobs", 0), "jobs is 0"),
        (("bn", "rnt", "--rows", 0), "rows is 0"),
    ],
    ids=str,
)
def test_audits_that_cannot_be_are_refused_in_one_line(words, reason, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    said = say("audit", *words, "--out", tmp_path / "out")
    assert (said.status, said.err.count("\n")) == (2, 1), said.err
    assert reason in said.err
    assert not (tmp_path / "out").exists()
