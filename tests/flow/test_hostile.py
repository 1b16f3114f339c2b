"""Hostile command lines: each is refused in one line with status 2, without a traceback, and leaves every file as it was."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from normwise.__main__ import main
from toys import some

SMALL = shlex.split(
    "--model.width 4 --data.train_limit 20 --data.test_limit 10 --schedule.epochs 1 --attacks fgsm --strongest []"
)
NETS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))

def nothing(): return None
def pair(): return net(), 0.5
def kind(): return nn.Identity
def needs(x): return net()
def ends(): raise SystemExit(3)
def stops(): raise MemoryError
class Odd(nn.Module):
    def __init__(self, width): super().__init__()
deep = None
"""
T, E = "train --model.width 4", "evaluate odd:net"
FOREIGN = ("notes", "pictures", "run", "audited", "torn", "half", "mine")  # folders that others filled
WRITING = (
    "train",
    "bench",
    "evaluate odd:net",
    "attack odd:net",
    "audit odd:net",
    "diagnose odd:net",
    "shifts odd:net",
    "selftest",
    "reproduce",
    "report run",
)
HOSTILE = [
    *((f"{verb} --out {folder}", "--out") for verb in WRITING for folder in ("notes", "pictures")),
    *((f"{verb} --out run", "holds a run with other settings") for verb in WRITING if verb not in ("train", "evaluate odd:net", "report run")),
    (f"{E} --out audited", "holds a run with other settings"),
    (f"{E} --out torn", "config.yaml"),
    (f"{E} --out mine", "holds a run with other settings"),
    (f"{E} --data pictures --out pictures/runs", "is inside"),
    (f"{T} --out pictures/dog", "whose folders hold images or videos by class"),
    (f"{T} --out pictures/cat/more/deep", "whose folders hold images or videos by class"),
    (f"{E} --data pictures --out pictures/cat/more", "is inside"),
    (f"{E} --out odd.py", "cannot write in odd.py"),
    (f"{E} --out /proc/run", "cannot write in /proc/run"),
    (f"{E} --out odd.py/below", "cannot write in odd.py/below"),
    (f"{E} --out {'x' * 300}", "name too long"),
    (f"{E} --out OUT/{'x' * 300}/y", "name too long"),
    (f"{E} --out 'a\udcffb'", "is not valid UTF-8"),
    (f"{E} --out 'a\0b'", "is not valid UTF-8"),
    (f"{E} --data 'a\udcffb'", "is not valid UTF-8"),
    ("evaluate 'a\udcffb'", "is not valid UTF-8"),
    ("evaluate 'a\0b'", "is not valid UTF-8"),
    ("train --model.width 100000000", "smaller width or depth"),
    ("train --model.width 10000000000000", "smaller width or depth"),
    ("train --model.depth 6000002", "at most 1202"),
    ("train --model wrn --model.widen 1000000", "smaller width or depth"),
    ("train --model nfresnet --norm null --model.width 100000000", "smaller width or depth"),
    ("bench --model.width 100000000", "smaller width or depth"),
    (f"{T} --batch_size {10**30}", "batch_size"),
    (f"{T} --schedule.batch_size {10**30}", "batch_size"),
    (f"{T} --schedule.epochs {10**30}", "epochs"),
    (f"{T} --data.train_limit {10**30}", "train_limit"),
    (f"{T} --data.validation_size {10**30}", "validation_size"),
    (f"{T} --threads {10**30}", "threads"),
    (f"{T} --device cuda:{10**30}", "device"),
    (f"{E} --batch_size {10**30}", "batch_size"),
    (f"{E} --data.test_limit {10**30}", "test_limit"),
    (f"selftest --rows {10**30}", "rows"),
    (f"audit odd:net --rows {10**30}", "rows"),
    (f"diagnose odd:net --rows {10**30}", "rows"),
    (f"shifts odd:net --rows {10**30}", "rows"),
    (f"{T} --schedule.optimizer adamw --schedule.momentum 0.5", "only optimizer sgd uses"),
    (f"{T} --schedule.decay cosine --schedule.milestones [0.3]", "only decay multistep uses"),
    (f"{T} --schedule.decay cosine --schedule.drop 0.5", "only decay multistep uses"),
    (f"{T} --schedule.ema_buffers copy", "only an ema above 0 uses"),
    (f"{T} --train_eps 0.1", "attacks nothing in training"),
    ("train --start run --model.depth 14", "which has its own"),
    ("train run --model vgg", "which has its own"),
    ("train run --start elsewhere", "start is given twice"),
    ("train --start odd:net --model.width 8", "which has its own"),
    ("evaluate run --model odd:net", "model is given twice"),
    ("selftest --weights w.pt", "but no model is named"),
    ("selftest run --model odd:net", "model is given twice"),
    (f"{T} --substitute run --adaptive.source plain", "plain does not use"),
    (f"{T} --adaptive.source plain --adaptive.substitute_taps [a]", "plain reads no substitute"),
    (f"{E} --attacks '[{{name: autoattack, draws: 3}}]'", "version standard has none"),
    (f"{T} --norm null", "norm is null"),
    (f"{T} --recipe null", "no recipe is named 'null'"),
    ("shifts run --baseline odd:other", "other"),
    ("diagnose run run", "name each once"),
    ("evaluate odd:nothing", "returned NoneType"),
    ("evaluate odd:pair", "returned tuple"),
    ("evaluate odd:kind", "the class Identity"),
    ("evaluate odd:needs", "missing 1 required positional argument"),
    ("evaluate odd:Odd", "width"),
    ("evaluate odd:ends", "gave no network"),
    ("evaluate odd:stops", "MemoryError"),
    ("evaluate odd:deep", "gave no network"),
    ("evaluate odd:", "gave no network"),
    ("evaluate :net", "gave no network"),
    ("evaluate odd:net:net", "gave no network"),
    ("evaluate ..:net", "gave no network"),
    (f"{E} --weights notes", "no weights file"),
    (f"{E} --weights empty.pt", "is empty"),
    (f"{E} --weights page.pt", "web page"),
    (f"{E} --weights garbage.pt", "not a weights file"),
    (f"{E} --weights nets.onnx", "ONNX"),
    (f"{E} --weights other.pt", "does not fit"),
    ("evaluate half", "no weights file half/model.safetensors"),
    ("evaluate cards", "is no card of a network"),
    ("evaluate listed", "is no card of a network"),
    ("evaluate torn", "torn/config.yaml is not YAML"),
    (f"{E} --data pictures/cat", "needs images by class"),
    (f"{E} --data empties", "class ape"),
    (f"{E} --data odd.py", "must be a folder or an .npz file"),
    (f"{E} --data keys.npz", "no x_train"),
    (f"{E} --data digits --data.root x", "no option of data 'digits' is named 'root'"),
    (f"{E} --data pictures --data.size 100000000", "out of memory"),
    (f"{E} --config torn/config.yaml", "not YAML"),
    (f"{E} --config notes", "cannot be read"),
    (f"{E} --config bomb.yaml", "no setting of evaluate is named 'a'"),
    (f"{E} --config tag.yaml", "not YAML"),
    ("report notes", "holds no result.json"),
    ("report torn", "is not"),
    ("report audited", "is not the record of an audit"),
    ("report broken", "is not the record of a run"),
    ("report run run --out run", "holds a run with other settings"),
    ("list nothing", "no kind is named"),
    ("list --out x", "no option"),
    (f"{E} --attacks []", "attacks is empty"),
    (f"{E} --attacks '[{{name: pgd, steps: 1e400}}]'", "steps"),
    (f"{E} --attacks '[[[[[]]]]]'", "no attack is named"),
    (f"{E} --threat.eps 1e-400000x", "expected number"),
    (f"{E} --seed 1.5", "expected integer"),
    ("reproduce nobody", "no system is named"),
    ("reproduce --workers 0", "workers is 0"),
    ("bench --norms null", "norms"),
    ("--out", "no verb is named"),
]  # fmt: skip


