"""The substitute of an ABNN: which network it is, on what it was trained, and how it does itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..data import DATA
from ..data.files import StoredData
from ..evaluation.evaluator import evaluate
from ..models import loading
from ..records import Substitute
from ..registry import plain
from ..types import Batch, Data, ThreatModel
from ..utils.model_state import moved


def card(spec: str, weights: str) -> Mapping[str, Any]:
    """The card of a network, nothing where none is named."""
    return loading.card(spec, weights) if spec else {}


def check(start: Mapping[str, Any], substitute: Mapping[str, Any]) -> None:
    """Refuse the cards of a target and a substitute of which a run folder could not say how to build them again.

    Raises ValueError.
    """
    if start.get("start") and substitute.get("start"):
        raise ValueError(
            f"start is {start['start']} and substitute {substitute['start']}: a run folder can name one function that makes a "
            "network, not two; train one of them with normwise first, and give its folder"
        )
    for option, found in (("start", start), ("substitute", substitute)):
        if found.get("adaptive"):
            raise ValueError(f"{option} has adaptive layers already; give a network without any")


def described(
    spec: str, weights: str, data: Data, batches: Sequence[Batch], threat: ThreatModel, device: torch.device
) -> Substitute:
    """Say what a substitute was trained on, and evaluate it on the clean rows of `batches` where it knows their classes."""
    trained_on, why, clean = card(spec, weights).get("data"), "", None
    if trained_on is None:
        why = "not measured: it does not say which classes it was trained on"
    elif _classes(trained_on) != _classes(plain(data)):
        why = "cannot be measured: it was trained on other classes"
    else:
        network = moved(loading.load(spec, weights).model, device)
        clean = evaluate(network, batches, threat, ()).evaluation.clean_accuracy
    return Substitute(source=spec, trained_on=trained_on, clean_accuracy=clean, why=why)


def _classes(data: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which classes a data set has: its options, but for which rows are used and where known files lie."""
    known = data["name"] in DATA and issubclass(DATA[data["name"]], StoredData)
    rows = ["validation_size", "validation_from", "split_seed", "train_limit", "test_limit", "test_from", "download"]
    rows += ["root"] * known
    return {key: value for key, value in data.items() if key not in rows}
