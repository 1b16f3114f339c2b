"""What claims compare: values per arm, seed and test row, under a protocol ("paper" or "strongest")."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...report.words import plural
from .inference import Array, Sample

Records = Mapping[str, Mapping[str, Any]]  # the records of one seed, by cell
Measure = Callable[[Sequence[Records], str], Sample | None]


def bits(record: Mapping[str, Any], protocol: str, radius: str) -> Array:
    """Who stays correct at a radius, one number per row."""
    return np.array([float(bit) for bit in record["figures"]["rows"][protocol][radius]])


def in_pixels(radius: float) -> str:
    """A radius as it is written: in 1/255."""
    return f"{255 * radius:.3g}/255"


def in_sides(size: float) -> str:
    """The size of a patch as it is written."""
    return f"a patch of {size:g} pixels a side"


@dataclass(frozen=True)
class AtRadius:
    """A comparison at a radius that was fixed beforehand.

    cells   that are compared
    share   of the radius of training (the largest at which networks are judged)
    name    what is compared
    of      makes the sample from the records, at a protocol and a radius as the records write it
    called  how a radius is written
    exactly the radius itself, where it is no share of another
    reads   a figure that records must have, such as labels; "": none
    """

    cells: tuple[str, ...]
    share: float
    name: str
    of: Callable[[Sequence[Records], str, str], Sample]
    called: Callable[[float], str] = in_pixels
    exactly: float = 0.0
    reads: str = ""

    def __call__(self, records: Sequence[Records], protocol: str) -> Sample | None:
        """The sample at the claim's own radius; None where nothing was measured there."""
        found = self.radii(records, protocol)
        wanted = self.exactly or self.share * max(map(float, found), default=0.0)
        own = [key for key in found if math.isclose(float(key), wanted, rel_tol=0.01)]
        return self.at(records, protocol, own[0]) if own else None

    def at(self, records: Sequence[Records], protocol: str, radius: str) -> Sample:
        """The sample at one of the radii."""
        return self.of(records, protocol, radius)._replace(what=f"{self.name.format(self.called(float(radius)))}")

    def radii(self, records: Sequence[Records], protocol: str) -> list[str]:
        """The radii at which all were judged, smallest first."""
        if self.reads and any(self.reads not in records[0][cell]["figures"] for cell in self.cells):
            return []
        shared = set.intersection(*(set(records[0][cell]["figures"][protocol]) for cell in self.cells)) - {"0"}
        return sorted(shared, key=float)


def more_robust(cell: str, baseline: str, share: float = 1.0, *, patch: float = 0.0) -> AtRadius:
    """Robust accuracy of `cell` less that of `baseline`, at this share of the radius of training, or under a patch of this size."""

    def of(records: Sequence[Records], protocol: str, radius: str) -> Sample:
        return Sample("", _stacked(records, (cell, baseline), partial(bits, protocol=protocol, radius=radius)))

    called = in_sides if patch else in_pixels
    return AtRadius((cell, baseline), share, f"robust accuracy at {{}}, {cell} less {baseline}", of, called, patch)


def more_robust_at_equal_clean(cell: str, ladder: Sequence[str], share: float) -> AtRadius:
    """Robust accuracy of `cell` less that of a baseline whose clean accuracy is the same.

    `ladder` holds networks of different clean accuracy. The baseline answers by one of the two networks between which the
    clean accuracy of `cell` lies, drawn so that clean accuracies are equal, seed by seed. That search is made anew in every
    resample of the rows, so that its error is in the interval.
    """

    def of(records: Sequence[Records], protocol: str, radius: str) -> Sample:
        clean, robust = (
            _stacked(records, (cell, *ladder), partial(bits, protocol=protocol, radius=one)) for one in ("0", radius)
        )
        both = np.concatenate([clean[..., : robust.shape[-1]], robust])  # on the rows that were judged at the radius
        return Sample("", both, lambda means: _matched(means, 1 + len(ladder)))

    return AtRadius(
        (cell, *ladder), share, f"robust accuracy at {{}}, {cell} less {ladder[-1]} trained until as accurate", of
    )


def _matched(means: Array, networks: int) -> Array:
    """Robust accuracy of the first network less that of the others between which its clean accuracy lies."""
    clean, robust = means[:networks], means[networks:]
    order = np.argsort(clean[1:], axis=0)
    steps, heights = np.take_along_axis(clean[1:], order, 0), np.take_along_axis(robust[1:], order, 0)
    low = np.clip((steps <= clean[0]).sum(0) - 1, 0, max(networks - 3, 0))
    at = [np.take_along_axis(side, np.minimum(place, networks - 2)[None], 0)[0] for side in (steps, heights) for place in (low, low + 1)]  # fmt: skip
    width = np.where(at[1] > at[0], at[1] - at[0], 1.0)
    part = np.clip((clean[0] - at[0]) / width, 0, 1)
    theirs: Array = robust[0] - ((1 - part) * at[2] + part * at[3])
    return theirs


def unmatched(cell: str, ladder: Sequence[str]) -> Callable[[Sequence[Records]], str]:
    """A guard: the clean accuracy of `cell` must lie between two of the ladder's."""

    def guard(records: Sequence[Records]) -> str:
        clean = [[one[name]["figures"]["clean"] for name in (cell, *ladder)] for one in records]
        outside = sum(not min(others) <= own <= max(others) for own, *others in clean)
        return f"in {plural(outside, 'seed')} no {ladder[-1]} network is as accurate as {cell}" if outside else ""

    return guard


