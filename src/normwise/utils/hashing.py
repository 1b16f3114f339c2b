"""Digests of what a run stands on: a model's settings, the rows of a batch, and files."""

from __future__ import annotations

import hashlib
import re
from functools import cache, cached_property, partial, partialmethod
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..types import Batch

FEW = 16  # values of a tensor that is no buffer: a mean, a temperature; larger ones may be what a pass has left behind


def settings_of(model: nn.Module) -> str:
    """A digest of what a model is beside its weights: its modules, as they print themselves, their code, and what they hold.

    The code is that of classes, with their constants, but for torch's and this package's, and of functions that a module
    holds. What these call in turn is not looked at.
    """
    parts = [repr(model)]
    for name, module in model.named_modules():
        compiled = "_orig_mod" in module._modules  # what torch.compile keeps beside it is of this process alone
        held = {} if compiled else {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        parts.append(f"{name} {_code_of_class(module.__class__)} {_text(held)} {_text(hooks)}")
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", "\n".join(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_OF_EVERY_MODULE = vars(nn.Module()).keys() - {"training"}


def _text(value: Any, depth: int = 4) -> str:
    """A value as text that is the same in every process; of what has no such text, its type alone."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {bytes_of(value).hex() if value.numel() <= FEW else ''}"
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.tolist() if value.size <= FEW else ''}"
    if isinstance(value, type | BuiltinFunctionType):
        return value.__qualname__
    if isinstance(value, FunctionType) and _is_known(value.__module__):
        return f"{value.__module__}.{value.__qualname__}"
    if depth and isinstance(value, FunctionType):
        held = [value.__defaults__, value.__kwdefaults__, *map(_content, value.__closure__ or ())]
        return f"{_code(value.__code__)} {_text(held, depth - 1)}"
    if isinstance(value, staticmethod | classmethod | MethodType):
        return _text(value.__func__, depth)
    if isinstance(value, property):
        return _text([value.fget, value.fset, value.fdel], depth)
    if isinstance(value, cached_property):
        return _text(value.func, depth)
    if depth and isinstance(value, partial | partialmethod):
        return _text([value.func, value.args, value.keywords], depth - 1)
    if depth and isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_text(one, depth - 1) for one in value))}}}"
    if depth and isinstance(value, tuple | list):
        return f"[{', '.join(_text(one, depth - 1) for one in value)}]"
    if depth and isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_text(value[key], depth - 1)}' for key in sorted(value, key=repr))}}}"
    return type(value).__qualname__


def _is_known(module: str | None) -> bool:
    return (module or "").split(".")[0] in ("torch", "normwise", "builtins")


@cache
def _code_of_class(kind: type) -> str:
    """What a class defines, and those that it inherits from; of names in double underscores the functions alone."""
    own = [sorted(vars(one).items()) for one in kind.__mro__ if not _is_known(one.__module__)]
    kept = [(name, held) for one in own for name, held in one if isinstance(held, FunctionType) or name[:2] != "__"]
    return " ".join(f"{name} {_text(held)}" for name, held in kept)


def _code(code: CodeType) -> str:
    consts = [_code(one) if isinstance(one, CodeType) else _text(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {consts}"


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def bytes_of(tensor: Tensor) -> bytes:
    """The values of a tensor as they lie in memory."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def mark_of(batch: Batch) -> str:
    """A digest of the rows of a batch: images, labels and ids."""
    sha = hashlib.sha256()
    for tensor in batch:
        sha.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(bytes_of(tensor))
    return sha.hexdigest()[:16]
