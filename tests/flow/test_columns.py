"""Columns on the command line: a domain fills them, a run is evaluated in them, and they resume."""

import json

import pytest
from test_cli import SMALL, done, say, settings


@pytest.mark.parametrize(
    ("domain", "data", "model"), [("image", "digits", "resnet"), ("video", "moving-digits", "resnet3d")]
)
def test_a_domain_chooses_data_methods_and_columns(domain, data, model):
    found = settings("bench", "--domain", domain)
    assert (found["data"]["name"], found["model"]["name"]) == (data, model)
    assert found["columns"]["kinds"] == ["l2", "multav", "roa", "af", "spa"]
    single = [f"at-{kind}" for kind in found["columns"]["kinds"]]
    assert [one["name"] for one in found["methods"]] == ["multibn", "abnn", "extra-bn", "fine-tuned", *single]
    assert found["pretrained"] == [{"name": "other"} | ({"data": {"axis": "vertical"}} if domain == "video" else {})]
    assert settings("bench")["columns"]["kinds"] == []


def test_a_network_is_trained_and_evaluated_in_columns(tmp_path):
    words = ["--columns.kinds", "roa,af", "--columns.search", 0]
    out = done("train", *SMALL, "--strongest", "[]", *words, "--data.test_limit", 20, "--out", tmp_path / "run")
    assert [line.split()[0] for line in out.splitlines()[-5:-1]] == ["ROA", "AF", "Mean", "Union"]
    done("evaluate", tmp_path / "run", "--devices", 2, "--device", "cpu", "--batch_size", 10, "--out", tmp_path / "again")
    first, again = (json.loads((tmp_path / name / "result.json").read_text())["several"] for name in ("run", "again"))
    assert list(first["evaluations"]) == list(again["evaluations"]) == ["roa", "af"]
    assert first["evaluations"]["af"]["threat"] == {"name": "frame", "width": 1, "eps": 1.0}


def test_columns_that_cannot_be_are_refused_in_one_line():
    for words, says in (
        (
            ["train", "--threat", "l2", "--columns.kinds", "roa"],
            "columns are scaled beside a radius in linf, and threat is l2",
        ),
        (["evaluate", "--columns.steps", 9], "columns has steps 9, and no kinds, so that no column is made; give kinds"),
        (["bench", "--domain", "sound"], "domain is 'sound'; give image or video"),
        (
            ["bench", "--domain", "video", "--data", "digits", "--out", "never"],
            "domain is video, and the rows of digits are none",
        ),
    ):
        said = say(*words)
        assert (said.status, said.err.count("\n")) == (2, 1)
        assert says in said.err
