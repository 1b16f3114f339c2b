"""One training in several processes: those that torchrun started, or those that are started here."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch

from ..utils.processes import Left
from ..utils.workers import Place, here, launched, own_device, own_threads

E = TypeVar("E", bound=Any)


def counted(e: E) -> E:
    """The settings with the number of processes that torchrun has started, if it has."""
    return dataclasses.replace(e, devices=here().size) if here().size > 1 else e


@contextmanager
def joined(e: E, work: Callable[[E], object]) -> Iterator[E]:
    """Let `e.devices` processes train together; gives the settings of this one, whose device is its own.

    Where torchrun has started them, this one joins the others. Else the others are started here, do `work` (a function of a module)
    with the settings, and end with this one. Raises what another raised.
    """
    if here().size > 1:
        with _group(e, here()) as own:
            yield own
    elif e.devices == 1:
        yield e
    else:
        e = dataclasses.replace(e, threads=own_threads(e))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with launched(e.devices - 1) as workers:
            waiting = [workers.submit(_other, partial(work, e), rank, e.devices, port) for rank in range(1, e.devices)]
            try:
                with _group(e, Place(size=e.devices, meet=f"tcp://127.0.0.1:{port}")) as own:
                    yield own
            except Left as left:
                found = [one.exception() for one in wait(waiting, timeout=2).done]
                raise next(
                    (why for why in found if isinstance(why, ValueError) and not isinstance(why, Left)), left
                ) from None
            for one in waiting:
                one.result()


def _other(work: Callable[[], object], rank: int, size: int, port: int) -> None:
    """Do the work of another process than the first, in a process that was started for it."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    work()


@contextmanager
def _group(e: E, place: Place) -> Iterator[E]:
    """Join torch's process group (nccl on CUDA devices, else gloo), and leave it afterwards."""
    from torch import distributed as dist

    device, threads = own_device(e.device, place.local), torch.get_num_threads()
    cuda = device != "cpu"
    dist.init_process_group("nccl" if cuda else "gloo", init_method=place.meet, rank=place.rank, world_size=place.size)
    try:
        with torch.cuda.device(device) if cuda else nullcontext():
            yield dataclasses.replace(e, device=device, devices=1)
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)
