"""`export`: the program answers as the network does, in batches of any size; coupled images are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import normwise as nw
from normwise.__main__ import main
from normwise.models import checkpoints
from normwise.registry import plain
from toys import some

DATA = ["--data.test_limit", "12", "--rows", "8"]


def saved(folder, norm):
    """A ResNet-8 whose running statistics are those of the digits."""
    data = nw.Digits(test_limit=12)
    model = nw.recalibrate(
        nw.ResNet(depth=8, width=4)(norm, classes=10, mean=data.mean, std=data.std), data.test(batch_size=12)
    )
    card = {"start": "", "model": plain(nw.ResNet(depth=8, width=4)), "norm": plain(norm), "classes": 10}
    checkpoints.save(model, folder, card | {"mean": data.mean, "std": data.std, "data": plain(data)})
    return model.eval(), torch.cat([batch.x for batch in data.test(batch_size=5)])


@pytest.mark.parametrize("norm", some(["bn", "rnt", "multibn"], "bn"))
def test_a_program_of_torch_answers_as_the_network(norm, tmp_path):
    model, x = saved(tmp_path / "net", nw.NORMS.make(norm))
    assert main(["export", str(tmp_path / "net"), *DATA, "--out", str(tmp_path / "out")]) == 0
    program = torch.export.load(tmp_path / "out.pt2").module()
    for rows in (1, 5, 12):
        torch.testing.assert_close(program(x[:rows]), model(x[:rows]))
    record = json.loads((tmp_path / "out.pt2.json").read_text())
    assert record["largest_difference"] <= record["tolerance"] < 1e-3
    assert (record["rows"], record["batch_sizes"], record["other_decisions"]) == (8, [1, 3, 8], 0)


def test_an_onnx_graph_answers_as_the_network(tmp_path):
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module)
    runtime = pytest.importorskip("onnxruntime")
    model, x = saved(tmp_path / "net", nw.BN())
    assert main(["export", str(tmp_path / "net"), *DATA, "--format", "onnx", "--out", str(tmp_path / "out.onnx")]) == 0
    session = runtime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    for rows in (1, 12):
        np.testing.assert_allclose(session.run(None, {"images": x[:rows].numpy()})[0], model(x[:rows]).detach(), atol=1e-4)


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    saved(tmp_path / "net", nw.RN())
    words = ["export", str(tmp_path / "net"), *DATA, "--out"]
    assert main([*words, str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "net answers to an image by the other images of its batch: 9 norms read batch statistics (bn1, ...)" in message
    assert main([*words, str(tmp_path / "out.onnx")]) == 2
    assert "a program of format torch in .pt2" in capsys.readouterr().err
    saved(tmp_path / "net", nw.BN())
    assert main([*words, str(tmp_path / "out"), "--data.test_limit", "1"]) == 2
    assert "export compares answers to two images or more; digits has 1 to test" in capsys.readouterr().err
    monkeypatch.setattr(
        "normwise.experiments.export._ask_torch", lambda content, batches: [x.new_ones(len(x), 10) for x in batches]
    )
    assert main([*words, str(tmp_path / "out")]) == 2
    assert "answers otherwise" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert main([*words, str(tmp_path / "out"), "--format", "onnx"]) == 2
    assert "pip install 'normwise[onnx]'" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"net"}
