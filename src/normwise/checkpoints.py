"""Weights in and out: safetensors with a JSON card beside them, or anybody's weights-only file."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data.files import brief
from .models import MODELS
from .norms import NORMS
from .record import write

WEIGHTS, CARD = "model.safetensors", "model.json"


def save(model: nn.Module, folder: Path, card: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and its card, `model.json`: what is needed to build the network again."""
    from safetensors.torch import save as to_bytes

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write(folder / WEIGHTS, to_bytes(tensors))
    write(folder / CARD, json.dumps(card, indent=2) + "\n")


def card(folder: Path) -> dict[str, Any]:
    """Read the card of a run folder. Raises ValueError where there is none."""
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder} holds no {CARD}, which says what network it is; give the folder of a normwise train")
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no card of a network ({brief(error)}); restore it, or train again") from None


def build(card: Mapping[str, Any], source: str) -> nn.Module:
    """Build the network that the card of `source` describes, untrained. Raises ValueError for a card that describes none."""
    try:
        norm = NORMS.make(card["norm"]) if card["norm"] else None
        model: nn.Module = MODELS.make(card["model"])(norm, classes=card["classes"], mean=card["mean"], std=card["std"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the {CARD} of {source} describes no network ({brief(error)}); restore it, or train again"
        ) from None
    return model


def weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or .pt/.pth/.th that holds tensors only (no code is ever run).

    A dict with the key `state_dict` or `model` is opened; a common prefix `module.` is taken off.
    Raises ValueError for a file that is missing, truncated, foreign, or a pickle that wants to run code.
    """
    if not path.is_file():
        raise ValueError(f"no weights file {path}; give an existing .safetensors, .pt, .pth or .th file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # about pickle protocols
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it wants to run code" if "Unsupported" in str(error) or "GLOBAL" in str(error) else "it is no weights file"
        raise ValueError(
            f"{path} was refused: {reason}; save the state dict alone: torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as weights ({brief(error)[:120]}); it is truncated, or another kind of file: fetch it again"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not (
        isinstance(state, dict) and state and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    ):
        raise ValueError(f"{path} holds no state dict (a dict of tensors); save one: torch.save(model.state_dict(), path)")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def give(model: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """Load a state dict into the model, every key and shape matching. Raises ValueError saying what does not."""
    own = model.state_dict()
    problems = []
    try:
        missing, unexpected = model.load_state_dict(dict(state), strict=False)
        problems = [f"lacks {_some(missing)}"] * bool(missing) + [f"has unknown {_some(unexpected)}"] * bool(unexpected)
    except RuntimeError:
        wrong = [
            f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and state[k].shape != v.shape
        ]
        problems = [f"has other shapes: {_some(wrong)}"]
    if problems:
        raise ValueError(
            f"{source} does not fit {type(model).__name__}: it {' and '.join(problems)}; give the weights of this network"
        )
    return model


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
