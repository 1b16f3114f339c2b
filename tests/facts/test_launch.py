"""Jobs over workers: each done once, in order, whoever dies; claims are files."""

import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from normwise.experiments.backends import Processes, Ray, Slurm
from normwise.experiments.grid import Bench, run_bench
from normwise.experiments.launch import ENGINE, LOCKS, Job, Workers, launch
from normwise.records import WRITER
from normwise.types import silent
from normwise.utils import claims as keeping
from normwise.utils.claims import Claims
from normwise.utils.leftovers import below, sweep


def write(folder, name, how):
    """A job: notes who did it, and ends as it should."""
    with (folder / "log").open("a") as log:
        log.write(f"{name} {os.getpid()}\n")
    if how == "dies" and len((folder / "log").read_text().splitlines()) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "fails":
        raise RuntimeError("no luck\ntoday")
    if how == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / name).write_text("made")


def jobs(folder, **how):
    return [Job(name, partial(write, folder, name, way), partial(Path.exists, folder / name)) for name, way in how.items()]


def said(outcomes):
    return {name: error and str(error) for name, error in outcomes}


def quiet(text):
    pass


def begun(folder):
    return [line.split()[0] for line in (folder / "log").read_text().splitlines()]


def test_one_worker_works_here_in_order_and_leaves_no_claim(tmp_path):
    first, second = jobs(tmp_path, a="", b="")
    late = Job("a", first.work, first.made, after=("b",))
    assert list(launch([late, second], Workers(1), tmp_path, quiet)) == [("b", None), ("a", None)]
    assert f"b {os.getpid()}" in (tmp_path / "log").read_text()
    assert not (tmp_path / LOCKS).exists()
    assert said(launch([late, second], Workers(1), tmp_path, quiet)) == {"a": None, "b": None}
    assert begun(tmp_path) == ["b", "a"]  # made once
    assert list(launch(jobs(tmp_path, c=""), Workers(1, seconds=-1), tmp_path, quiet)) == []


def test_who_ends_first_leaves_the_claims_of_others_in_the_folder(tmp_path):
    others = Claims(tmp_path / LOCKS)
    with others.taken("b") as tries:
        assert tries == 1
        assert list(launch(jobs(tmp_path, a=""), Workers(1), tmp_path, quiet)) == [("a", None)]
        with Claims(tmp_path / LOCKS).taken("b") as again:
            assert again == 0
    assert list(launch(jobs(tmp_path, b=""), Workers(1), tmp_path, quiet)) == [("b", None)]
    assert not (tmp_path / LOCKS).exists()


def test_a_job_that_fails_is_told_and_tried_again_the_next_time(tmp_path):
    ways = {"a": "fails", "b": ""}
    for _ in range(2):
        assert said(launch(jobs(tmp_path, **ways), Workers(1), tmp_path, quiet)) == {"a": "no luck\ntoday", "b": None}
        assert Claims(tmp_path / LOCKS).failure("a") == "no luck"
    assert begun(tmp_path) == ["a", "b", "a"]


def test_a_dead_workers_job_is_done_again(tmp_path):
    messages = []
    assert said(launch(jobs(tmp_path, a="dies", b=""), Workers(2), tmp_path, messages.append)) == {"a": None, "b": None}
    assert begun(tmp_path).count("b") == 1
    assert any("a worker has died" in text for text in messages)


@pytest.mark.slow  # four processes import torch
def test_a_job_that_kills_every_worker_fails(tmp_path):
    found = said(launch(jobs(tmp_path, a="kills", b=""), Workers(2), tmp_path, quiet))
    assert found == {"a": "3 workers died over it, perhaps for lack of memory", "b": None}
    assert begun(tmp_path).count("a") == 3


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(keeping, "BEAT", 0.05)
    monkeypatch.setattr(keeping, "DEAD", 0.3)


