"""What a worker's engine costs per cell, and what is lost when one is killed: 100 cells on two workers, by processes and by Ray."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from normwise.experiments.backends import Backend, Processes, Ray, Slurm
from normwise.experiments.launch import LOCKS, Job, Workers, launch
from normwise.records import commit, provenance, to_json, write
from normwise.utils.claims import Claims


def cell(folder: Path, name: str, seconds: float) -> None:
    """Sleep, and leave a file; a line in the log says that it was begun."""
    with (folder / "begun").open("a") as log:
        log.write(f"{name}\n")
    time.sleep(seconds)
    (folder / name).write_text("made")


def jobs(folder: Path, count: int, seconds: float) -> list[Job]:
    """So many cells."""
    names = [f"cell{number:03}" for number in range(count)]
    return [Job(name, partial(cell, folder, name, seconds), partial(Path.exists, folder / name)) for name in names]


def timed(backend: Backend, count: int, seconds: float, kill: bool = False) -> dict[str, Any]:
    """Do all cells by two workers; `kill` kills a worker in the middle. Seconds are counted from the first cell's begin."""
    with tempfile.TemporaryDirectory() as place:
        folder, claims, killed, first = Path(place), Claims(Path(place) / LOCKS), 0, 0.0
        ended = []

        def look(text: str) -> None:
            nonlocal killed, first
            if not first and (folder / "begun").exists():
                first = time.monotonic()
            if kill and not killed and len(ended) > count // 2:
                for job in work:
                    if (who := claims.holder(job.name)) and not killed:
                        os.kill(who.pid, signal.SIGKILL)
                        killed = who.pid

        work = jobs(folder, count, seconds)
        for name, error in launch(work, Workers(2, backend), folder, look):
            assert error is None, error
            ended.append(name)
        spent = time.monotonic() - first
        begun = (folder / "begun").read_text().split()
        assert sorted(ended) == [job.name for job in work]
        left = sorted(path.name for path in folder.iterdir() if path.name not in {job.name for job in work} | {"begun"})
    each = spent / (count / 2) - seconds
    return {
        "seconds": round(spent, 2),
        "overhead_per_cell": round(each, 4),
        "cells_made": len(set(ended)),
        "cells_begun_twice": len(begun) - len(set(begun)),
        "worker_killed": bool(killed),
        "files_left": left,
    }


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    commit()  # before anybody changes the code
    backends: dict[str, Backend] = {"processes": Processes(), "ray": Ray(), "submitit, local": Slurm(local=True)}
    found: dict[str, Any] = {}
    for name, backend in backends.items():
        few = (
            asked.cells if name != "submitit, local" else 10
        )  # there heartbeats decide, and a dead worker is missed for a minute
        found[name] = timed(backend, few, asked.seconds)
        print(name, found[name], flush=True)
        found[f"{name}, a worker killed"] = timed(backend, few, asked.seconds, kill=True)
        print(f"{name}, a worker killed", found[f"{name}, a worker killed"], flush=True)
    over = found["ray"]["overhead_per_cell"] - found["processes"]["overhead_per_cell"]
    write(
        asked.out, to_json({**provenance(), "seconds_per_cell": asked.seconds, "ray_over_processes_per_cell": over, **found})
    )


if __name__ == "__main__":
    main()