def above_constant(cell: str, share: float = 1.0, *, level: float = 0.0, sign: int = 1) -> AtRadius:
    """Class-balanced robust accuracy above the best constant answer, beyond a level; with sign -1 what the level exceeds it by.

    Class-balanced accuracy is the mean of the classes' accuracies. Any constant answer has exactly 1 / classes of it.
    """

    def of(records: Sequence[Records], protocol: str, radius: str) -> Sample:
        return Sample("", _stacked(records, (cell,), lambda record: _balanced(record, bits(record, protocol, radius))), one)

    def one(means: Array) -> Array:
        beyond: Array = sign * (means[0] - level)
        return beyond

    than = "" if not level else f", {'beyond' if sign > 0 else 'short of'} {level:.0%}"
    name = f"class-balanced robust accuracy at {{}} above the best constant answer{than}, {cell}"
    return AtRadius((cell,), share, name, of, reads="labels")


def above_constant_beside(cell: str, baseline: str, share: float = 1.0) -> AtRadius:
    """The same of `cell` less that of `baseline`."""

    def of(records: Sequence[Records], protocol: str, radius: str) -> Sample:
        return Sample(
            "", _stacked(records, (cell, baseline), lambda record: _balanced(record, bits(record, protocol, radius)))
        )

    return AtRadius(
        (cell, baseline), share, f"class-balanced robust accuracy at {{}}, {cell} less {baseline}", of, reads="labels"
    )


def _balanced(record: Mapping[str, Any], right: Array) -> Array:
    """Values whose mean is the class-balanced accuracy less that of a constant answer."""
    labels = np.array([int(label) for label in record["figures"]["labels"].split()])[: len(right)]
    counts = np.bincount(labels)
    classes = (counts > 0).sum()
    weighted: Array = right * len(right) / (classes * counts[labels]) - 1 / classes
    return weighted


def cleaner(cell: str, baseline: str, *, sign: int = 1, level: float = 0.0) -> Measure:
    """Clean accuracy of `cell` less that of `baseline`, and less a level."""

    def of(means: Array) -> Array:
        difference: Array = sign * (means[0] - means[1]) - level
        return difference

    def measure(records: Sequence[Records], protocol: str) -> Sample:
        than = f", beyond {level:.0%}".replace("-", "minus ") if level else ""
        values = _stacked(records, (cell, baseline), lambda record: _clean(record, protocol))
        return Sample(f"clean accuracy, {cell} less {baseline}{than}", values, of)

    return measure


def falls_less(cell: str, before: str, baseline: str, its: str) -> Measure:
    """What `cell` keeps of the clean accuracy of `before`, less what `baseline` keeps of that of `its`."""

    def of(means: Array) -> Array:
        kept: Array = (means[0] - means[1]) - (means[2] - means[3])
        return kept

    def measure(records: Sequence[Records], protocol: str) -> Sample:
        values = _stacked(records, (cell, before, baseline, its), lambda record: _clean(record, protocol))
        return Sample(f"fall of clean accuracy, {its} to {baseline} less {before} to {cell}", values, of)

    return measure


def steadier(cell: str, baseline: str) -> Measure:
    """Share of clean accuracy that `cell` keeps over all corruptions and severities, less what `baseline` keeps of its own."""

    def corrupted(record: Mapping[str, Any]) -> Array:
        kinds = record["figures"]["rows"]["corruptions"].values()
        mean: Array = np.mean([[float(bit) for bit in each] for kind in kinds for each in kind.values()], axis=0)
        return mean

    def of(means: Array) -> Array:
        kept: Array = means[0] / np.maximum(means[1], 1e-6) - means[2] / np.maximum(means[3], 1e-6)
        return kept

    def measure(records: Sequence[Records], protocol: str) -> Sample:
        clean = lambda record: np.array([float(bit) for bit in record["figures"]["rows"]["clean"]])  # noqa: E731
        sides = [_stacked(records, (name,), part) for name in (cell, baseline) for part in (corrupted, clean)]
        return Sample(f"share of clean accuracy kept over 15 corruptions, {cell} less {baseline}", np.concatenate(sides), of)

    return measure


def figure(what: str, of: Callable[[Records], float]) -> Measure:
    """One number per seed that no attack's strength enters."""

    def measure(records: Sequence[Records], protocol: str) -> Sample:
        return Sample(what, np.array([[[of(one)] for one in records]]), lambda means: means[0])

    return measure


def counted(what: str, seconds: Callable[[Records], float], operations: Callable[[Records], float]) -> Measure:
    """A cost: by the clock beside ("paper"), and by counted operations, which decide ("strongest")."""

    def measure(records: Sequence[Records], protocol: str) -> Sample | None:
        clock = protocol == "paper"
        kind = "seconds of a clock" if clock else "counted operations"
        return figure(what.format(kind), seconds if clock else operations)(records, protocol)

    return measure


def operations(record: Mapping[str, Any]) -> float:
    """What training counted: passes forward, and backward as two each. The search for the learning rate is not in it."""
    training = record["training"]
    return float(training["forwards"] + 2 * training["backwards"])


def ratio(a: Mapping[str, Any], b: Mapping[str, Any], *keys: str) -> float:
    """The logarithm of the ratio of one figure of two records."""
    for key in keys:
        a, b = a[key], b[key]
    return math.log(float(a) / float(b))  # type: ignore[arg-type]


def _clean(record: Mapping[str, Any], protocol: str) -> Array:
    return bits(record, protocol, "0")


def _stacked(records: Sequence[Records], cells: Sequence[str], of: Callable[[Mapping[str, Any]], Array]) -> Array:
    """One value per arm, seed and row, of the first rows, on which all were judged."""
    found = [[of(one[cell]) for one in records] for cell in cells]
    rows = min(len(values) for arm in found for values in arm)
    return np.stack([np.stack([values[:rows] for values in arm]) for arm in found])