def test_a_claim_across_machines_is_taken_over_when_its_heart_has_stopped(tmp_path, quick):
    one, other = Claims(tmp_path, across=True), Claims(tmp_path, across=True)
    with one.taken("a") as tries:
        assert tries == 1
        time.sleep(0.5)  # it lives on, as its heart beats
        for _ in range(2):
            with other.taken("a") as others:
                assert others == 0
    (tmp_path / "a.try1").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    os.utime(tmp_path / "a.try1", (0, 0))
    with other.taken("a") as tries:  # old by the clock, but seen for the first time: the clock may have jumped
        assert tries == 0
    assert not other.holder("a").there
    time.sleep(0.2)
    with other.taken("a") as tries:
        assert tries == 2
        assert other.holder("a")[:3] == (socket.gethostname(), os.getpid(), 2)
    assert list(tmp_path.iterdir()) == []


def test_the_heart_of_a_claim_stops_before_the_claim_goes(tmp_path, monkeypatch):
    def beat(claim, ended):
        ended.wait()
        time.sleep(0.1)
        there.append(claim.exists())

    there = []
    monkeypatch.setattr(keeping, "_beat", beat)
    with Claims(tmp_path, across=True).taken("a"):
        pass
    assert there == [True]


def test_a_clock_that_was_set_back_keeps_no_claim_of_a_dead_worker(tmp_path, monkeypatch):
    claims, claim, now = Claims(tmp_path, across=True), tmp_path / "a.try1", 0.0
    monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    claim.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    ahead = [time.time() + 7200, time.time() + 3600]  # it is touched once more while we watch
    for seconds, touched, tried in ((0, 0, 0), (100, 0, 0), (130, 1, 0), (200, 1, 0), (251, 1, 2)):
        os.utime(claim, (ahead[touched],) * 2)
        now = float(seconds)
        with claims.taken("a") as tries:
            assert tries == tried, seconds


