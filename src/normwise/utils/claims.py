"""Who makes what in a folder that several processes share: a claim is a file there, and files are the only truth."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from ..records import write
from .leftovers import alive

BEAT, DEAD = 5.0, 60.0  # seconds between two heartbeats; without one for so long, a worker counts as dead
FAILED = ".failed"


class Holder(NamedTuple):
    """Who claimed a piece of work: the machine, the process, which try it is, and seconds since its last sign of life."""

    host: str
    pid: int
    tries: int
    age: float

    @property
    def there(self) -> bool:
        """Whether it seems to live: its process does, if it is of this machine; else it gave a sign of life lately."""
        if self.host != socket.gethostname():
            return self.age < DEAD
        return alive(self.pid)


class Claims:
    """Claims on pieces of work, by name, in a folder.

    On one machine a claim is a lock, which is free as soon as its process is dead. `across` machines it is a file that its
    owner touches: one that was not touched for `DEAD` seconds of the file system's clock, nor while it was watched, is taken
    over. Its owner may only have been suspended; then it ends as soon as it wakes. Claim `NAME.try3` is the third: two
    workers died before.
    """

    def __init__(self, folder: Path, across: bool = False) -> None:
        self.folder, self.across = folder, across
        self._seen = dict[Path, tuple[float, float]]()  # of a claim: when it was touched last, and since when we know

    @contextmanager
    def taken(self, name: str) -> Iterator[int]:
        """Claim a piece of work; gives which try this is, or 0 where somebody else has it. Raises ValueError where no file can be locked."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / name)
        try:
            if not self.across:
                lock.acquire(blocking=False)
            tries = self._begin(name)
        except Timeout:
            tries = 0
        except NotImplementedError:
            raise ValueError(f"files cannot be locked in {self.folder}; give --backend.shared true") from None
        if not tries:
            yield 0
            return
        own, ended = self._path(name, tries), Event()
        beating = Thread(target=_beat, args=(own, ended), daemon=True)
        if self.across:
            beating.start()
        try:
            yield tries
        finally:
            ended.set()
            if self.across:
                beating.join(BEAT)  # a last beat would touch the claim of whoever comes next
            own.unlink(missing_ok=True)
            lock.release()

    def holder(self, name: str) -> Holder | None:
        """Who has a piece of work, dead or alive; None: nobody."""
        last = self._last(name)
        try:
            held = json.loads((path := self._path(name, last)).read_text())
            return Holder(str(held["host"]), int(held["pid"]), last, time.time() - path.stat().st_mtime)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def fail(self, name: str, why: str) -> None:
        """Note that a piece of work has failed, so that nobody tries it again."""
        write(self.folder / f"{name}{FAILED}", why)

    def failure(self, name: str) -> str | None:
        """Why a piece of work has failed; None where it has not."""
        try:
            return (self.folder / f"{name}{FAILED}").read_text()
        except OSError:
            return None

    def forgive(self, name: str) -> None:
        """Let a piece of work that has failed be tried again."""
        (self.folder / f"{name}{FAILED}").unlink(missing_ok=True)

    def forget(self, names: Sequence[str]) -> None:
        """Take away what is left of claims on finished work, and the folder if nobody else has a claim in it."""
        for name in names:
            for path in (self.folder / name, self.folder / f"{name}{FAILED}", *self.folder.glob(f"{name}.try*")):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _begin(self, name: str) -> int:
        """Write the claim, if nobody who lives has one; returns its number, or 0."""
        last = self._last(name)
        if self.across and last and not self._dead(self._path(name, last)):
            return 0
        note = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
        with suppress(FileExistsError):  # else another one was faster
            with self._path(name, last + 1).open("x") as file:
                file.write(note)
            self._path(name, last).unlink(missing_ok=True)
            return last + 1
        return 0

    def _path(self, name: str, tries: int) -> Path:
        return self.folder / f"{name}.try{tries}"

    def _last(self, name: str) -> int:
        ends = (path.name.removeprefix(f"{name}.try") for path in self.folder.glob(f"{name}.try*"))
        return max((int(end) for end in ends if end.isdecimal()), default=0)

    def _dead(self, claim: Path) -> bool:
        """Whether a claim is old by the file system's clock, and was not touched since we have been watching it.

        If the clock was set back, no claim is old; then one is dead that was not touched for twice as long, by our own
        watch.
        """
        try:
            touched = claim.stat().st_mtime
        except OSError:
            return False
        before, since = self._seen.get(claim, (0.0, 0.0))
        if before != touched:
            self._seen[claim] = touched, (since := time.monotonic())
        watched = time.monotonic() - since
        return watched > 2 * DEAD or (self._clock() - touched > DEAD and watched > 2 * BEAT)

    def _clock(self) -> float:
        """The time by the file system's clock."""
        probe = self.folder / f".clock.{socket.gethostname()}.{os.getpid()}"
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _beat(claim: Path, ended: Event) -> None:
    """Touch a claim until the work has ended; end this process if another one has taken it over."""
    while not ended.wait(BEAT):
        try:
            os.utime(claim)
        except FileNotFoundError:
            if ended.is_set():
                return
            message = f"normwise: this process was taken for dead, and another one makes {claim.stem}; it ends, and nothing is lost"
            print(message, file=sys.stderr, flush=True)
            os._exit(75)
        except OSError:  # the folder cannot be reached now
            continue
