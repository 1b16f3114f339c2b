"""Networks as they were given, and what training them further made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .cells import Cell, beyond_chance
from .words import percent, training


def lead(found: Sequence[Cell]) -> str:
    """What further training gained most, from before to after, in a sentence; empty where no network began as a given one."""
    if not (best := _best(found)):
        return ""
    old, new, tests = best
    was, became = percent(old.worst.value), percent(new.worst.value)
    if new.worst.value <= old.worst.value:
        return f"No training made {old.norm} more robust: under attack it is right on {was} of images as given, and on {became} at best after ({how(new)})."
    chance = "" if beyond_chance(new, old, tests) else "; this may be chance"
    clean = f"without an attack on {percent(new.clean.value)}, before on {percent(old.clean.value)}"
    own = "" if new.norm.startswith("its own ") else f" with {new.norm}"
    text = f"After {training(new.recipe)}{own}, {old.norm} is right on {became} of images under attack, before on {was}"
    return f"{text}; {clean}{chance}."


def cautions(found: Sequence[Cell]) -> list[tuple[str, str]]:
    """How sure the largest gain is, as (what about, text); nothing where nothing was gained."""
    if not (best := _best(found)) or best[1].worst.value <= best[0].worst.value:
        return []
    old, new, tests = best
    sure = f"The luck of these {new.worst.sample} {'does not explain' if beyond_chance(new, old, tests) else 'may explain'} the gain"
    how_so = "With one seed it is judged image by image (the exact sign test at 5%), corrected for the number of trainings. Else the intervals decide."
    audit = "An audit asks whether stronger attacks find more, and whether gradients are masked: normwise audit."
    return [(sure, how_so), ("Not audited: stronger attacks may take more off both figures, and off the gain", audit)]


def _best(found: Sequence[Cell]) -> tuple[Cell, Cell, int] | None:
    """Before and after of the largest gain, of independent images where there are any, and of how many; dead networks gain nothing."""
    pairs = [(old, new) for old, after in _pairs(found) for new in after if not (old.dead or new.dead)]
    pairs = [pair for pair in pairs if not pair[1].coupled] or pairs
    best = max(pairs, key=lambda pair: pair[1].worst.value - pair[0].worst.value, default=None)
    return best and (*best, len(pairs))


def findings(found: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    """Each given network beside those that began as it; then, together, given ones as which none began."""
    compared, alone = list[tuple[str, list[str]]](), list[str]()
    for old, after in _pairs(found):
        alone += [] if after else [f"{old.norm}: {_figures(old)}."]
        if after:
            lines = [f"{how(new)}: {_figures(new)}." for new in after]
            compared.append((f"Before and after: {old.norm}", [f"Before: {_figures(old)}.", *lines]))
    return [*compared, *([("As given", alone)] if alone else [])]


def _pairs(found: Sequence[Cell]) -> list[tuple[Cell, list[Cell]]]:
    """Given networks, each with those that began as it and were measured alike; none, where there are no such."""
    return [
        (old, [new for new in found if not new.given and new.measured == old.measured and _begun(new) == _itself(old)])
        for old in found
        if old.given
    ]


def _itself(cell: Cell) -> tuple[str, str]:
    return _place(cell.results[0].experiment, "model")


def _begun(cell: Cell) -> tuple[str, str]:
    return _place(cell.results[0].experiment, "start")


def _place(settings: Mapping[str, Any], which: str) -> tuple[str, str]:
    """Where a network came from: a folder or a function, and its weights file."""
    start, weights = (str(settings.get(key) or "") for key in (which, "weights"))
    return os.path.normpath(start), os.path.normpath(weights)


def how(cell: Cell) -> str:
    """Call a network by its norm and its training, if it was trained here."""
    return cell.norm if cell.given else f"{cell.norm} with {training(cell.recipe)}"


def _figures(cell: Cell) -> str:
    batch = ", coupled images" * cell.coupled
    return (
        f"worst case {cell.worst}{batch}, clean {percent(cell.clean.value)}{', almost all images get one class' * cell.dead}"
    )
