"""Find a network: a run folder, a weights file with its card, or a function that returns one."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..norms import NORMS
from ..norms.layer import StatNorm
from ..norms.surgery.conversion import converted
from ..types import Report
from ..utils.errors import one_line
from ..utils.model_state import set_mode
from ..utils.run_folder import CONFIG
from . import checkpoints, hub
from .abnn import Adaptive, abnn
from .checkpoints import CARD, WEIGHTS
from .standardize import Standardize
from .views import over_views

CONVERSIONS = 100  # that a card may ask for
PIXELS = 2**23  # of an image or a clip that an ABNN's card names, at most


class Loaded(NamedTuple):
    """A network in eval mode, the card that says how to build it again, and what has to be said of its weights."""

    model: nn.Module
    card: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def load(spec: str | PathLike[str], weights: str | PathLike[str] = "", views: int | None = None) -> Loaded:
    """Find the network that `spec` names: a run folder, a weights file beside its `model.json`, `hub:USER/NAME`, or
    `package.module:function`.

    The function is called without arguments and returns an nn.Module or a program of torch.export; it may be a class, or a
    network itself. Modules are looked for in the current folder too. `timm:NAME` is timm's network of that name, with its
    mean and std in front. `weights` is a safetensors or weights-only file for it; without one it is as the function makes it
    (timm's: untrained), and the notes say so. `views` is how many clips of a video each row will hold: the network is put in
    `OverViews`, unless it is already; None: as it is. A run folder alone, and a network from the hub, never runs anybody's
    function, an ABNN's whose substitute is one neither. Raises ValueError where there is no such network, or the weights do
    not fit.
    """
    spec, weights = fspath(spec), fspath(weights)
    path, found = hub.located(spec), card(spec, weights)
    made_by, file = maker(found), weights or _weights_at(path)
    if made_by and path.exists():
        raise ValueError(f"{spec} holds weights of {made_by}; to run that function, write {made_by} --weights {file}")
    model = _call(spec) if found.get("start") else checkpoints.build(found, spec)
    model = _converted(model, found, spec)
    if found.get("adaptive"):
        model = _converted(_adapted(model, found["adaptive"], spec), found["adaptive"], spec)
    unnamed = (
        f"no weights file was named for {spec}: the weights are those that it makes: random, unless it loads some itself"
    )
    notes = checkpoints.load_into(model, checkpoints.weights(Path(file))) if file else (unnamed,) * bool(model.state_dict())
    beside = Path(weights).parent
    if weights and is_function(spec) and (beside / CARD).is_file() and (beside / CONFIG).is_file():
        said = (
            f"on the command line, settings that are not named are those of {beside / CONFIG}: data, threat model, attacks"
        )
        notes = (*notes, said)
    if spec.startswith(hub.PREFIX):
        notes = (f"{spec} is at commit {path.name}", *notes)
    model = model if views is None else over_views(model, views)
    return Loaded(set_mode(model, "eval"), found, notes)


def network_files(**named: tuple[str, str]) -> dict[str, Path]:
    """The files of this machine that make these networks: their weights, and the code of those that a function returns.

    A network of the hub has none: its name says which it is. What the code imports in turn is not looked at.
    """
    found: dict[str, Path] = {}
    for option, (spec, weights) in named.items():
        if spec and not spec.startswith(hub.PREFIX):
            found[option] = Path(weights or _weights_at(Path(spec)))
            found[f"code of {option}"] = Path(_code_at(spec)) if is_function(spec) else Path()
    return {option: path for option, path in found.items() if path.is_file()}


def _code_at(spec: str) -> str:
    """The file of a function's module; empty where there is none."""
    with _importing_from_here(), suppress(Exception):
        return importlib.util.find_spec(spec.partition(":")[0]).origin or ""  # type: ignore[union-attr]
    return ""


@contextmanager
def _importing_from_here() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _weights_at(path: Path) -> str:
    return str(path / WEIGHTS if path.is_dir() else path if path.is_file() else "")


def _converted(model: nn.Module, found: Mapping[str, Any], spec: str) -> nn.Module:
    """The network with the norms that it was given before each training, in their order. Raises ValueError for a card that says none."""
    first = [found["norm"]] if found.get("start") and found.get("norm") else []  # of cards of before
    try:
        steps = [*first, *(found.get("converted") or ())]
        if len(steps) > CONVERSIONS:
            raise ValueError(f"{len(steps)} conversions; at most {CONVERSIONS} are made")
        for norm in map(NORMS.make, steps):
            model = converted(model, norm)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the {CARD} of {spec} says no norms to convert to ({one_line(error)}); restore it, or train again"
        ) from None
    return model


def report_notes(loaded: Iterable[Loaded], report: Report) -> dict[str, str]:
    """Report what has to be said of the weights of networks; returns it for the provenance of a record."""
    notes = list(dict.fromkeys(note for one in loaded for note in one.notes))
    for note in notes:
        report(f"weights: {note}", 0, 0)
    return {"weights": "; ".join(notes)} if notes else {}


