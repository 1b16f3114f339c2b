"""`normwise shifts` as a person meets it: several networks, adaptation, a killed run, bad input, the page."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import done, say

from normwise.data import CORRUPTIONS, Digits
from normwise.data.corruptions import corrupted
from normwise.evaluation.shifts.run import Shifts, run_shifts
from normwise.models.loading import load
from normwise.norms.surgery.adaptation import with_share

SMALL = shlex.split("--model.width 4 --data.train_limit 60 --data.test_limit 50 --schedule.epochs 1 --attacks fgsm")


RECTIFIED = """
from torch import nn

class Rectified(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()

def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), Rectified(4), nn.Flatten(), nn.Linear(144, 10))
"""

SIGNED = """
from torch import nn

class Signed(nn.Module):
    def __init__(self):
        super().__init__()
        self.sign, self.linear = 1, nn.Linear(64, 10)
        nn.init.eye_(self.linear.weight)

    def forward(self, x):
        return self.sign * self.linear(x.flatten(1))

network = Signed().eval()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two trained networks: one with running statistics, one without."""
    place = tmp_path_factory.mktemp("shifts")
    done("train", *SMALL, "--out", place / "bn")
    done("train", *SMALL, "--norm", "gn", "--norm.groups", 2, "--out", place / "gn")
    (place / "rectified.py").write_text(RECTIFIED)
    (place / "signed.py").write_text(SIGNED)
    return place


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def record(out="OUT"):
    return json.loads((Path(out) / "shifts.json").read_text())


def test_the_record_holds_what_asking_the_networks_gives():
    words = [
        "bn",
        "gn",
        "--data.test_limit",
        "60",
        "--rows",
        "40",
        "--batch_size",
        "20",
        "--severities",
        "1,5",
        "--kinds",
        "fog,jpeg_compression",
    ]
    out = done("shifts", *words, "--adapt", "0,1", "--prior", 20, "--baseline", "gn", "--out", "OUT")
    found = record()
    assert [(one["network"], one["alpha"], one["own"], one["coupled"]) for one in found["networks"]] == [
        ("bn", 0.0, True, False),
        ("bn", 1.0, False, True),
        ("bn", 0.5, False, True),  # 20 / (20 + 20)
        ("gn", None, True, False),
    ]
    batches = Digits().test(batch_size=20)[:2]
    model = load("bn").model
    for one, network in zip(found["networks"], (model, with_share(model, 1.0)), strict=False):
        for kind, severity in (("fog", 5), ("jpeg_compression", 1)):
            with torch.no_grad():
                right = [network(corrupted(b, CORRUPTIONS[kind], severity).x).argmax(1) == b.y for b in batches]
            assert one["cells"][kind][str(severity)]["value"] == torch.cat(right).float().mean()
        assert one["mean"]["value"] == pytest.approx(
            np.mean([s["value"] for k in one["cells"].values() for s in k.values()])
        )
    assert found["n"] == 40
    assert found["images"] == "generated"
    assert found["ce"].startswith("mean CE (2 kinds")
    assert found["networks"][3]["errors"]["mean"]["value"] == 1
    assert "mCE" not in out
    assert "gn was not adapted" in out
    assert "bn: with batch statistics alone (alpha 1)" in out
    rows = list(csv.DictReader((Path("OUT") / "shifts.csv").read_text().splitlines()))
    assert len(rows) == 4 * (1 + 2 * 2)
    assert float(rows[0]["accuracy"]) == found["networks"][0]["clean"]["value"]
    page = (Path("OUT") / "shifts.html").read_text()
    for sentence in found["sentences"]:
        assert sentence in html.unescape(page)
    assert page.count("data:image/png;base64,") == 2
    assert "who can put images into the batch" in page
    assert not re.search(r"(src|href)=\"https?:", page)
    assert "normwise audit" in page
    assert {path.name for path in Path("OUT/figures").iterdir()} >= {"severity.svg", "alpha.svg"}


def test_cells_of_a_network_of_equal_weights_are_not_taken_for_its_own():
    settings = Shifts(models=("signed:network",), kinds=("contrast",), severities=(1,), adapt=(), rows=50, device="cpu")
    first = run_shifts(settings, Path("signed"))
    sys.modules["signed"].network.sign = -1
    assert (
        run_shifts(settings, Path("signed"))["networks"]
        == run_shifts(settings, Path("fresh"))["networks"]
        != first["networks"]
    )


def test_a_killed_run_goes_on_to_the_same_record():
    words = [
        "shifts",
        "bn",
        "--rows",
        "50",
        "--batch_size",
        "25",
        "--severities",
        "3",
        "--kinds",
        "gaussian_noise,fog,snow,frost",
    ]
    done(*words, "--out", "whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "normwise", *words, "--out", "cut"], stderr=subprocess.DEVNULL, env={**os.environ}
    )
    first = Path("cut/cells/0-gaussian_noise.json")
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    stamp = first.stat().st_mtime_ns
    assert not Path("cut/shifts.json").exists()
    done(*words, "--out", "cut")
    assert first.stat().st_mtime_ns == stamp, "finished answers are read, not asked again"
    assert record("cut")["networks"] == record("whole")["networks"]
    cell = Path("cut/cells/0-fog.json")
    cell.write_text(cell.read_text().replace('"key": "', '"key": "x'))  # answers of something else
    done(*words, "--out", "cut")
    assert record("cut")["networks"] == record("whole")["networks"]
    assert "other settings" in say(*words, "--seed", 1, "--out", "cut").err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("shifts", "no model is named; write normwise shifts MODEL"),
        ("shifts bn --kinds fogg", "no corruption is named 'fogg'; did you mean 'fog'?"),
        ("shifts bn --severities 1,6", "a severity is a whole number from 1 to 5; got 6"),
        ("shifts bn --adapt 0,1.5", "adapt holds 1.5; give shares of the batch from 0 to 1"),
        ("shifts bn --adapt lots", "--adapt is lots; expected [number,...]"),
        ("shifts bn bn", "models are bn, bn; name each once"),
        ("shifts bn --severities 2,2", "severities are 2, 2; name each once"),
        ("shifts bn --images published", "published, which is CIFAR-10-C; data is digits"),
        ("shifts bn --weights x.pt", "for 0 functions"),
        ("shifts rectified:net", "cannot read a share of the batch, as adapt asks: 1 (Rectified) cannot; say --adapt"),
        ("shifts nowhere", "no model 'nowhere'"),
        ("shifts bn --data clips.npz", "shifts needs"),
    ],
)
def test_bad_input_is_one_line(words, said):
    np.savez("clips.npz", x=np.zeros((4, 1, 3, 8, 8), np.uint8), y=np.arange(4))
    status, _, err = say(*words.split(), "--out", "bad")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert said in err or ("clips" in words and "single frames" in err)
    assert not Path("bad").exists()


def test_the_kinds_are_listed():
    out = done("list", "corruptions")
    assert all(name in out for name in CORRUPTIONS)
