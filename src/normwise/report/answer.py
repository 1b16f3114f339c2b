"""The answer in plain words, computed from the cells: which norms differ, at what cost, how far to trust it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from . import before, malicious_neighbours
from .cautions import cautions
from .cells import Cell, attackers, beyond_chance, compared_with
from .coupled import exceptions, of_batches
from .coupled import sentences as of_coupled
from .tables import count, duration
from .words import capital, joined, percent, training, where

MATTERS = 0.05  # a smaller gain in the worst case is mentioned, and does not make the answer


class Answer(NamedTuple):
    """The answer, its exceptions, what else to know; findings as (what about, lines); exceptions and reasons for caution as (what about, text)."""

    lead: str
    exceptions: list[tuple[str, str]]
    rest: str
    findings: list[tuple[str, list[str]]]
    cautions: list[tuple[str, str]]


class _Column(NamedTuple):
    """The cells of one recipe in one setting, and the one of them that the others are compared with."""

    name: str
    cells: list[Cell]
    reference: Cell | None
    above: list[Cell]
    below: list[Cell]
    within: list[Cell]


def of(found: Sequence[Cell], failures: Mapping[str, str]) -> Answer:
    """Answer for the cells of a report; `failures` are cells that did not end."""
    columns = _columns([cell for cell in found if not (cell.given or cell.dead)])
    findings = before.findings(found) + [(column.name[:1].upper() + column.name[1:], _column(column)) for column in columns]
    if len(found) == 1:
        findings = _single(found[0])
    findings += _pair(found) + _norm_or_recipe(columns) + _cost(columns) + of_coupled(found)
    untouched = malicious_neighbours.sentences(found)
    if untouched:
        findings.append(("Clean images beside malicious ones", untouched))
    dead = [f"{before.how(cell)}: {cell.worst} in the worst case." for cell in found if cell.dead]
    if 0 < len(dead) < len(found):
        findings.append(("Almost all images get one class: never the most robust", dead))
    lead, rest = _lead(found, columns)
    beside = [(column.name, cell, column.reference) for column, cell in _gains(columns)]
    caveats = before.cautions(found) + cautions(found, failures, bool(_compared(columns)))
    return Answer(lead, exceptions(beside), rest, findings, caveats)


def _compared(columns: Sequence[_Column]) -> list[_Column]:
    """Those where a norm is compared with BatchNorm."""
    return [column for column in columns if column.reference and len(column.cells) > 1]


def _columns(found: Sequence[Cell]) -> list[_Column]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.setting, cell.recipe), []).append(cell)
    columns = []
    tests = sum(len(group) - 1 for group in groups.values() if any(cell.reference for cell in group))
    for (setting, recipe), group in groups.items():
        reference = next((cell for cell in group if cell.reference), None)
        others = [cell for cell in group if cell is not reference] if reference else []
        above = [c for c in others if reference and beyond_chance(c, reference, tests)]
        below = [c for c in others if reference and beyond_chance(reference, c, tests)]
        within = [c for c in others if c not in above and c not in below]
        above.sort(key=lambda c: -c.worst.value)
        below.sort(key=lambda c: c.worst.value)
        columns.append(_Column(where(training(recipe), setting), group, reference, above, below, within))
    return columns


def _lead(found: Sequence[Cell], columns: Sequence[_Column]) -> tuple[str, str]:
    """What further training gained, where it did; else, or after it, which norm is more robust. A dead network is never the best."""
    alive = [cell for cell in found if not cell.dead]
    if not alive:
        worst = joined(f"{cell.norm} {percent(cell.worst.value)}" for cell in found)
        return "Almost all images get one class, whatever they show: this is no robustness.", f"Worst case: {worst}."
    if len(found) == 1:
        (one,) = found
        lead = f"{percent(one.worst.value)} of test images stay correctly classified under attack, {percent(one.clean.value)} without."
        return lead, f"{where(one.norm, '' if one.given else training(one.recipe))}{of_batches(one)}."
    lead, rest = _norms(alive, columns)
    if not (gained := before.lead(found)):
        return lead, rest
    return gained, f"{lead} {rest}" if _compared(columns) else rest


def _norms(found: Sequence[Cell], columns: Sequence[_Column]) -> tuple[str, str]:
    """Does a norm alone make a network robust? Figures of coupled images are about their batch, not about one image."""
    best = _best([cell for cell in found if not cell.coupled] or found)
    most = f"Most robust network{'' if best.coupled else ' with independent images'}: {before.how(best)}"
    rest = f"{most}, {best.worst} in the worst case "
    rest += f"({percent(best.protocol.value)} under the protocol alone) " * best.paired
    rest += f"and {percent(best.clean.value)} on clean images."
    settings = dict.fromkeys(cell.setting for cell in found)
    if len(settings) > 1:
        rest = f"Networks are compared only within one setting. There are {len(settings)}: {joined(settings)}."
    compared = _compared(columns)
    if not compared and len(settings) > 1:
        each = joined(f"{cell.norm} {percent(cell.worst.value)}" for cell in found)
        return f"Worst case of each, in {len(settings)} settings: {each}.", rest
    if not compared:
        return f"{capital(before.how(best))} keeps most under attack: {percent(best.worst.value)}.", rest
    gains = _gains(columns)
    above = [(column, cell) for column, cell in gains if not cell.coupled]
    if not above:
        others = len({cell.norm for column in compared for cell in column.cells if cell is not column.reference})
        name = compared_with(found)
        none = f"None of {others} alternatives to {name} is" if others > 1 else f"The alternative to {name} is not"
        lead = f"{none} measurably more robust by {100 * MATTERS:.0f} points or more with the same training"
        return f"{lead}{f', with {len(gains)} exception' if gains else ''}{'s' if len(gains) > 1 else ''}.", rest
    column, cell = max(above, key=lambda pair: _gain(pair[1], pair[0].reference))
    doubt = " A sanity check warns about it." if cell.doubts else ""
    lead = f"{cell.norm} is more robust than {compared_with(column.cells)} with {column.name}: "
    return f"{lead}{percent(cell.worst.value)} against {percent(_value(column.reference))} in the worst case.{doubt}", rest


def _gains(columns: Sequence[_Column]) -> list[tuple[_Column, Cell]]:
    """The cells that keep measurably more than their BatchNorm, by an amount that matters."""
    return [(column, cell) for column in columns for cell in column.above if _gain(cell, column.reference) >= MATTERS]


def _single(cell: Cell) -> list[tuple[str, list[str]]]:
    """What there is to say of one network."""
    lines = [f"Clean: {cell.clean}"]
    if len(cell.results) == 1:
        lines += [f"{name.upper()}: {score}" for name, score in cell.results[0].evaluation.per_attack.items()]
    lines += [f"Protocol, all of these together: {cell.protocol}"] * cell.paired
    if cell.single:
        lines += [f"Joint: {cell.joint}", f"Single: {cell.single}"]
    findings = [("Accuracy, with 95% intervals", [*lines, f"Worst case: {cell.worst}"])]
    if cell.seconds and cell.images:
        cost = f"Trained in {duration(cell.seconds)}, with {count(cell.images)} images forward and back."
        findings.append(("Cost", [cost]))
    return findings


def _column(column: _Column) -> list[str]:
    """Best worst case of a recipe, and how the others compare with the reference."""
    best, reference = _best(column.cells), column.reference
    protocol = f"; under the protocol alone {percent(best.protocol.value)}" if best.paired else ""
    lines = [f"Best worst case: {best.norm}, {best.worst}{of_batches(best)}{protocol}."]
    if reference is None:
        return [*lines, "There is no norm to compare with: BatchNorm on running statistics, or in a ViT LayerNorm."]
    name = reference.reference
    if reference is not best:
        lines.append(f"{name}: {reference.worst}.")
    if column.above:
        lines.append(f"Above {name} by more than chance: {_named(column.above)}.")
    if column.below:
        lines.append(f"Below {name} by more than chance: {_named(column.below)}.")
    if column.within and (column.above or column.below):
        lines.append(f"Not told apart from it: {joined(cell.norm for cell in column.within)}.")
    elif column.within:
        lines.append(f"All differences from {name} may be chance: these data cannot tell them apart.")
    return lines


def _pair(found: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    """How much the strongest attacks find after the protocol."""
    paired = [cell for cell in found if cell.paired]
    if not paired:
        return []
    results = [result for cell in paired for result in cell.results]
    protocol, strongest = (joined(attackers(results, further) or ["no attack"]) for further in (False, True))
    cell = max(paired, key=lambda cell: cell.protocol.value - cell.joint.value)
    if cell.protocol.value == cell.joint.value:
        return [("Protocol and strongest attack", [f"{strongest} broke no image that {protocol} left correct."])]
    text = f"{strongest}, after {protocol}, lowered the accuracy by {'up to ' if len(paired) > 1 else ''}"
    text += f"{100 * (cell.protocol.value - cell.joint.value):.1f} points: {percent(cell.joint.value)} instead of "
    name = where(cell.norm, training(cell.recipe) if cell.seconds else "")
    return [("Protocol and strongest attack", [f"{text}{percent(cell.protocol.value)} ({name})."])]


def _norm_or_recipe(columns: Sequence[_Column]) -> list[tuple[str, list[str]]]:
    """How far the recipe moves the reference, and how far the norm moves a recipe."""
    references = [(column, column.reference) for column in columns if column.reference]
    if len({cell.recipe for _, cell in references}) < 2 or len({cell.setting for _, cell in references}) > 1:
        return []
    (low, least), (high, most) = (f(references, key=lambda pair: pair[1].worst.value) for f in (min, max))
    text = (
        f"Changing the training moves the worst case of {least.reference} from {percent(least.worst.value)} ({low.name}) to "
    )
    lines = [f"{text}{percent(most.worst.value)} ({high.name})."]
    for coupled, images in ((False, "independent"), (True, "coupled")):
        others = [(column, cell) for column in columns for cell in column.cells if cell.coupled == coupled]
        moved = [(column, cell) for column, cell in others if column.reference and cell is not column.reference]
        if moved:
            column, cell = max(moved, key=lambda pair: abs(_gain(pair[1], pair[0].reference)))
            points = f"{100 * _gain(cell, column.reference):+.1f} points".replace("-", "−")
            lines.append(
                f"Changing the norm moves it by {points} at most with {images} images ({cell.norm}, {column.name})."
            )
    return [("Norm or recipe", lines)]


def _cost(columns: Sequence[_Column]) -> list[tuple[str, list[str]]]:
    """What the dearest recipe and the slowest norm take, next to the cheapest recipe and the reference."""
    timed = [c.reference for c in columns if c.reference and c.reference.seconds and c.reference.images]
    if not timed or len({cell.setting for cell in timed}) > 1:
        return []
    lines = []
    cheap, dear = (f(timed, key=lambda cell: (cell.images or 0, cell.seconds or 0)) for f in (min, max))
    if cheap is not dear and cheap.seconds and dear.seconds:
        lines.append(
            f"{dear.reference} with {training(dear.recipe)} instead of {training(cheap.recipe)}: {duration(dear.seconds)} instead "
            f"of {duration(cheap.seconds)} ({dear.seconds / cheap.seconds:.1f} times), {count(dear.images)} images forward "
            f"and back instead of {count(cheap.images)}, {percent(dear.clean.value)} on clean images instead of "
            f"{percent(cheap.clean.value)}."
        )
    ratios = [
        (cell.seconds / column.reference.seconds, cell, column)
        for column in columns
        if column.reference and column.reference.seconds
        for cell in column.cells
        if cell is not column.reference and cell.seconds
    ]
    ratio, cell, column = max(ratios, key=lambda one: one[0], default=(0.0, timed[0], columns[0]))
    if ratio >= 1.05:
        lines.append(f"Slowest norm: {cell.norm}, {ratio:.1f} times the time of {timed[0].reference} ({column.name}).")
    return [("Cost", lines)] if lines else []


def _best(found: Iterable[Cell]) -> Cell:
    return max(found, key=lambda cell: cell.worst.value)


def _value(cell: Cell | None) -> float:
    return cell.worst.value if cell else 0.0


def _gain(cell: Cell, reference: Cell | None) -> float:
    return cell.worst.value - _value(reference)


def _named(found: Iterable[Cell]) -> str:
    return joined(f"{cell.norm} ({percent(cell.worst.value)}{', coupled' if cell.coupled else ''})" for cell in found)
