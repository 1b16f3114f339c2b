"""Change how a model runs, and put it back. Nobody else in the house changes a mode or a buffer."""

from __future__ import annotations

import copy
import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import is_
from types import CellType, FunctionType, MethodType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..seeding import draw, drawing
from ..types import Mode
from .hashing import bytes_of, settings_of

M = TypeVar("M", bound=nn.Module)
_TORCHS = frozenset(vars(nn.Module()))  # attributes that are torch's own


def set_mode(model: M, mode: Mode) -> M:
    """Put the model in `mode`; returns the model, whose own `train` may return nothing.

    Exported programs and frozen scripts know one mode, the one they were made in, and stay in it.
    """
    if isinstance(getattr(model, "training", None), bool):
        with suppress(NotImplementedError):  # of exported programs
            model.train(mode == "train")
    return model


def moved(model: M, *args: Any, **options: Any) -> M:
    """`model.to(...)`; returns the model, whose own `to` may return nothing."""
    model.to(*args, **options)
    return model


def copied(model: M) -> M:
    """A deep copy; tensors that were computed (by prune, the older weight_norm and spectral_norm) are copied as values.

    Such layers compute them anew in every pass. Raises ValueError for a model that cannot be copied.
    """
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in held if not value.is_leaf}
    try:
        with torch.no_grad():  # else a scripted network's copy is computed from the network's own parameters
            made = copy.deepcopy(model, memo)
    except Exception as error:
        reason = str(error).split("\n")[0][:120]
        raise ValueError(f"{type(model).__name__} cannot be copied ({type(error).__name__}: {reason})") from None
    for twin, parameter in zip(made.parameters(), model.parameters(), strict=True):
        twin.requires_grad_(parameter.requires_grad)
    for module in made.modules():
        for kept in (vars(module), *(held for held in vars(module).values() if isinstance(held, dict))):
            for name, value in list(kept.items()):
                if (bound := _rebound(value, memo)) is not value:
                    kept[name] = bound
    return made


def _rebound(value: Any, twins: Mapping[Any, Any], within: tuple[Any, ...] = ()) -> Any:
    """A function that holds modules of the model, by closure or default, as one that holds those of the copy.

    A deep copy keeps functions as they are: a `forward` that was replaced would go on running the model itself.
    """
    if isinstance(value, nn.Module):
        return twins.get(id(value), value)
    if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        owner = _rebound(value.__self__, twins)
        return value if owner is value.__self__ else MethodType(value.__func__, owner)
    if any(value is one for one in within):
        return value
    if type(value) in (list, tuple):
        made = [_rebound(one, twins, (*within, value)) for one in value]
        return value if all(map(is_, made, value)) else type(value)(made)
    if not isinstance(value, FunctionType):
        return value
    cells, given = value.__closure__ or (), value.__defaults__ or ()
    held = tuple(_refilled(cell, twins, (*within, value)) for cell in cells)
    defaults = tuple(_rebound(one, twins, (*within, value)) for one in given)
    if all(map(is_, (*held, *defaults), (*cells, *given))):
        return value
    copy_of = FunctionType(value.__code__, value.__globals__, value.__name__, defaults or None, held)
    copy_of.__kwdefaults__ = value.__kwdefaults__
    return copy_of


def _refilled(cell: CellType, twins: Mapping[Any, Any], within: tuple[Any, ...]) -> CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # not filled yet
        return cell
    found = _rebound(held, twins, within)
    return cell if found is held else CellType(found)


@contextmanager
def running(model: nn.Module, mode: Mode) -> Iterator[nn.Module]:
    """Run every module of the model in `mode`; afterwards each module is in the mode it was in, frozen layers too."""
    before = _modes(model)
    try:
        yield set_mode(model, mode)
    finally:
        _put_back(before)


def _modes(model: nn.Module) -> dict[nn.Module, bool]:
    """The mode of each module that has one."""
    return {module: module.training for module in model.modules() if hasattr(module, "training")}