def contents() -> dict[str, tuple[int, int]]:
    """Every file and folder here, with its time and size."""
    found = {}
    for place, folders, files in os.walk("."):
        for name in (*folders, *files):
            if "__pycache__" not in (place, name):
                stat = Path(place, name).lstat()
                found[str(Path(place, name))] = (stat.st_mtime_ns, stat.st_size)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, networks, and folders and files that others made."""
    place = tmp_path_factory.mktemp("hostile")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert main(["train", *SMALL, "--out", str(place / "run")]) == 0
    (place / "odd.py").write_text(NETS)
    for folder in ("notes", "torn", "half", "audited", "mine", "cards", "listed", "broken", "empties/ape"):
        (place / folder).mkdir(parents=True)
    (place / "notes/diary.txt").write_text("dear diary")
    for number, name in enumerate(("cat", "dog")):
        (place / "pictures" / name).mkdir(parents=True)
        (place / "empties" / name).mkdir(parents=True)
        for row in range(3):
            Image.new("L", (8, 8), 90 * number).save(place / "pictures" / name / f"{row}.png")
            Image.new("L", (8, 8), 90 * number).save(place / "empties" / name / f"{row}.png")
    (place / "torn/config.yaml").write_text("{a: [")
    (place / "torn/result.json").write_text('{"schema": 1, "name"')
    (place / "mine/config.yaml").write_text("database: postgres\n")
    shutil.copy(place / "run/model.json", place / "half")
    shutil.copy(place / "run/config.yaml", place / "audited")
    (place / "audited/audit.json").write_text('{"verdict": "trustworthy"}')
    (place / "cards/model.json").write_text("{")
    (place / "listed/model.json").write_text("[1, 2]")
    (place / "broken/diagnose.json").write_text(json.dumps({"models": [], "n": 3}))
    (place / "empty.pt").write_bytes(b"")
    (place / "page.pt").write_bytes(b"<!doctype html><p>sign in")
    (place / "garbage.pt").write_bytes(bytes(range(256)))
    (place / "nets.onnx").write_bytes(b"\x08\x07")
    torch.save({"fc.weight": torch.zeros(3, 3)}, place / "other.pt")
    torch.save({}, place / "w.pt")
    np.savez(place / "keys.npz", images=np.zeros((2, 1, 8, 8)))
    (place / "bomb.yaml").write_text("a: &a [1, 1]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9)))
    (place / "tag.yaml").write_text("seed: !!python/object/apply:os.system ['touch PWNED']\n")
    return place


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in that folder."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    yield
    shutil.rmtree("OUT", ignore_errors=True)


def words_of(line: str) -> list[str]:
    verb = line.split()[0]
    return [*shlex.split(line), *(["--out", "OUT"] if "--out" not in line and verb != "list" else [])]


@pytest.mark.parametrize(("line", "text"), HOSTILE, ids=[ascii(line)[1:70] for line, _ in HOSTILE])
def test_it_is_refused_in_one_line_and_leaves_every_file_as_it_was(line: str, text: str) -> None:
    before, out, err = contents(), io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(words_of(line))
    assert (status, out.getvalue()) == (2, ""), err.getvalue()
    assert len(err.getvalue().splitlines()) == 1, err.getvalue()
    assert err.getvalue().startswith("normwise: ")
    assert text in err.getvalue()
    assert contents() == before


PROCESSES = [
    "train --out notes", "evaluate odd:net --out pictures", b"evaluate odd:net --out a\xffb", "train --model.width 100000000 --out OUT",
    "evaluate odd:ends --out OUT", "evaluate odd:net --weights garbage.pt --out OUT", "report broken --out OUT",
    "evaluate odd:net --data empties --out OUT", "audit odd:net --out run", "nothing",
]  # fmt: skip


def command(line: str | bytes) -> list[bytes]:
    line = line.encode() if isinstance(line, str) else line
    return [os.fsencode(sys.executable), b"-m", b"normwise", *line.split()]


@pytest.mark.parametrize("line", some(PROCESSES, PROCESSES[2], PROCESSES[4], "nothing"), ids=lambda line: ascii(line)[:50])
def test_as_a_process_it_ends_with_2_and_one_line_too(line: str | bytes) -> None:
    before = contents()
    said = subprocess.run(command(line), capture_output=True, check=False)
    assert (said.returncode, said.stdout) == (2, b""), said.stderr
    assert len(said.stderr.splitlines()) == 1, said.stderr
    assert contents() == before


@pytest.mark.parametrize("line", ["list attacks", "--help", "train --help", "train --print_config"])
def test_a_closed_pipe_is_no_error(line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # before anything is written: the earliest that `head` can be gone
    said = subprocess.run(command(line), stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (said.returncode, said.stderr) == (0, b"")


def heard() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_before_anything_was_finished_promises_nothing_and_leaves_nothing() -> None:
    line = "train --model.width 64 --schedule.epochs 50 --out OUT/deep/run"
    cut = subprocess.Popen(command(line), stderr=subprocess.PIPE, preexec_fn=heard)
    while not Path("OUT/deep/run/config.yaml").exists() and cut.poll() is None:
        time.sleep(0.01)
    cut.send_signal(signal.SIGINT)
    err = cut.communicate()[1].decode()
    assert cut.returncode == 130, err
    assert err == "normwise: stopped; nothing was finished\n"
    assert not Path("OUT").exists()


def test_ctrl_c_while_modules_are_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("normwise.__main__._answered", stop)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "normwise: stopped before anything started\n"
