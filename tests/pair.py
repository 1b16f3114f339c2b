"""Two processes of one process group (gloo), started once, that do what tests ask of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch


def _join(store: str, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(store, size), rank=rank, world_size=size)


@contextmanager
def together(store: str, size: int = 2) -> Iterator[Callable[..., list[Any]]]:
    """Give a function that lets every process call `work(*args)`, and returns what each gave, by rank; errors are raised."""
    pools = [ProcessPoolExecutor(1, get_context("spawn"), _join, (store, rank, size)) for rank in range(size)]

    def both(work: Callable[..., Any], *args: Any) -> list[Any]:
        waiting = [pool.submit(work, *args) for pool in pools]
        return [one.result(timeout=120) for one in waiting]

    try:
        yield both
    finally:
        for pool in pools:
            pool.shutdown()
