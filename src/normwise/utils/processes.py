"""Several processes that work on one batch, and what each has to ask the others: torch's process group, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


class ProcessGone(ValueError):
    """Another process no longer answers."""


def size() -> int:
    """How many processes work together; 1 without a process group, and inside `alone`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _ALONE.get() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Let this process ask no other for a while."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def gather(x: Tensor) -> Tensor:
    """Tensors of one shape from all processes, stacked by rank: (processes, ...). Gradients go back to where each came from.

    Every process has to call it, in the same order, forward and backward. Raises ProcessGone if another has ended.
    """
    stacked: Tensor = _Gather.apply(x)
    return stacked


def add(x: Tensor) -> None:
    """Replace x by its sum over all processes, without a gradient. Raises ProcessGone if another has ended."""
    _asked(lambda: dist.all_reduce(x))


def from_first(x: Tensor) -> None:
    """Replace x by what it is in the first process. Raises ProcessGone if another has ended."""
    held = x.detach().contiguous()
    _asked(lambda: dist.broadcast(held, 0))
    with torch.no_grad():
        x.copy_(held)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        _asked(lambda: dist.all_gather(parts, x.contiguous()))
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        add(grad)
        return grad[dist.get_rank()]


def _asked(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except RuntimeError as error:
        reason = str(error).split("\n")[0][:100]
        raise ProcessGone(f"another process no longer answers ({reason}); start again: finished work is kept") from None
