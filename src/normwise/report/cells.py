"""Cells of a report: results that differ in nothing but their seed, and the words that tell cells apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt
from statistics import fmean, stdev
from typing import Any

from ..records import Check, Result, Score, lower
from .words import joined

_FROM = ("start", "weights", "substitute", "substitute_weights", "adaptive")  # what a network begins with and listens to
_APART = (
    "norm",
    "recipe",
    *_FROM,
    "seed",
    "device",
    "threads",
    "tensorboard",
)  # what the settings two cells share leaves out
_MOST = 3  # differences that a name lists
_REFERENCES = {"bn": "BatchNorm", "batch": "BatchNorm"}  # on running statistics
_BUILT_FOR = {"vit": {"layernorm2d": "LayerNorm over channels"}}  # networks that were not published with BatchNorm
_EXPECTED = ("row independence", "enough batches")  # checks about coupling, which a column of its own shows


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One norm with one recipe in one setting, over its seeds.

    `setting` says in which of the report's settings (data, threat model, network, schedule) it stands; it is empty where
    there is one. `reference` names the norm that the others are compared with, and is empty for the others: BatchNorm on running
    statistics, or what the network was published with.
    """

    setting: str
    norm: str
    recipe: str
    reference: str
    results: tuple[Result, ...]

    @property
    def clean(self) -> Score:
        return over_seeds([r.evaluation.clean_accuracy for r in self.results])

    @property
    def protocol(self) -> Score:
        """What the protocol's attacks alone leave; the worst case where nothing searched further."""
        return over_seeds([r.evaluation.pair[0] for r in self.results])

    @property
    def joint(self) -> Score:
        """The worst case over all attacks; of coupled rows with all rows of a batch attacked together."""
        return over_seeds([r.evaluation.robust_accuracy for r in self.results])

    @property
    def single(self) -> Score | None:
        """What is left of single rows attacked among clean neighbours; None where a result lacks it."""
        known = [r.evaluation.single for r in self.results if r.evaluation.single]
        return over_seeds(known) if len(known) == len(self.results) else None

    @property
    def worst(self) -> Score:
        """The headline: of coupled rows the lower of joint and single, where both were measured."""
        return lower(self.joint, self.single)

    @property
    def paired(self) -> bool:
        """Whether stronger attacks searched on what the protocol's left standing."""
        return any(r.evaluation.strongest for r in self.results)

    @property
    def coupled(self) -> bool:
        return any(r.evaluation.coupled for r in self.results)

    @property
    def seconds(self) -> float | None:
        """Mean training time; None for a network that was not trained here."""
        known = [r.training.seconds for r in self.results if r.training]
        return fmean(known) if known else None

    @property
    def images(self) -> float | None:
        """Mean number of images through the network in training, forward and backward."""
        known = [r.training.forwards + r.training.backwards for r in self.results if r.training]
        return fmean(known) if known else None

    @property
    def doubts(self) -> list[Check]:
        """Checks that were raised about the attack or the model, those about coupling left out."""
        return [check for check in raised(self.results) if check.name not in _EXPECTED]


def of(results: Sequence[Result]) -> list[Cell]:
    """Gather results into cells, in the order in which they first appear; the same record twice counts once."""
    groups: dict[str, list[Result]] = {}
    for i, result in enumerate(results):
        if result not in results[:i]:
            groups.setdefault(_key(_setting(result), _norm(result), _recipe(result)), []).append(result)
    firsts = [group[0] for group in groups.values()]
    parts = zip(_told_apart(_setting, firsts, ""), _told_apart(_norm, firsts), _told_apart(_recipe, firsts), strict=True)
    return [
        Cell(setting=setting, norm=norm, recipe=recipe, reference=_reference(group[0]), results=tuple(group))
        for (setting, norm, recipe), group in zip(parts, groups.values(), strict=True)
    ]


def compared_with(found: Iterable[Cell]) -> str:
    """The names of the norms that others are compared with, where there is one at least."""
    return joined(dict.fromkeys(cell.reference for cell in found if cell.reference))


def label(choice: Any, otherwise: str = "norm as built") -> str:
    """What to call a choice: its label, else its name. Unprintable characters become spaces."""
    if isinstance(choice, Mapping):
        choice = choice.get("label") or choice.get("name")
    return "".join(c if c.isprintable() else " " for c in str(choice or otherwise))


