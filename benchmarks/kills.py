"""Kills runs with kill -9 at random moments, resumes them, and compares what is left with a run that nobody killed.

python benchmarks/kills.py OUT [--kills 25] [--verbs train,evaluate,...] [--seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from normwise.records import commit, provenance, to_json, write
from normwise.utils.leftovers import below

SMALL = "--model.width 4 --data.train_limit 200 --data.test_limit 60 --attacks fgsm --strongest [] --threads 1"
VERBS = {
    "train": f"train {SMALL} --schedule.epochs 6",
    "two processes": f"train {SMALL} --schedule.epochs 4 --devices 2",
    "evaluate": "evaluate ../run --batch_size 5 --data.test_limit 100 --attacks pgd --strongest [] --threads 1",
    "bench": f"bench {SMALL} --norms bn,rn --recipes [standard] --schedule.epochs 3 --jobs 2",
    "reproduce": "reproduce robustnorm --only [bn-eighth] --threads 1",
    "audit": "audit ../run --rows 10 --at_once 5 --victims 2 --twin none --threads 1",
}
CLOCKS = {"seconds", "command", "commit", "hardware", "versions", "provenance"}


def timeless(found: Any) -> Any:
    """A record without what a clock, a machine or a checkout said."""
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key not in CLOCKS}
    return [timeless(one) for one in found] if isinstance(found, list) else found


def left(folder: Path) -> dict[str, Any]:
    """What a run has left: of records all but the clocks, of weights and tables the bytes, of the rest that it is there."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes()
            whole = path.suffix in (".safetensors", ".yaml") or path.name == "rows.csv"
            lines = text.decode().splitlines() if path.suffix == ".jsonl" else [text] if path.suffix == ".json" else []
            found[str(path.relative_to(folder))] = text if whole else [timeless(json.loads(line)) for line in lines]
    return found


def judged(folder: Path) -> dict[str, int]:
    """The finished pieces of work there, and when each was written."""
    found = {}
    for path in below(folder):
        within = path.relative_to(folder)
        batch = within.parts[0] == "parts" and within.match("0*.safetensors")
        if batch or within.match("cells/*/result.json") or within.match("cells/*/record.json"):
            with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
                found[str(within)] = path.stat().st_mtime_ns
    return found


def start(verb: str, place: Path) -> subprocess.Popen[bytes]:
    """Start a verb in a folder of its own."""
    place.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "normwise", *shlex.split(VERBS[verb]), "--out", "out"]
    return subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def begun(process: subprocess.Popen[bytes], place: Path) -> float:
    """Wait until work begins; returns when."""
    while not (place / "out/config.yaml").exists() and process.poll() is None:
        time.sleep(0.01)
    return time.monotonic()


def workers(process: int) -> list[int]:
    """The processes that one has started, and theirs, by number (of Linux's /proc); helpers of Python's that do no work are left out."""
    parents = dict[int, int]()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if b"resource_tracker" not in (path / "cmdline").read_bytes():
                parents[int(path.name)] = parent
        except OSError:  # it ended meanwhile
            continue
    found, new = list[int](), [process]
    while new:
        new = [one for one, parent in parents.items() if parent in new]
        found += new
    return found


def killed(verb: str, place: Path, seconds: float, rng: random.Random) -> dict[str, Any]:
    """Kill a run at a random moment of its work, a process of it that is drawn; resume it; returns what was seen."""
    process = start(verb, place)
    since = begun(process, place)
    moment = rng.uniform(0, seconds)
    while time.monotonic() - since < moment and process.poll() is None:
        time.sleep(0.01)
    alive, there = process.poll() is None, [process.pid, *sorted(workers(process.pid))]
    which = rng.randrange(len(there))
    with contextlib.suppress(ProcessLookupError):
        os.kill(there[which], signal.SIGKILL)
    before, twice = judged(place / "out"), set[str]()

    def watch(one: subprocess.Popen[bytes]) -> None:
        while one.poll() is None:
            now = judged(place / "out")
            twice.update(name for name in before.keys() & now.keys() if now[name] != before[name])
            time.sleep(0.02)

    watch(process)  # of a worker's death the others are told, and end or go on
    time.sleep(1.0)  # the workers of one that was killed end by themselves
    again = start(verb, place)
    watch(again)
    error = again.stderr.read().decode() if again.stderr else ""
    return {
        "verb": verb,
        "second_of_work": round(moment, 2),
        "killed_at_work": alive,
        "which": f"worker {which} of {len(there) - 1}" if which else "the first process",
        "pieces_finished_then": len(before),
        "judged_twice": sorted(twice),
        "status": again.returncode,
        "said": error.splitlines()[-1:] if again.returncode else [],
    }


def main() -> None:
    """Kill, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", default=",".join(VERBS))
    asked = parser.parse_args()
    commit()  # before anybody changes the code
    os.environ |= {"OMP_NUM_THREADS": "1"}
    rng, verbs = random.Random(asked.seed), asked.verbs.split(",")
    wholes: dict[str, tuple[float, dict[str, Any]]] = {}
    kills: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        network = subprocess.run(
            [sys.executable, "-m", "normwise", *shlex.split(VERBS["train"]), "--out", root / "run"], capture_output=True
        )
        assert network.returncode == 0, network.stderr
        for number in range(asked.kills):
            verb = verbs[number % len(verbs)]
            if verb not in wholes:
                process = start(verb, root / f"whole {verb}")
                since = begun(process, root / f"whole {verb}")
                assert process.wait() == 0, process.stderr and process.stderr.read()
                wholes[verb] = time.monotonic() - since, left(root / f"whole {verb}")
            found = killed(verb, root / f"{number}", wholes[verb][0], rng)
            ours, whole = left(root / f"{number}"), wholes[verb][1]
            found["differs"] = sorted(name for name in ours.keys() | whole.keys() if ours.get(name) != whole.get(name))
            kills.append(found)
            print(found, flush=True)
            sound = sum(not (one["differs"] or one["judged_twice"] or one["status"]) for one in kills)
            write(asked.out, to_json({**provenance(), "seed": asked.seed, "sound": sound, "of": len(kills), "kills": kills}))


if __name__ == "__main__":
    main()
