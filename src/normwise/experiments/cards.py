"""What a run folder holds so that its network can be built again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..models import loading
from ..models.abnn import Adaptive
from ..registry import plain
from . import substitutes


def card(e: Any, shape: Sequence[int]) -> dict[str, Any]:
    """Say how to build the network of an experiment `e` on images of this shape: an ABNN's substitute too, whose weights are with its own."""
    if e.adapted:
        substitute = dict(substitutes.card(e.substitute, e.substitute_weights)) or None
        around = {"options": plain(e.adaptive), "shape": list(shape), "substitute": substitute}
        alone = dataclasses.replace(e, substitute="", substitute_weights="", adaptive=Adaptive())
        return {**card(alone, shape), "adaptive": around}
    if e.start:
        found = {**loading.card(e.start, e.weights), "data": plain(e.data)}
        if e.norm:
            whole = found
            if found.get("adaptive"):  # the norms of an ABNN are replaced once its layers are there
                whole = found["adaptive"] = dict(found["adaptive"])
            whole["converted"] = [*whole.get("converted", ()), plain(e.norm)]
        return found
    d = e.data
    own = {"start": "", "model": plain(e.model), "norm": plain(e.norm)}
    return own | {"classes": d.classes, "mean": d.mean, "std": d.std, "data": plain(d)}
