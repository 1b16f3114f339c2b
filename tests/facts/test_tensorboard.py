"""TensorBoard beside the log: the same figures, and the drift of running statistics."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import normwise as nw
from normwise.seeding import drawing
from normwise.training.state import save_state
from normwise.training.watching import drift, statistics
from normwise.utils.model_state import digest
from toys import Small

DATA = nw.Digits(train_limit=32, validation_size=8, test_limit=4)


def fitted(folder, **options):
    model = nw.ResNet(depth=8, width=4)(nw.BN(), classes=10, mean=DATA.mean, std=DATA.std)
    schedule = nw.Schedule(epochs=2, lr=0.01, batch_size=16, validate_every=1)
    given = nw.FitOptions(folder=folder, **options)
    with drawing(0):
        model.apply(lambda part: part.reset_parameters() if isinstance(part, nn.Conv2d | nn.Linear) else None)
    return nw.fit(model, DATA, nw.Standard(), nw.Linf(0.1), schedule, seed=0, options=given).model


def read(folder):
    """Every scalar of a folder of events: {tag: [(step, value)]}."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    held = events.EventAccumulator(str(folder))
    held.Reload()
    return {tag: [(one.step, one.value) for one in held.Scalars(tag)] for tag in held.Tags()["scalars"]}


def test_the_events_say_what_the_log_says_and_no_weight_changes(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    plain = fitted(tmp_path / "a")
    assert digest(fitted(tmp_path / "b", tensorboard=True)) == digest(plain)
    lines = [json.loads(line) for line in (tmp_path / "b/log.jsonl").read_text().splitlines()]
    found = read(tmp_path / "b/tensorboard")
    tags = {"loss": "loss/train", "train_accuracy": "accuracy/train", "lr": "learning rate"}
    for name, tag in (tags | {"validation_clean": "accuracy/validation_clean"}).items():
        assert dict(found[tag]) == pytest.approx({line["epoch"]: line[name] for line in lines})
    drifts = {tag for tag in found if tag.startswith("drift/")}
    assert len(drifts) == 9
    assert all([step for step, _ in found[tag]] == [1, 2] and min(dict(found[tag]).values()) > 0 for tag in drifts)
    assert not (tmp_path / "a/tensorboard").exists()

    def full(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(
            "normwise.training.loop.save_state", lambda *args: (full if args[2].epoch == 2 else save_state)(*args)
        )
        with pytest.raises(OSError, match="no space left"):
            fitted(tmp_path / "c", tensorboard=True)
    fitted(tmp_path / "c", tensorboard=True)
    assert read(tmp_path / "c/tensorboard") == found  # no epoch twice, and drift from the state that was read


def test_drift_is_the_shift_of_the_running_mean_in_running_deviations():
    one, other = Small(), Small()
    one.norm.running_var.fill_(4.0)
    other.norm.running_mean.copy_(torch.arange(8.0))
    assert drift(statistics(one), statistics(other)) == {"norm": pytest.approx(3.5 / math.sqrt(4 + 1e-5))}
    assert drift(statistics(Small(nw.RNT())), statistics(Small(nw.RNT()))) == {"norm": 0}
    assert statistics(Small(nw.GN(groups=2))) == {}


def test_a_missing_extra_and_a_missing_folder_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'normwise\[tensorboard\]'"):
        fitted(tmp_path, tensorboard=True)
    with pytest.raises(ValueError, match="no folder to write into"):
        nw.FitOptions(tensorboard=True)
