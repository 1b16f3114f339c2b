"""Jobs shared out over workers: each is done once, and a dead worker's job is done again by another."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..utils.claims import Claims
from ..utils.errors import one_line
from .backends import Backend, Processes

LOCKS = "locks"  # of the folder of a run: who makes what
ENGINE = "engine"  # in there: what an engine of workers writes
MOST = 3  # workers that may die over one job, before it counts as failed
POLL = 0.05  # seconds between two looks at what others do

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A piece of work. Where workers run elsewhere, its functions are partials of functions of modules.

    name   a word by which it is known to all, fit for a file
    work   does it, and leaves a result in the folder of the run
    made   whether that result is there
    after  names of the jobs that have to be done before it
    """

    name: str
    work: Callable[[], object]
    made: Callable[[], bool]
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workers:
    """How many workers there are, where they run, and for how many seconds they begin jobs."""

    workers: int
    backend: Backend = Processes()
    seconds: float = math.inf

    @property
    def here(self) -> bool:
        """Whether this process does all the work."""
        return self.workers == 1 and isinstance(self.backend, Processes)


class Failed(ValueError):
    """A job has failed in another process; the text is that of its error."""


def launch(jobs: Sequence[Job], workers: Workers, folder: Path, say: Say) -> Iterator[tuple[str, Exception | None]]:
    """Do jobs, those first that come first; yields the name of each as it ends, and its error if it failed.

    What is made already is yielded at once. Whoever is in the same folder at the same time shares the work. When the time is
    over no more jobs begin, and those that are left are not yielded. Whoever stops it stops the workers too. Raises
    ValueError where workers keep dying, or an extra is not installed.
    """
    claims = Claims(folder / LOCKS, workers.backend.across)
    for job in jobs:
        claims.forgive(job.name)
    ended = failed = 0
    for name, error in _worked(jobs, claims, workers.seconds, say) if workers.here else _watched(jobs, claims, workers, say):
        ended, failed = ended + 1, failed + (error is not None)
        yield name, error
    if ended == len(jobs) and not failed:
        shutil.rmtree(_engine(claims), ignore_errors=True)
        claims.forget([job.name for job in jobs])


def _engine(claims: Claims) -> Path:
    """Where an engine writes for this process; others in the folder have a place of their own."""
    return claims.folder / f"{ENGINE}-{os.getpid()}"


def _watched(jobs: Sequence[Job], claims: Claims, workers: Workers, say: Say) -> Iterator[tuple[str, Exception | None]]:
    """Start workers, and tell what they do."""
    left, spare = list(jobs), 2 * MOST
    claims.folder.mkdir(parents=True, exist_ok=True)
    running = workers.backend.start(
        partial(_work, jobs, claims.folder, workers), min(workers.workers, len(jobs)), _engine(claims)
    )
    try:
        count = min(workers.workers, len(jobs))
        while left:
            for why in running.ended():
                count -= 1
                if why and not isinstance(why, Exception):
                    raise why
                if why and spare:
                    count, spare = count + 1, spare - 1
                    say(f"a worker has died ({one_line(why)[:80]}); another one starts")
                    running.more()
                elif why and not count:
                    raise ValueError(f"the workers keep dying ({one_line(why)[:100]}); start again: finished work is kept")
            gone = count == 0  # asked before the folder is: what was made until then is found there
            for job in [job for job in left if job.made() or claims.failure(job.name) is not None]:
                left.remove(job)
                spare = 2 * MOST
                why_not = claims.failure(job.name)
                yield job.name, None if why_not is None or job.made() else Failed(why_not)
            if gone:
                return
            if now := [job.name for job in left if claims.holder(job.name)]:
                say(f"making {', '.join(now)}")
            time.sleep(POLL)
    finally:
        running.end()


def _work(jobs: Sequence[Job], folder: Path, workers: Workers) -> None:
    """What a worker does, wherever it runs."""
    for _ in _worked(jobs, Claims(folder, workers.backend.across), workers.seconds, lambda text: None):
        pass


def _worked(jobs: Sequence[Job], claims: Claims, seconds: float, say: Say) -> Iterator[tuple[str, Exception | None]]:
    """Do what nobody else does, until nothing is left; yields every job as it is found to have ended."""
    left, until = {job.name: job for job in jobs}, time.monotonic() + seconds
    while left:
        ended, waits = list[tuple[str, Exception | None]](), ""
        for name, job in left.items():
            why = claims.failure(name)
            if job.made() or why is not None:
                ended = [(name, None if why is None or job.made() else Failed(why))]
                break
            if any(one in left for one in job.after):
                continue
            if lacks := [one for one in job.after if claims.failure(one) is not None]:
                claims.fail(name, f"{lacks[0]}, which it needs, has failed")
                break
            if time.monotonic() > until:
                return
            with claims.taken(name) as tries:
                if tries:
                    ended = [(name, _done(job, tries, claims))]
                    break
            waits = waits or name
        if ended:
            del left[ended[0][0]]
            yield ended[0]
        else:
            say(f"waiting for {waits}, which another process is making")
            time.sleep(POLL)


def _done(job: Job, tries: int, claims: Claims) -> Exception | None:
    """Do a job; returns the error that it failed with, which is noted."""
    try:
        if not job.made():
            if tries > MOST:
                raise ValueError(f"{MOST} workers died over it, perhaps for lack of memory")
            job.work()
    except Exception as error:
        claims.fail(job.name, str(error).split("\n")[0] or type(error).__name__)
        return error
    return None
