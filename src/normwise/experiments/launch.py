"""Work shared out over processes of this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread, current_thread, main_thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """So many processes: what is submitted is done by the first that is free. See `launched`."""

    def __init__(self, count: int) -> None:
        self._pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent)
        self._others = set(active_children())

    def submit(self, work: Callable[P, R], /, *args: P.args, **options: P.kwargs) -> Future[R]:
        """Let a worker call `work`, a function of a module; Ctrl-C is for this process alone."""
        with _unheard(signal.SIGINT):
            return self._pool.submit(work, *args, **options)

    def end(self, at_once: bool) -> None:
        """Let the workers go; `at_once` in the middle of their work."""
        for worker in set(active_children()) - self._others if at_once else ():
            worker.terminate()
        self._pool.shutdown(wait=not at_once, cancel_futures=True)


@contextmanager
def launched(count: int) -> Iterator[Workers]:
    """Start so many worker processes. Whoever leaves by an error, or is killed, stops them too."""
    workers = Workers(count)
    try:
        yield workers
    except BaseException:
        workers.end(at_once=True)
        raise
    workers.end(at_once=False)


@contextmanager
def _unheard(number: signal.Signals) -> Iterator[None]:
    """Let processes that are started inside ignore a signal from their first moment on (in the main thread; else do nothing)."""
    if current_thread() is not main_thread():
        yield
        return
    handler = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, handler)


def _end_with_parent() -> None:
    """Make this process end when the one that started it is gone, killed or not: else it would wait for work for ever."""

    def follow() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    Thread(target=follow, daemon=True).start()
