"""Where workers run: processes on this machine, tasks of Ray, jobs of Slurm. They are merely started here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..registry import Registry
from ..utils.extras import need
from ..utils.workers import Workers

Work = Callable[[], object]
LEAVING = 5.0  # seconds that jobs of Slurm have to end by themselves


@runtime_checkable
class Running(Protocol):
    """Workers that were started."""

    def ended(self) -> list[BaseException | None]:
        """Of the workers that have ended, why: None where their work is done. Each is reported once."""

    def more(self) -> None:
        """Start one more worker, in place of one that has died."""

    def end(self) -> None:
        """Let all workers go, in the middle of their work too."""


@runtime_checkable
class Backend(Protocol):
    """Where workers run."""

    name: str

    @property
    def across(self) -> bool:
        """Whether several machines share the folder."""

    def check(self) -> None:
        """Refuse an engine that is not installed, before anything is written. Raises ValueError."""

    def start(self, work: Work, count: int, folder: Path) -> Running:
        """Let so many workers call `work`, with a folder for what the engine writes."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Processes on this machine.

    Options
        shared  other machines work in the same folder: who makes what is kept by heartbeat, and no file is locked
    """

    name = "processes"
    shared: bool = False

    @property
    def across(self) -> bool:
        """Whether several machines share the folder."""
        return self.shared

    def check(self) -> None:
        """Nothing is needed."""

    def start(self, work: Work, count: int, folder: Path) -> Running:
        """Start so many processes; who is killed, stops them too."""
        return _Pools(work, count)


class _Pools:
    """Processes, each in a pool of its own, so that one that is killed takes no other along."""

    def __init__(self, work: Work, count: int) -> None:
        self._work, self._pools, self._waiting = work, list[Workers](), list[Future[object]]()
        for _ in range(count):
            self.more()

    def ended(self) -> list[BaseException | None]:
        over = [one for one in self._waiting if one.done()]
        self._waiting = [one for one in self._waiting if one not in over]
        return [one.exception() for one in over]

    def more(self) -> None:
        self._pools.append(Workers(1))
        self._waiting.append(self._pools[-1].submit(self._work))

    def end(self) -> None:
        for pool in self._pools:
            pool.end(at_once=True)


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Tasks of Ray Core, on a cluster or on this machine (needs the extra cluster).

    Options
        address  of a cluster that runs, such as auto or HOST:6379; its machines share the folder. Empty: Ray is started here
        cpus     of each worker
        gpus     of each worker
    """

    name = "ray"
    address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def across(self) -> bool:
        """Whether several machines share the folder."""
        return bool(self.address)

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0:
            raise ValueError(
                f"cpus of ray are {self.cpus:g} and gpus {self.gpus:g}; give cpus above 0, and gpus of 0 or more"
            )

    def check(self) -> None:
        """Ray is installed. Raises ValueError."""
        need("cluster", "ray")

    def start(self, work: Work, count: int, folder: Path) -> Running:
        """Start so many tasks; Ray starts one again whose process has died."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        (ray,) = need("cluster", "ray")
        if not ray.is_initialized():
            here = {} if self.address else {"num_cpus": max(1, round(count * self.cpus)), "include_dashboard": False}
            ray.init(address=self.address or "local", logging_level="error", log_to_driver=False, **here)
        return _Tasks(ray, work, count, {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0})


class _Tasks:
    """Tasks of Ray."""

    def __init__(self, ray: Any, work: Work, count: int, options: dict[str, Any]) -> None:
        self._ray, self._task, self._waiting = ray, ray.remote(**options)(_called), list[Any]()
        self._work = ray.put(work)
        for _ in range(count):
            self.more()

    def ended(self) -> list[BaseException | None]:
        over, self._waiting = (
            self._ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0) if self._waiting else ([], [])
        )
        return [self._why(one) for one in over]

    def more(self) -> None:
        self._waiting.append(self._task.remote(self._work))

    def end(self) -> None:
        for one in self._waiting:
            self._ray.cancel(one, force=True)

    def _why(self, one: Any) -> BaseException | None:
        try:
            self._ray.get(one)
        except Exception as error:
            return error
        return None


def _called(work: Work) -> None:
    work()


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A Slurm job array, by submitit (needs the extra cluster). Its machines share the folder.

    Options
        partition  of the cluster; empty: its default
        minutes    that a job may take
        cpus       of each job
        gpus       of each job
        local      run the jobs as processes of this machine, without Slurm: to try it
    """

    name = "slurm"
    partition: str = ""
    minutes: int = 60
    cpus: int = 1
    gpus: int = 0
    local: bool = False

    @property
    def across(self) -> bool:
        """Whether several machines share the folder."""
        return True

    def __post_init__(self) -> None:
        if min(self.minutes, self.cpus) < 1 or self.gpus < 0:
            got = f"{self.minutes}, {self.cpus} and {self.gpus}"
            raise ValueError(f"minutes, cpus and gpus of slurm are {got}; give 1 or more, and gpus of 0 or more")

    def check(self) -> None:
        """submitit is installed. Raises ValueError."""
        need("cluster", "submitit")

    def start(self, work: Work, count: int, folder: Path) -> Running:
        """Submit an array of so many jobs."""
        (submitit,) = need("cluster", "submitit")
        executor = submitit.AutoExecutor(folder=folder, cluster="local" if self.local else None)
        options: dict[str, Any] = {"timeout_min": self.minutes, "cpus_per_task": self.cpus, "gpus_per_node": self.gpus}
        executor.update_parameters(
            name="normwise", **options | ({"slurm_partition": self.partition} if self.partition else {})
        )
        return _Array(executor, work, count)


class _Array:
    """Jobs of Slurm."""

    def __init__(self, executor: Any, work: Work, count: int) -> None:
        self._executor, self._work = executor, work
        self._waiting = list(executor.map_array(_called, [work] * count))

    def ended(self) -> list[BaseException | None]:
        over = [one for one in self._waiting if one.done()]
        self._waiting = [one for one in self._waiting if one not in over]
        return [one.exception() for one in over]

    def more(self) -> None:
        self._waiting.append(self._executor.submit(_called, self._work))

    def end(self) -> None:
        until = time.monotonic() + LEAVING
        while self._waiting and time.monotonic() < until:  # who found nothing left to do is on its way out
            self.ended()
            time.sleep(0.1)
        for one in self._waiting:
            one.cancel(check=False)


BACKENDS = Registry("backend", __name__, vars())
