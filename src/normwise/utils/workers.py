"""Work shared out over processes of this machine, and which device and threads each of them takes."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing import active_children, get_context, parent_process
from threading import Thread, current_thread, main_thread
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Any)


class Rank(NamedTuple):
    """A process among those that train together: its number, that on its machine, how many there are.

    `port`: of this machine, where they meet; 0: where torchrun says.
    """

    rank: int = 0
    local: int = 0
    size: int = 1
    port: int = 0


_PLACE: ContextVar[Rank | None] = ContextVar("place", default=None)


def take_place(place: Rank) -> None:
    """Let this process be one of several from now on."""
    _PLACE.set(place)


def current_rank() -> Rank:
    """Which process this is: the place it took, or what torchrun says by environment variables; else the only one."""
    if place := _PLACE.get():
        return place
    rank, local, size = (
        int(os.environ.get(name, other)) for name, other in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
    )
    return Rank(rank, local, size)


def own_device(device: str, rank: int) -> str:
    """The device of one of several processes on a machine, `device` being "auto", "cpu" or "cuda". Raises ValueError without one."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if rank >= torch.cuda.device_count():
        raise ValueError(
            f"each process needs a CUDA device of its own; there are {torch.cuda.device_count()}: give fewer devices"
        )
    return f"cuda:{rank}"


def own_threads(e: Any) -> int:
    """The CPU threads of one of `e.devices` processes: those that are asked for, else a part of torch's own number."""
    return int(e.threads or max(1, torch.get_num_threads() // e.devices))


def for_process(e: E, number: int) -> E:
    """The settings of one of the `e.devices` processes that share work: a device of its own, and its part of the threads."""
    if e.devices == 1:
        return e
    return dataclasses.replace(e, device=own_device(e.device, number), threads=own_threads(e))


def check_devices(devices: int, device: str) -> None:
    """Refuse a number of processes that cannot be, or that all would take one device. Raises ValueError."""
    if devices < 1:
        raise ValueError(f"devices is {devices}; give a whole number >= 1")
    most = max(4, os.cpu_count() or 1, torch.cuda.device_count())  # a few more than cores do no harm
    if devices > most and current_rank().size == 1:
        raise ValueError(f"devices is {devices}, more than this machine has; give at most {most}")
    if devices > 1 and device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"device is {device!r} and devices {devices}; give device cuda, cpu or auto: each process takes its own"
        )


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
def helped(e: E, count: int, work: Callable[[E, int], object], report: Callable[[str], object]) -> Iterator[None]:
    """Let further processes, `count` with this one, call `work` (a function of a module) meanwhile, each with settings and a number of its own.

    This one needs none of them: one that fails is reported, and all end with it.
    """
    if count == 1:
        yield
        return
    workers = Workers(count - 1)
    try:
        helpers = [workers.submit(work, for_process(e, number), number) for number in range(1, count)]
        yield
        for error in filter(None, (one.exception() for one in helpers if one.done())):
            report(f"a process that helped has failed, and the others did its part: {error}")
    finally:
        workers.end(at_once=True)


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
