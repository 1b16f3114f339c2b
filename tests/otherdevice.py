"""A device that is not there: its tensors refuse to meet the CPU's, as a GPU's do, and the CPU computes for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten
AWAY = torch.device("meta")  # so it calls itself: autograd asks for no thread of its own there
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXES = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class Elsewhere(torch.Tensor):
    """A tensor on the device that is not there; `inner` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        how = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=AWAY, **how)
        made.inner = inner.detach()
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **options: Any) -> Any:
        raise TypeError("a tensor elsewhere is no array; .cpu() comes first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    away = any(isinstance(one, Elsewhere) for one in tensors)
    to = kwargs.get("device")
    goes = to is not None and torch.device(to) == AWAY
    if (away or goes) and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: the CPU's generator cannot draw elsewhere")
    if func in INDEXES and isinstance(args[0], Elsewhere):
        tensors = [one for one in args[2:3] if isinstance(one, Tensor)]  # indices may lie on the CPU, on a GPU too
    if away and func not in MOVES and any(one.ndim and not isinstance(one, Elsewhere) for one in tensors):
        raise RuntimeError(f"{func}: expected all tensors on one device")
    inner, named = tree_map_only(Elsewhere, lambda one: one.inner, (args, kwargs))
    out = func(*inner, **(named | ({"device": "cpu"} if goes else {})))
    if not func._schema.returns:
        return None
    if func.overloadpacket.__name__.endswith("_"):  # in place
        return args[0]
    stays = away and (to is None or goes)
    return tree_map_only(Tensor, Elsewhere, out) if stays or goes else out


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """`torch.tensor` makes its tensor behind the dispatcher's back."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and (to := kwargs.pop("device", None)) is not None:
            return func(*args, **kwargs).to(to)
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Make the device, for a while; returns what it is called."""
    autocast = torch.autocast

    def cast(device: str, *args: Any, **options: Any) -> Any:  # torch knows of no precision there
        return autocast("cpu", enabled=False) if device == AWAY.type else autocast(device, *args, **options)

    with patch("torch.autocast", cast), _Dispatch(), _Literals():
        yield AWAY
