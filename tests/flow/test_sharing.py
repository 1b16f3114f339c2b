"""`push`, `pull` and `hub:USER/NAME`, against a server in this process that answers as the hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

import normwise as nw
from normwise.__main__ import main
from normwise.config import read_yaml
from normwise.experiments.experiment import Experiment, run
from normwise.experiments.private import hidden
from normwise.models import hub
from normwise.records import read_result
from normwise.utils.model_state import digest

pytest.importorskip("huggingface_hub")
TOKEN = "hf_" + "Q" * 34
EXPERIMENT = Experiment(
    data=nw.Digits(train_limit=32, validation_size=8, test_limit=40),
    model=nw.ResNet(depth=8, width=4),
    attacks=(nw.FGSM(),),
    strongest=(),
    threat=nw.Linf(0.1),
    schedule=nw.Schedule(epochs=1, lr=0.01),
    seed=3,
    batch_size=20,
)


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that a push of small files and a fetch need; repositories live in the server."""

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self):
        path, held = urlsplit(self.path).path, self.server.repositories
        self.server.asked.append((path, self.headers.get("User-Agent", "")))
        if found := re.fullmatch(r"/api/models/(\w+/[\w.-]+)(/revision/\w+)?", path):
            if found[1] == "ada/forbidden":
                return self.answer(403)
            if found[1] not in held:
                return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
            one = held[found[1]]
            files = [{"rfilename": name, "size": one["sizes"].get(name, len(data))} for name, data in one["files"].items()]
            return self.answer(200, {"id": found[1], "sha": one["sha"], "private": one["private"], "siblings": files})
        found = re.fullmatch(r"/(\w+/[\w.-]+)/resolve/(\w+)/(.+)", path)
        data = held[found[1]]["files"][found[3]]
        return self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": found[2]})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path, held = urlsplit(self.path).path, self.server.repositories
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name == "ada/forbidden":
                return self.answer(403)
            address = f"{self.server.address}/{name}"
            if name in held:
                return self.answer(409, {"url": address})
            private = asked.get("visibility") == "private"
            held[name] = {"sha": "0" * 40, "private": private, "files": {".gitattributes": b""}, "sizes": {}}
            return self.answer(200, {"url": address})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        name = re.fullmatch(r"/api/models/(\w+/[\w.-]+)/commit/main", path)[1]
        one = held[name]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                one["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "deletedFile":
                del one["files"][line["value"]["path"]]
        one["sha"] = hashlib.sha1(body).hexdigest()
        return self.answer(200, {"commitUrl": f"{self.server.address}/{name}/commit/{one['sha']}", "commitOid": one["sha"]})


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The stand-in, and the settings that lead to it and to a cache of this test alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address, server.repositories, server.asked = f"http://127.0.0.1:{server.server_port}", {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    hub.huggingface()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.fetched.cache_clear()
    yield server
    hub.fetched.cache_clear()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    run(EXPERIMENT, folder)
    return folder


def refused(capsys, *words):
    """The one line of a command that is refused."""
    assert main([*words]) == 2
    message = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("normwise: ") for line in message) == 1
    return message[-1]


def test_what_is_pushed_comes_back_with_the_same_bits_and_settings(trained, server, tmp_path, capsys):
    assert main(["push", str(trained), "ada/net"]) == 0
    assert f"pushed: {server.address}/ada/net" in capsys.readouterr().out
    assert main(["pull", "ada/net", "--out", str(tmp_path / "net")]) == 0
    assert "audit: not audited" in capsys.readouterr().out
    own, pulled, named = (nw.load(spec).model for spec in (str(trained), str(tmp_path / "net"), "hub:ada/net"))
    assert digest(own) == digest(pulled) == digest(named)
    assert read_yaml(tmp_path / "net/config.yaml") == read_yaml(trained / "config.yaml")
    assert main(["evaluate", "hub:ada/net", "--out", str(tmp_path / "e")]) == 0
    before, after = read_result(trained / "result.json").evaluation, read_result(tmp_path / "e/result.json").evaluation
    same = ("data", "threat", "attacks", "seed", "n", "batch_size", "clean_accuracy", "robust_accuracy", "digest_before")
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]
    assert f"hub:ada/net is at commit {server.repositories['ada/net']['sha']}" in after.provenance["weights"]
    assert main(["pull", "ada/net", "--out", str(tmp_path / "net")]) == 0  # the same again
    assert "files of something else" in refused(capsys, "pull", "ada/net", "--out", str(trained))


