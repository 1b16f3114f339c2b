"""Files of shifted CIFAR-10, shares of the batch, and the figures of a shift: known on paper."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from normwise.data import CORRUPTIONS, Cifar10, Cifar10C, Cifar101, find
from normwise.evaluation.shifts.metrics import Answers, Resampled, damage, errors
from normwise.evaluation.shifts.run import Shifts, run_shifts
from normwise.evaluation.shifts.summary import called, sentences
from normwise.norms import GN, NORMS
from normwise.norms.site import norm_reads
from normwise.norms.surgery.adaptation import share_of, with_share
from normwise.types import Batch
from normwise.utils.model_state import digest
from toys import Small, images, trained


def cifar10c(root: Path, rows: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10-C with few rows: pixels of fog, and the labels of one severity."""
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    rng = np.random.default_rng(0)
    y = np.arange(rows, dtype=np.uint8)
    fog = rng.integers(0, 256, (5 * rows, 32, 32, 3)).astype(np.uint8)
    for kind in CORRUPTIONS:
        np.save(folder / f"{kind}.npy", fog if kind == "fog" else np.full((5 * rows, 32, 32, 3), 7, np.uint8))
    np.save(folder / "labels.npy", np.tile(y, 5))
    return fog, y


def test_a_severity_of_cifar10c_is_its_fifth_of_the_file(tmp_path):
    fog, y = cifar10c(tmp_path)
    data = Cifar10C(root=str(tmp_path), kind="fog", severity=3)
    (batch,) = data.test(batch_size=10)
    assert torch.equal(batch.x, torch.from_numpy(fog[8:12]).movedim(-1, 1) / 255)
    assert batch.y.tolist() == y.tolist()
    assert data.classes == 10
    assert data.present
    assert find(str(tmp_path)).name == "cifar10c"
    some = data.of(Batch(torch.zeros(2, 3, 32, 32), torch.tensor([3, 1]), torch.tensor([3, 1])))
    assert torch.equal(some.x, batch.x[[3, 1]])
    with pytest.raises(ValueError, match="CIFAR-10's test images; got images with other labels"):
        data.of(Batch(torch.zeros(1, 3, 32, 32), torch.tensor([0]), torch.tensor([3])))


def test_cifar101_is_read_in_both_versions(tmp_path):
    for version, rows in (("v4", 3), ("v6", 5)):
        np.save(tmp_path / f"cifar10.1_{version}_data.npy", np.full((rows, 32, 32, 3), 200, np.uint8))
        np.save(tmp_path / f"cifar10.1_{version}_labels.npy", np.arange(rows, dtype=np.int32))
        (batch,) = Cifar101(root=str(tmp_path), version=version).test(batch_size=10)
        assert batch.x.shape == (rows, 3, 32, 32)
        assert batch.y.tolist() == list(range(rows))
    with pytest.raises(ValueError, match="versions v6 and v4; got v5"):
        Cifar101(version="v5")


def _code(folder: Path) -> None:
    (folder / "fog.npy").write_bytes(pickle.dumps(print))


def _shape(folder: Path) -> None:
    np.save(folder / "fog.npy", np.zeros((20, 3, 32, 32), np.uint8))


def _type(folder: Path) -> None:
    np.save(folder / "fog.npy", np.zeros((20, 32, 32, 3), np.float32))


def _torn(folder: Path) -> None:
    (folder / "fog.npy").write_bytes((folder / "fog.npy").read_bytes()[:5000])


def _labels(folder: Path) -> None:
    np.save(folder / "labels.npy", np.full(20, 10))


def _unequal(folder: Path) -> None:
    np.save(folder / "labels.npy", np.arange(20) % 10)


def _absent(folder: Path) -> None:
    (folder / "fog.npy").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_code, "fog.npy must be images of cifar10c"),
        (_shape, r"uint8 of shape \(20, 32, 32, 3\); got uint8 of shape \(20, 3, 32, 32\)"),
        (_type, "got float32 of shape"),
        (_torn, "fog.npy must be images of cifar10c"),
        (_labels, "labels.npy must be the labels of cifar10c, integers 0 to 9"),
        (_unequal, "do not repeat for each of 5 severities"),
        (_absent, "zenodo.org/records/2535967"),
    ],
)
def test_files_that_are_wrong_are_refused_in_one_line(tmp_path, spoil, said):
    cifar10c(tmp_path)
    spoil(tmp_path / "CIFAR-10-C")
    with pytest.raises(ValueError, match=said) as error:
        Cifar10C(root=str(tmp_path), kind="fog").test(batch_size=3)
    assert "\n" not in str(error.value)


