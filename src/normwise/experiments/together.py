"""One training in several processes: those that torchrun started, or those that are started here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch

from ..utils.errors import one_line
from ..utils.processes import ProcessGone
from ..utils.workers import Rank, current_rank, launched, own_device, own_threads, take_place

E = TypeVar("E", bound=Any)


def counted(e: E) -> E:
    """The settings with the number of processes that torchrun has started, if it has."""
    return dataclasses.replace(e, devices=current_rank().size) if current_rank().size > 1 else e


@contextmanager
def joined(e: E, work: Callable[[E], object]) -> Iterator[E]:
    """Let `e.devices` processes train together; gives the settings of this one, whose device is its own.

    Where torchrun has started them, this one joins the others. Else the others are started here, do `work` (a function of a
    module) with the settings, and end with this one. Raises what another raised.
    """
    if current_rank().size > 1:
        with _group(e, current_rank()) as own:
            yield own
    elif e.devices == 1:
        yield e
    else:
        e = dataclasses.replace(e, threads=own_threads(e))
        store = _store(0)
        with launched(e.devices - 1) as workers:
            waiting = [
                workers.submit(_other, partial(work, e), Rank(rank, rank, e.devices, store.port))
                for rank in range(1, e.devices)
            ]
            try:
                _wait_for(store, waiting)
                with _group(e, Rank(size=e.devices), store) as own:
                    yield own
            except ProcessGone as left:
                found = [one.exception() for one in wait(waiting, timeout=2).done]
                raise next(
                    (why for why in found if isinstance(why, ValueError) and not isinstance(why, ProcessGone)), left
                ) from None
            for one in waiting:
                one.result()


def _store(port: int) -> Any:
    """Where the processes of this machine meet: at a port, or opened at a free one."""
    from torch import distributed as dist

    return dist.TCPStore("127.0.0.1", port, is_master=port == 0, wait_for_workers=False)  # type: ignore[attr-defined]


def _wait_for(store: Any, others: Sequence[Future[None]]) -> None:
    """Wait until all others are there. Raises ProcessGone as soon as one of them has ended instead."""
    while not store.check([f"there {rank}" for rank in range(1, len(others) + 1)]):
        if ended := next((one for one in others if one.done()), None):
            why = ended.exception()
            reason = one_line(why)[:100] if why else "nobody knows why"
            raise ProcessGone(f"a process ended before it joined the others ({reason}); start again, or with fewer devices")
        time.sleep(0.05)


def _other(work: Callable[[], object], place: Rank) -> None:
    """Do the work of another process than the first, in a process that was started for it."""
    take_place(place)
    work()


@contextmanager
def _group(e: E, place: Rank, store: Any = None) -> Iterator[E]:
    """Join torch's process group (nccl on CUDA devices, else gloo), and leave it afterwards."""
    from torch import distributed as dist

    device, threads = own_device(e.device, place.local), torch.get_num_threads()
    cuda = device != "cpu"
    if place.port:
        store = _store(place.port)
        store.set(f"there {place.rank}", "")
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=place.rank, world_size=place.size)
    try:
        with torch.cuda.device(device) if cuda else nullcontext():
            yield dataclasses.replace(e, device=device, devices=1)
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)