def test_no_path_and_no_token_is_pushed(trained, server, tmp_path, monkeypatch):
    """Planted wherever a record names one: the data, the network to start from, a command, a sentence, the environment."""
    place = tmp_path / "planted place"
    place.mkdir()
    digits = EXPERIMENT.data.arrays()
    arrays = {"x_train": digits.train_x, "y_train": digits.train_y, "x_test": digits.test_x, "y_test": digits.test_y}
    np.savez(place / "mine.npz", **arrays)
    data = nw.ArrayFile(path=str(place / "mine.npz"), train_limit=32, validation_size=8, test_limit=40)
    monkeypatch.chdir(place)
    run(EXPERIMENT, Path("planted"))  # named by a word alone
    run(replace(EXPERIMENT, data=data, start="planted", model=Experiment.model, norm=None), place / "run")
    record = json.loads((place / "run/result.json").read_text())
    record["evaluation"]["provenance"]["command"] = f"normwise train --data.path {place}"
    record["training"]["remarks"] = [f"read {place}/x with {TOKEN} and sesame-open-now", "/elsewhere/of/nobody/net.pt"]
    (place / "run/result.json").write_text(json.dumps(record))
    monkeypatch.setenv("SOME_API_KEY", "sesame-open-now")
    audit = {"verdict": "doubtful", "claimed_accuracy": 0.5, "upper_bound": 0.1, "interval": [0, 0.2], "n": 40, "checks": []}
    audit |= {"threat": {"name": "linf", "eps": 0.1}, "coupled": False, "model": str(place / "run"), "examples": []}
    audit |= {"reasons": [f"{place / 'run'} is fragile"], "digest": record["evaluation"]["digest_before"]}
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/audit.json").write_text(json.dumps(audit))
    assert main(["push", str(place / "run"), "ada/secretive", "--private", "true", "--audit", str(tmp_path / "audit")]) == 0
    held = server.repositories["ada/secretive"]
    assert held["private"]
    assert held["files"].keys() == {".gitattributes", *hub.LIMITS}
    for file, content in held["files"].items():
        for planted in (b"planted", b"mine.npz", b"/elsewhere", TOKEN.encode(), b"sesame", str(Path.home()).encode() + b"/"):
            assert planted not in content, file
    assert nw.DATA.make(json.loads(held["files"]["model.json"])["data"]) == replace(data, path="")
    card = held["files"]["README.md"].decode()
    for shown in (
        "Doubtful: claimed 50.0%",
        "is fragile",
        "## Threat card",
        "95% interval",
        "hub:ada/secretive",
        "not claimed",
    ):
        assert shown in card
    assert nw.load("hub:ada/secretive").model(torch.zeros(2, *digits.test_x.shape[1:])).shape == (2, 10)


def test_figures_of_other_weights_are_not_pushed(trained, server, tmp_path, capsys):
    for file in trained.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    result = json.loads((trained / "result.json").read_text())
    result["evaluation"]["digest_before"] = "0" * 16
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert "of other weights" in refused(capsys, "push", str(tmp_path), "ada/net")
    (tmp_path / "model.json").write_text(json.dumps({"start": "os:getcwd", "norm": None}))
    assert "needs os:getcwd" in refused(capsys, "push", str(tmp_path), "ada/net")
    (tmp_path / "result.json").unlink()
    assert "holds no result.json" in refused(capsys, "push", str(tmp_path), "ada/net")
    assert server.repositories == {}


def test_a_repository_of_somebody_else_is_left_as_it_is(trained, server, capsys):
    main(["push", str(trained), "ada/net"])
    held = server.repositories["ada/net"]
    held["files"]["audit.json"] = b"{}"  # of earlier weights
    assert main(["push", str(trained), "ada/net"]) == 0
    assert "audit.json" not in held["files"]
    assert "is public already" in refused(capsys, "push", str(trained), "ada/net", "--private", "true")
    held["files"]["thesis.pdf"] = b""
    assert "holds other files (thesis.pdf)" in refused(capsys, "push", str(trained), "ada/net")


def test_what_the_hub_refuses_is_one_line(trained, server, capsys, monkeypatch):
    for verb in (["pull", "ada/forbidden"], ["push", str(trained), "ada/forbidden"], ["evaluate", "hub:ada/forbidden"]):
        assert "no permission" in refused(capsys, *verb)
    assert "knows no ada/nobody" in refused(capsys, "evaluate", "hub:ada/nobody")
    assert "'ada' is no repository" in refused(capsys, "evaluate", "hub:ada")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refused(capsys, "pull", "ada/net")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert "pip install 'normwise[hub]'" in refused(capsys, "pull", "ada/net")


def test_a_network_from_the_hub_runs_no_function_and_no_large_file_is_fetched(trained, server, tmp_path, capsys):
    main(["push", str(trained), "ada/net"])
    held = server.repositories["ada/net"]
    held["sizes"]["model.json"] = 2**21
    assert "model.json of ada/net is of 2 MiB, and at most 1 MiB" in refused(capsys, "pull", "ada/net")
    assert not [path for path, _ in server.asked if "/resolve/" in path]
    held["sizes"], card = {}, json.loads(held["files"]["model.json"])
    called = tmp_path / "called"
    (tmp_path / "trap.py").write_text(f"open({str(called)!r}, 'w')")
    held["files"]["model.json"] = json.dumps(card | {"start": "trap:net"}).encode()
    assert "holds weights of trap:net" in refused(capsys, "evaluate", "hub:ada/net", "--out", str(tmp_path / "e"))
    hub.fetched.cache_clear()
    held["sha"], held["files"]["model.json"] = "1" * 40, json.dumps(card).encode()
    held["files"]["config.yaml"] += b"craft_on: trap:net\n"
    assert main(["evaluate", "hub:ada/net", "--out", str(tmp_path / "e")]) == 0
    assert not called.exists()
    assert not [agent for _, agent in server.asked if "torch/" in agent]  # as its telemetry would say


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("8/255 and/or https://a.b/c", "8/255 and/or https://a.b/c"),
        ("from runs/a/model.safetensors", "from (local)model.safetensors"),
        ("./runs/a/x; hub:runs/a/x", "./(local)x; hub:runs/a/x"),
        ("~/x /home/me/a.pt C:\\Users\\me", "(local) (local) (local)"),
        ("https://me:secret@hub.org", "https://(local)hub.org"),
        (f"token {TOKEN}", "token (local)"),
    ],
)
def test_what_is_hidden(text, left):
    assert hidden(text, ["runs/a/"]) == left
