"""One training in several processes: those that torchrun started, or those that are started here."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch

from ..utils.processes import Left
from .launch import launched

E = TypeVar("E", bound=Any)


class Place(NamedTuple):
    """A process among those that train together: its number, that on its machine, how many there are, and where they meet."""

    rank: int = 0
    local: int = 0
    size: int = 1
    meet: str = "env://"


def counted(e: E) -> E:
    """The settings with the number of processes that torchrun has started, if it has."""
    return dataclasses.replace(e, devices=here().size) if here().size > 1 else e


def here() -> Place:
    """Which process this is, as torchrun says it by environment variables; the only one where it says nothing."""
    rank, local, size = (
        int(os.environ.get(name, other)) for name, other in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
    )
    return Place(rank, local, size)


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


def check_devices(devices: int, device: str) -> None:
    """Refuse a number of processes that cannot be, or that all would take one device. Raises ValueError."""
    if devices < 1:
        raise ValueError(f"devices is {devices}; give a whole number >= 1")
    most = max(4, os.cpu_count() or 1, torch.cuda.device_count())  # a few more than cores do no harm
    if devices > most and here().size == 1:
        raise ValueError(f"devices is {devices}, more than this machine has; give at most {most}")
    if devices > 1 and device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"device is {device!r} and devices {devices}; give device cuda, cpu or auto: each process takes its own"
        )


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