def test_settings_of_the_files_are_refused():
    for options, said in (
        ({"kind": "fogg"}, "did you mean 'fog'"),
        ({"severity": 6}, "got 6"),
        ({"download": True}, "by hand"),
    ):
        with pytest.raises(ValueError, match=said):
            Cifar10C(**options)


NET = """
import torch
from torch import nn

class Dark(nn.Module):  # class 0 for dark images, else class 1
    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5, *[mean - 9] * 8], 1)
"""


def test_published_files_are_read_where_they_are(tmp_path, monkeypatch):
    cifar10c(tmp_path)
    (tmp_path / "dark.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rows = b"".join(bytes([label]) + bytes([255 * label % 256]) * 3072 for label in range(4))
    for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / f"{part}.bin").write_bytes(rows)
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    np.save(tmp_path / "cifar10.1_v6_data.npy", np.zeros((3, 32, 32, 3), np.uint8))
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.zeros(3, np.int64))
    (tmp_path / "CIFAR-10.1").mkdir()
    for file in tmp_path.glob("cifar10.1*"):
        file.rename(tmp_path / "CIFAR-10.1" / file.name)
    data = Cifar10(root=str(tmp_path), validation_size=0)
    asked = {"models": ("dark:Dark",), "data": data, "severities": (2,), "rows": 4, "batch_size": 2}
    found = run_shifts(Shifts(**asked), tmp_path / "out")
    (one,) = found["networks"]
    assert found["images"] == "published"
    assert one["clean"]["value"] == 0.5  # 0 is dark; 1, 2 and 3 are bright, and called 1
    assert one["cells"]["snow"]["2"]["value"] == 0.25  # of 7s: all dark, one of four is class 0
    assert one["others"]["cifar10.1"]["value"] == 1
    assert one["others"]["cifar10.1"]["rows"] == 2  # whole batches
    made = run_shifts(Shifts(**asked, images="generated"), tmp_path / "made")
    assert made["images"] == "generated"
    assert not made["networks"][0]["others"]
    for kind in CORRUPTIONS:
        (tmp_path / "CIFAR-10-C" / f"{kind}.npy").unlink()
    with pytest.raises(ValueError, match="zenodo"):
        run_shifts(Shifts(**asked, images="published"), tmp_path / "lacking")


# Shares of the batch.


def test_shares_go_from_running_statistics_to_the_batch():
    model, x = trained(), 0.5 * images(16, seed=5)
    before = digest(model)
    assert share_of(model) == 0.0
    assert torch.allclose(with_share(model, 0.0)(x), model(x), atol=1e-6)
    own = with_share(model, 1.0)
    batch = trained()
    batch.norm.train()
    batch.norm.momentum = 0.0
    assert torch.allclose(own(x), batch(x), atol=1e-5)
    assert not torch.allclose(own(x), model(x), atol=1e-2)
    half = with_share(model, 0.5)
    seen = model.conv1(x).detach()
    mean = (model.norm.running_mean + seen.mean((0, 2, 3))) / 2
    var = (model.norm.running_var + seen.var((0, 2, 3), correction=0)) / 2
    want = nn.functional.batch_norm(seen, mean, var, model.norm.weight, model.norm.bias, False, 0.0, model.norm.eps)
    assert torch.allclose(half.norm(seen), want, atol=1e-5)
    assert digest(model) == before
    assert not model.training
    assert not half.training
    assert share_of(half) == 0.5
    assert norm_reads(own) == {"batch": 1}


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_is_shared_or_has_nothing_to_share(name):
    model = trained(NORMS.make(name))
    if share_of(model) is None:
        with pytest.raises(ValueError, match="nothing to adapt"):
            with_share(model, 1.0)
    else:
        assert share_of(with_share(model, 0.25)) == 0.25
        assert norm_reads(with_share(model, 1.0)) == {"batch": 1}
        assert torch.isfinite(with_share(model, 1.0)(images(8))).all()


def test_layers_of_single_samples_are_left_alone_and_not_shared_with_the_original():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)).eval()
    made = with_share(model, 1.0)
    assert isinstance(made[2], nn.GroupNorm)
    assert made[2] is not model[2]
    assert made[2].weight is not model[2].weight
    assert isinstance(model[1], nn.BatchNorm2d)
    assert share_of(Small(GN(groups=2))) is None
    mixed = trained(NORMS.make("bnm"))
    assert math.isnan(share_of(mixed))
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match="a number from 0 to 1"):
            with_share(model, share)


