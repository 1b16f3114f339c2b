"""Killed at any write, a run ends with the bits of one that was not killed, and leaves no file that is not whole."""

from __future__ import annotations

import io
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from normwise.__main__ import main
from toys import some

SMALL = "--model.width 4 --data.train_limit 40 --data.test_limit 20 --attacks fgsm --strongest []"
VERBS = {
    "train": f"train {SMALL} --schedule.epochs 2",
    "evaluate": "evaluate ../run --batch_size 5 --data.test_limit 20 --attacks fgsm --strongest []",
    "audit": "audit ../run --rows 6 --at_once 3 --victims 2 --twin none",
    "bench": f"bench {SMALL} --norms bn --recipes [standard] --schedule.epochs 1 --jobs 1",
}  # fmt: skip
REPLACE = Path.replace
CLOCKS = {"seconds", "command", "commit", "hardware", "versions", "provenance"}


def done(line: str) -> int:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return main([*shlex.split(line), "--out", "out"])


def timeless(found: Any) -> Any:
    """A record without what a clock, a machine or a checkout said."""
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key not in CLOCKS}
    return [timeless(one) for one in found] if isinstance(found, list) else found


def left(folder: Path) -> dict[str, Any]:
    """What a run has left: of records all but the clocks, of weights and tables the bytes, of the rest that it is there."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "figures" not in path.parts:
            text = path.read_bytes()
            whole = path.suffix in (".safetensors", ".yaml") or path.name == "rows.csv"
            lines = text.decode().splitlines() if path.suffix == ".jsonl" else [text] if path.suffix == ".json" else []
            found[str(path.relative_to(folder))] = text if whole else [timeless(json.loads(line)) for line in lines]
    return found


class Writes:
    """Counts writes to files; at the last that is allowed the process is killed, before the file is whole or just after."""

    def __init__(self, most: float) -> None:
        self.most, self.count = most, 0

    def __call__(self, neighbour: Path, path: Path) -> Path:
        self.count += 1
        if self.count > self.most:
            os.kill(os.getpid(), signal.SIGKILL)
        found = REPLACE(neighbour, path)
        if self.count + 0.5 > self.most:
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def killed(line: str, most: float) -> None:
    """Run in a process of its own, which is killed at that write."""
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), status
        return
    try:
        with patch.object(Path, "replace", lambda *paths: writes(*paths)):
            writes = Writes(most)
            done(line)
    finally:
        os._exit(0)  # never back into pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kills")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert main([*shlex.split(VERBS["train"]), "--out", str(place / "run")]) == 0
    return place


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
@pytest.mark.parametrize("verb", some(VERBS, "train", "evaluate"))
def test_killed_at_any_write_a_run_ends_with_the_same_bits(verb: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole := place / f"{verb}-whole").mkdir()
    monkeypatch.chdir(whole)
    with patch.object(Path, "replace", lambda *paths: writes(*paths)):
        writes = Writes(1e9)
        assert done(VERBS[verb]) == 0
    step = max(1, writes.count // (2 if verb == "audit" else 3))
    for most in [*range(1, writes.count, step)]:
        (there := place / f"{verb}-{most}").mkdir()
        monkeypatch.chdir(there)
        killed(VERBS[verb], most + 0.5 * (most % 2))
        if most % 2 == 0:
            killed(VERBS[verb], 2)  # and again, early in the second run
        assert done(VERBS[verb]) == 0
        assert left(there) == left(whole)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_full_disk_is_one_line_and_the_run_goes_on_where_there_is_room(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there := place / "full").mkdir()
    monkeypatch.chdir(there)
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    else:
        status, err = 1, io.StringIO()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
            with redirect_stdout(io.StringIO()), redirect_stderr(err):
                status = main([*shlex.split(VERBS["train"]), "--out", "out"])
            (there / "said").write_text(err.getvalue())
        finally:
            os._exit(status)
    (line,) = [one for one in (there / "said").read_text().splitlines() if "epoch" not in one]
    assert line == "normwise: out/last.pt: File too large; check the path, the permissions and the free space"
    assert not [path for path in (there / "out").iterdir() if path.name.startswith(".")]
    assert done(VERBS["train"]) == 0


def test_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "normwise", "--help"]
        said = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (said.returncode, said.stderr) == (2, "normwise: the output: No space left on device; check the free space\n")