def attackers(results: Iterable[Result], further: bool | None = None) -> list[str]:
    """The names of what searched, in capitals: the protocol's attacks (`further` False), the strongest (True), or all."""
    names = [
        name.upper()
        for result in results
        for name in (
            *([] if further else result.evaluation.per_attack),
            *([] if further is False else map(label, result.evaluation.strongest)),
        )
    ]
    return list(dict.fromkeys(names))


def over_seeds(scores: Sequence[Score]) -> Score:
    """The mean over seeds. Its interval joins, as independent errors, that of the rows (the seeds share them, so it does
    not shrink) and that of the trainings (Student's t over the seeds)."""
    first = scores[0]
    if len(scores) == 1:
        return first
    from scipy.stats import t

    mean = fmean(s.value for s in scores)
    trainings = float(t.ppf(0.975, len(scores) - 1)) * stdev(s.value for s in scores) / sqrt(len(scores))
    low = mean - hypot(mean - fmean(s.low for s in scores), trainings)
    high = mean + hypot(fmean(s.high for s in scores) - mean, trainings)
    return Score(value=mean, low=max(low, 0.0), high=min(high, 1.0), n=first.n, unit=first.unit, rows=first.rows)


def raised(results: Iterable[Result]) -> list[Check]:
    """The checks that did not pass; of further attackers those that passed under the network's own threat model."""
    found = list[Check]()
    for result in results:
        own = [check for check in result.evaluation.checks if check.status != "pass"]
        told, found = {check.name for check in own}, [*found, *own]
        for kind, e in (result.several.evaluations if result.several else {}).items():
            more = [check for check in e.checks if check.status != "pass" and check.name not in told]
            found += [replace(check, measured=f"{kind}: {check.measured}") for check in more]
    return found


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Lay nested plain data out as {"attacks.0.steps": 20}."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple) and value:
        items = enumerate(value)
    else:
        return {path: value}
    return {deep: leaf for key, inner in items for deep, leaf in flat(inner, f"{path}.{key}".strip(".")).items()}


def _setting(result: Result) -> dict[str, Any]:
    apart = _APART if "norm" in result.experiment else (*_APART, "model")  # a given network is its own cell
    return {key: value for key, value in result.experiment.items() if key not in apart}


def _norm(result: Result) -> dict[str, Any]:
    e = result.experiment
    if "norm" not in e:
        name = e.get("model")
        return {"label": label(name, result.evaluation.model or result.name), "weights": e.get("weights")}
    return _mapping(e["norm"])


def _recipe(result: Result) -> dict[str, Any]:
    e = result.experiment
    if "recipe" not in e:
        return {"label": "not trained here"}
    adapted = e.get("substitute") or (e.get("adaptive") or {}).get("source") == "plain"
    return _mapping(e["recipe"]) | {key: e[key] for key in _FROM if e.get(key) and (adapted or key != "adaptive")}


def _mapping(choice: Any) -> dict[str, Any]:
    return dict(choice) if isinstance(choice, Mapping) else {} if choice is None else {"name": str(choice)}


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True, default=str)


def _reference(result: Result) -> str:
    norm, model = _norm(result), _mapping(result.experiment.get("model"))
    shares = [norm.get(share) or 0 for share in ("centre_share", "spread_share")]
    known = _BUILT_FOR.get(str(model.get("name")), _REFERENCES)
    return "" if any(shares) or result.evaluation.coupled else known.get(str(norm.get("name")), "")


def _told_apart(part: Any, firsts: Sequence[Result], alone: str | None = None) -> list[str]:
    """Call each choice by its label, and equal labels of unequal choices by the options in which they differ too."""
    choices = [part(result) for result in firsts]
    if alone is not None and len({_key(choice) for choice in choices}) == 1:
        return [alone] * len(choices)
    names = [label(choice) if alone is None else label(choice.get("data"), "") for choice in choices]
    options = [flat(choice) for choice in choices]
    told: dict[str, str] = {}
    for choice, name, mine in zip(choices, names, options, strict=True):
        rivals = [other for rival, other in zip(names, options, strict=True) if rival == name]
        keys = dict.fromkeys(key for rival in rivals for key in rival)
        differ = [f"{key}={_short(mine.get(key))}" for key in keys if len({_key(rival.get(key)) for rival in rivals}) > 1]
        text = f"{name} ({', '.join(differ[:_MOST])}{', …' if differ[_MOST:] else ''})" if differ else name
        same = sum(other.split(" #")[0] == text for key, other in told.items() if key != _key(choice))
        told.setdefault(_key(choice), f"{text} #{same + 1}" if same else text)
    return [told[_key(choice)] for choice in choices]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else label(value, "none")