def _put_back(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


@contextmanager
def untouched(model: nn.Module, generator: torch.Generator) -> Iterator[nn.Module]:
    """Let the model run without lasting effect: on copies of its buffers, a random state of its own, and modes put back.

    So are tensors that modules hold as attributes, attributes that are None until a pass makes a tensor of them, and numbers
    and truth values that a layer of this library keeps beside its buffers (`pass_state` of its class names them). Buffers
    and tensors themselves are set aside, not overwritten, so that a graph built before stays valid. Noise inside the model
    (dropout, a random defence) is drawn from `generator`, and the global random states, those of torch, numpy and Python,
    are as they were afterwards. Raises ValueError for a model with a lazy layer that has seen no batch.
    """
    refuse_lazy(model)
    modes = _modes(model)
    held = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    others, numbers = unregistered_tensors(model), _numbers(model)
    both = [*(one for *_, one in held), *(one for *_, one in others)]
    copies: dict[int, Tensor | None] = {
        id(one): None if one is None else one.clone() for one in both
    }  # what is shared stays so
    devices = {one.device for one in (*model.parameters(), *model.buffers())}
    with drawing(draw(generator), devices):
        try:
            for module, name, buffer in held:
                module._buffers[name] = copies[id(buffer)]
            for own, name, value in others:
                own[name] = copies[id(value)]
            yield model
        finally:
            for module, name, buffer in held:
                module._buffers[name] = buffer
            for own, name, value in others:
                if value is not None or isinstance(own.get(name), Tensor):
                    own[name] = value
            for own, name, number in numbers:
                own[name] = number
            _put_back(modes)


def _numbers(model: nn.Module) -> list[tuple[dict[str, Any], str, float]]:
    """What layers keep in `pass_state`: (the module's attributes, name, value)."""
    return [
        (vars(module), name, vars(module)[name])
        for module in model.modules()
        for name in getattr(type(module), "pass_state", ())
        if name in vars(module)
    ]


def unregistered_tensors(model: nn.Module) -> list[tuple[dict[str, Any], str, Tensor | None]]:
    """Attributes of modules that are tensors, and no parameters or buffers, or None: (the module's attributes, name, value)."""
    every = ((vars(module), name, value) for module in model.modules() for name, value in vars(module).items())
    return [one for one in every if one[2] is None or isinstance(one[2], Tensor)]


def plain_state(model: nn.Module) -> dict[str, Any]:
    """Attributes of modules that are numbers, words or truth values, and the lengths of lists and the like, by path and name."""
    found = dict[str, Any]()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in _TORCHS and isinstance(value, bool | int | float | str):
                found[f"{path}.{name}".lstrip(".")] = value
            elif name not in _TORCHS and isinstance(value, list | dict | set | deque):
                found[f"{path}.{name}".lstrip(".")] = len(value)
    return found


def answer_for_good(model: nn.Module, x: Tensor, generator: torch.Generator) -> None:
    """Let the model see a batch and keep what that does to its buffers, and to tensors and `pass_state` that it holds; in all else as `untouched`."""
    with torch.no_grad(), untouched(model, generator):
        model(x.clone())
        kept = [(module, dict(module._buffers)) for module in model.modules()]
        others = [*unregistered_tensors(model), *_numbers(model)]
    for module, buffers in kept:
        module._buffers.update(buffers)
    for own, name, value in others:
        own[name] = value


def refuse_lazy(model: Any) -> None:
    """Raise ValueError for what is no network, and for a lazy layer that has seen no batch."""
    if not isinstance(model, nn.Module):
        built = "; build the network, then net.load_state_dict(weights)" if isinstance(model, dict) else ""
        raise ValueError(f"the model is of type {type(model).__name__}; give a torch.nn.Module{built}")
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise ValueError(
                f"{path or type(module).__name__} is lazy and does not know its channels yet; "
                "run one batch through the model first"
            )


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def modes_of(model: nn.Module) -> list[bool]:
    """Which of the model's modules are in training mode, in their order."""
    return list(_modes(model).values())


def digest(model: nn.Module) -> str:
    """Hash every parameter and buffer: two models with one digest hold the same bits. Raises ValueError as `untouched`."""
    refuse_lazy(model)
    sha = hashlib.sha256()
    for name, tensor in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        sha.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        sha.update(bytes_of(tensor))
    return sha.hexdigest()[:16]


class Identity(NamedTuple):
    """Which network it is: its parameters and buffers, and its code and attributes, each by a digest."""

    digest: str
    settings: str

    def __str__(self) -> str:
        return " ".join(self)


def identity(model: nn.Module) -> Identity:
    """What a network is known by where finished work is kept: `digest`, and `settings_of` in its present mode."""
    return Identity(digest(model), settings_of(model))


class Frozen(nn.Module):
    """A network that never trains: in evaluation mode whatever mode is asked for, and no parameter asks for a gradient.

    Gradients in its input flow through it. Reads and answers as the network does, which it takes as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.freeze()

    def freeze(self) -> Frozen:
        """Freeze again, whatever was asked of the parameters and modules one by one since."""
        self.network.requires_grad_(False)
        return self.train()

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


def frozen(model: nn.Module) -> set[nn.Module]:
    """The modules of a model that lie within a `Frozen`."""
    return {part for module in model.modules() if isinstance(module, Frozen) for part in module.modules()}