def test_who_was_taken_for_dead_ends_as_soon_as_it_wakes(tmp_path, quick, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    claims = Claims(tmp_path, across=True)
    with claims.taken("a"):
        (tmp_path / "a.try1").unlink()
        time.sleep(0.3)
    assert ended[0] == 75


def test_on_one_machine_a_claim_is_a_lock(tmp_path):
    claims = Claims(tmp_path)
    with FileLock(tmp_path / "a"), claims.taken("a") as tries:
        assert tries == 0
    (tmp_path / "a.try2").write_text("torn")  # of a process that died
    with claims.taken("a") as tries:
        assert tries == 3
        assert not (tmp_path / "a.try2").exists()


@pytest.mark.slow  # seven processes start
def test_a_worker_that_cannot_even_start_ends_the_launch(tmp_path):
    @dataclass(frozen=True)
    class Broken(Processes):
        def start(self, work, count, folder):
            return super().start(partial(os._exit, 3), count, folder)

    with pytest.raises(ValueError, match=r"the workers keep dying .*; start again"):
        list(launch(jobs(tmp_path, a=""), Workers(2, Broken()), tmp_path, quiet))


@pytest.mark.parametrize(("backend", "module"), [(Ray(), "ray"), (Slurm(), "submitit")])
def test_an_engine_that_is_not_installed_is_said_before_anything_is_written(backend, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(ValueError, match=r"pip install 'normwise\[cluster\]'"):
        run_bench(Bench(backend=backend), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


class Engine:
    """A stand-in of Ray and of submitit, which calls workers at once; the first one dies before it has done anything."""

    def __init__(self):
        self.started, self.cancelled = [], []

    def begin(self, function, work):
        worker = SimpleNamespace(error=None if self.started else RuntimeError("the node is gone"), done=lambda: True)
        worker.exception, worker.cancel = lambda: worker.error, self.cancelled.append
        self.started.append(worker)
        if worker.error is None:
            function(work)
        return worker

    def get(self, worker):
        if worker.error:
            raise worker.error


class StandInRay(Engine):
    put, is_initialized = staticmethod(lambda work: work), staticmethod(lambda: False)

    def init(self, **options):
        self.options, self.telemetry = options, os.environ["RAY_USAGE_STATS_ENABLED"]

    def remote(self, **resources):
        self.resources = resources
        return lambda function: SimpleNamespace(remote=partial(self.begin, function))

    def wait(self, workers, num_returns, timeout):
        return workers, []

    def cancel(self, worker, force):
        self.cancelled.append(worker)


class StandInSubmitit(Engine):
    def AutoExecutor(self, folder, cluster):
        self.folder, self.cluster = folder, cluster
        return self

    def update_parameters(self, **options):
        self.options = options

    def map_array(self, function, works):
        return [self.begin(function, work) for work in works]

    submit = Engine.begin


@pytest.mark.parametrize(
    ("backend", "asked"),
    [
        (Ray(gpus=1), {"num_cpus": 2, "include_dashboard": False, "address": "local"}),
        (Ray(address="auto", gpus=1), {"address": "auto"}),
        (Slurm(partition="long", gpus=2), {"slurm_partition": "long", "gpus_per_node": 2, "timeout_min": 60}),
    ],
    ids=["ray here", "a cluster of ray", "slurm"],
)
def test_an_engine_starts_workers_as_asked_and_another_for_one_that_died(backend, asked, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    kind, module = (StandInRay, "ray") if isinstance(backend, Ray) else (StandInSubmitit, "submitit")
    monkeypatch.setitem(sys.modules, module, engine := kind())
    messages = []
    assert said(launch(jobs(tmp_path, a="", b=""), Workers(2, backend), tmp_path, messages.append)) == {"a": None, "b": None}
    assert begun(tmp_path) == ["a", "b"]  # each once
    assert (len(engine.started), messages[0]) == (
        3,
        "a worker has died (RuntimeError: the node is gone); another one starts",
    )
    assert engine.options | asked == engine.options
    if isinstance(backend, Ray):
        assert engine.telemetry == "0"  # before Ray starts
        assert engine.resources == {"num_cpus": 1.0, "num_gpus": 1, "max_retries": 0}
    else:
        assert (engine.folder, engine.cluster) == (tmp_path / LOCKS / f"{ENGINE}-{os.getpid()}", None)


def test_who_wants_telemetry_of_ray_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setitem(sys.modules, "ray", engine := StandInRay())
    Ray().start(print, 1, tmp_path)
    assert engine.telemetry == "1"


def test_counts_of_an_engine_that_cannot_be_are_refused():
    for kind, options in ((Ray, {"cpus": 0}), (Ray, {"gpus": -1}), (Slurm, {"minutes": 0}), (Slurm, {"gpus": -1})):
        with pytest.raises(ValueError, match="give"):
            kind(**options)


def test_files_are_listed_while_another_process_takes_folders_away(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f".x.{WRITER}-999999999").touch()
    found = below(tmp_path)
    first = next(found)
    for name in {"a", "b", "c"} - {first.parent.name}:
        shutil.rmtree(tmp_path / name)
    assert list(found) == []
    sweep(tmp_path)
    assert list(below(tmp_path)) == []


def test_a_job_whose_need_has_failed_fails_with_it_and_is_done_when_that_works(tmp_path):
    works, done = [False], []

    def need():
        if not works[0]:
            raise RuntimeError("no luck")
        done.append("need")

    jobs = [
        Job("row", lambda: done.append("row"), lambda: "row" in done, ("need",)),
        Job("need", need, lambda: "need" in done),
    ]
    ended = dict(launch(jobs, Workers(1), tmp_path, lambda text: None))
    assert (str(ended["row"]), done) == ("need, which it needs, has failed", [])
    works[0] = True
    assert set(dict(launch(jobs, Workers(1), tmp_path, lambda text: None)).values()) == {None}
    assert done == ["need", "row"]