def card(spec: str, weights: str = "") -> Mapping[str, Any]:
    """Say how to build the network that `spec` names, as plain data. Raises ValueError where it names none."""
    path = hub.located(spec)
    if path.is_dir():
        return checkpoints.card(path)
    if path.is_file():
        if not (path.parent / CARD).is_file():
            raise ValueError(f"{spec} has no {CARD} beside it; write package.module:function --weights {spec}")
        return checkpoints.card(path.parent)
    if ":" not in spec:
        raise ValueError(
            f"no model {spec!r}: neither a run folder, nor a weights file, nor package.module:function; give one of these, "
            "or hub:USER/NAME"
        )
    folder = Path(weights).parent
    beside = checkpoints.card(folder) if weights and (folder / CARD).is_file() else {}
    return beside if spec in (beside.get("start"), _heard(beside)) else {"start": spec, "norm": None}


def maker(found: Mapping[str, Any]) -> Any:
    """The function that makes the network of a card, or the substitute of its ABNN; nothing if the card alone is enough."""
    return found.get("start") or _heard(found)


def _heard(found: Mapping[str, Any]) -> Any:
    """The function that makes the substitute of an ABNN's card, if one does."""
    around = found.get("adaptive")
    substitute = around.get("substitute") if isinstance(around, Mapping) else None
    return substitute.get("start") if isinstance(substitute, Mapping) else None


def is_function(spec: str) -> bool:
    """Whether a name is that of a function (`package.module:function`, `timm:NAME`), which may take a weights file."""
    return ":" in spec and not spec.startswith(hub.PREFIX)


def check_named(model: str, verb: str) -> None:
    """Refuse no network. Raises ValueError."""
    if not model:
        raise ValueError(
            f"no model is named; write normwise {verb} MODEL: a run folder, hub:USER/NAME or package.module:function"
        )


def check_models(settings: Any, verb: str) -> None:
    """Refuse no network, one that is named twice, weights that belong to no single function, and no rows. Raises ValueError."""
    if not settings.models:
        raise ValueError(
            f"no model is named; write normwise {verb} MODEL [MODEL ...]: run folders or package.module:function"
        )
    check_once("models", settings.models)
    functions = [spec for spec in settings.models if is_function(spec)]
    if settings.weights and len(functions) != 1:
        raise ValueError(f"weights is {settings.weights!r}, for {len(functions)} functions; name one function with it")
    if settings.rows < 1:
        raise ValueError(f"rows is {settings.rows}; give a whole number >= 1")


def check_once(name: str, values: Sequence[Any]) -> None:
    """Refuse values of which one stands twice. Raises ValueError."""
    if len(set(values)) < len(values):
        raise ValueError(f"{name} are {', '.join(map(str, values))}; name each once")


def _adapted(model: nn.Module, around: Mapping[str, Any], spec: str) -> nn.Module:
    """Put the adaptive layers and the substitute of an ABNN's card around its target, untrained. Raises ValueError."""
    try:
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in around["options"].items()
        }
        other, shape = around["substitute"], tuple(around["shape"])
        if not all(isinstance(side, int) and side > 0 for side in shape) or math.prod(shape) > PIXELS:
            raise TypeError(f"images of shape {str(around['shape'])[:40]}")
        for layer in model.modules():
            if isinstance(layer, StatNorm):
                layer.expect_recalibration(False)  # the weights, which come next, say what is known
        network = other and (_call(other["start"]) if other.get("start") else checkpoints.build(other, spec))
        return abnn(model, network, Adaptive(**options), shape=shape)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the {CARD} of {spec} describes no adaptive layers ({one_line(error)}); restore it, or train again"
        ) from None


def _call(spec: str) -> nn.Module:
    module, _, function = spec.partition(":")
    try:
        with _importing_from_here():
            found = importlib.import_module(module)
            return _standardized(found.create_model(function)) if module == "timm" else _made(getattr(found, function))
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "timm":
            raise ValueError(f"{spec} needs timm, which is not installed; pip install 'normwise[timm]'") from None
        raise ValueError(
            f"{spec} gave no network ({one_line(error)}); give package.module:function, importable from this "
            "folder, that returns an nn.Module when called without arguments"
        ) from None


def _made(found: Any) -> nn.Module:
    """The network that a function makes, or that stands there already. Raises TypeError for anything else."""
    made = found if isinstance(found, nn.Module) else found()
    if isinstance(made, torch.export.ExportedProgram):
        made = made.module()
    if not isinstance(made, nn.Module):
        what = f"the class {made.__name__}, not a network of it" if isinstance(made, type) else type(made).__name__
        raise TypeError(f"it returned {what}")
    return made


def _standardized(model: nn.Module) -> nn.Module:
    """Put the mean and std that a network of timm's was made for in front of it; its weights keep their names."""
    about: Any = model.pretrained_cfg
    model.standardize = Standardize(about["mean"], about["std"])
    model.register_forward_pre_hook(_standardize)
    return model


def _standardize(model: Any, args: Any) -> Any:
    return (model.standardize(args[0]), *args[1:])