# Figures of a shift.


def answered(clean: float, *shares: tuple[float, ...], rows: int = 200, coupled: bool = False, step: int = 77) -> Answers:
    """Answers of which these shares are right: clean, then per kind by severity; spread over batches, or with step 1 not."""

    def bits(share: float) -> np.ndarray:
        return step * np.arange(rows) % rows < round(share * rows)

    cells = {kind: {s: bits(one) for s, one in enumerate(each, 1)} for kind, each in zip(CORRUPTIONS, shares, strict=False)}
    return Answers(coupled=coupled, size=20, clean=bits(clean), cells=cells)


def test_corruption_errors_are_those_of_the_paper():
    ours, base = answered(0.9, (0.8, 0.6), (0.7, 0.5)), answered(0.8, (0.6, 0.4), (0.6, 0.6))
    found = errors(ours, base)
    assert list(found.kinds.values()) == pytest.approx([(0.2 + 0.4) / (0.4 + 0.6), (0.3 + 0.5) / (0.4 + 0.4)])
    assert found.mean.value == pytest.approx((0.6 + 1.0) / 2)
    assert found.mean.low <= found.mean.value <= found.mean.high
    relative = [(0.1 + 0.3) / (0.2 + 0.4), (0.2 + 0.4) / (0.2 + 0.2)]
    assert found.relative.value == pytest.approx(sum(relative) / 2)
    assert errors(base, base).mean.value == 1.0 == errors(base, base).mean.low
    perfect = answered(1.0, (1.0, 1.0), (0.5, 0.5))
    assert errors(ours, perfect).mean is None
    assert next(iter(errors(ours, perfect).kinds.values())) is None
    assert errors(ours, perfect).relative is None


def test_means_gains_and_their_intervals():
    own, more = answered(0.9, (0.8, 0.6)), answered(0.9, (0.9, 0.7))
    found = damage("net", 1.0, more, own, None)
    assert found.mean.value == pytest.approx(0.8)
    assert found.gain.value == pytest.approx(0.1)
    assert {s: e.value for s, e in found.severities.items()} == pytest.approx({"1": 0.9, "2": 0.7})
    width = 2 * 1.96 * math.sqrt(0.7 * 0.3 / 200)
    assert found.severities["2"].high - found.severities["2"].low == pytest.approx(width, rel=0.15)
    assert 0 < found.gain.low < 0.1 < found.gain.high  # rows are paired
    assert damage("net", 0.0, own, own, None).gain.low == 0 == damage("net", 0.0, own, own, None).gain.high
    whole = damage("net", 1.0, answered(0.9, (0.9, 0.7), coupled=True, step=1), own, None)  # all errors are in three batches
    assert whole.severities["2"].high - whole.severities["2"].low > 1.5 * width
    assert whole.cells["gaussian_noise"]["1"].unit == "batches"
    assert Resampled([own]).point.tolist() == pytest.approx([0.9, 0.8, 0.6])


def test_the_verdict_is_made_of_the_figures():
    own = damage("net", 0.0, answered(0.9, (0.8, 0.6)), None, None)
    base = answered(0.9, (0.8, 0.6))
    reason = [
        sentences([own, damage("net", 1.0, answered(0.9, shares, coupled=True), base, None)], "1 kind", "CE", "")[1]
        for shares in ((0.9, 0.7), (0.7, 0.5), (0.8, 0.6))
    ]
    assert "rises" in reason[0]
    assert "from 70.0% to 80.0% (+10.0 points" in reason[0]
    assert "coupled" in reason[0]
    assert "falls" in reason[1]
    assert "does not clearly change" in reason[2]
    assert called(list(CORRUPTIONS), [1, 2, 3, 4, 5]) == "mCE"
    assert called(["fog"], [1, 2, 3, 4, 5]) == "mean CE (1 kind, severities 1, 2, 3, 4, 5)"
    assert called(list(CORRUPTIONS), [5]) == "mean CE (15 kinds, severity 5)"
    without = damage("net", None, answered(0.9, (0.8, 0.6)), None, None)
    assert any("no running statistics" in one for one in sentences([without], "1 kind", "CE", ""))
    assert json.dumps(reason)
