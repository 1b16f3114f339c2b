"""Cells of a report: results that differ in nothing but their seed, and the words that tell cells apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

from ..records import Check, Result, Score, lower
from ..utils.intervals import LEVEL, above, leads
from ..utils.run_folder import PRETRAINED
from .apart import distinct_names, key_of, label, named
from .words import joined

_FROM = ("start", "weights", "substitute", "substitute_weights", "adaptive")  # what a network begins with and listens to
_ASKED = ("speed", "eps_curve", "step_curve")  # how a network was searched, and what else was asked of it
_RUN = ("seed", "device", "devices", "threads", "tensorboard", "budget")
_APART = ("norm", "recipe", *_FROM, *_ASKED, *_RUN)  # what the settings that two cells share leave out
_TRAINING = ("model", "train_eps", "schedule", "training")  # settings that a network that was not trained here does not have
_DEFAULTS = {
    "craft_on": "",
    "through_substitute": True,
    "goal": "misclassified",
    "stateful": "refuse",
}  # of `evaluate` alone
_REFERENCES = {"bn": "BatchNorm", "batch": "BatchNorm"}  # on running statistics
_BUILT_FOR = {"vit": {"layernorm2d": "LayerNorm over channels"}}  # networks that were not published with BatchNorm
_EXPECTED = ("row independence", "enough batches")  # checks about coupling, which a column of its own shows
_DEAD = "dead decision"  # the check of networks that give almost all images one class


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One norm with one recipe in one setting, over its seeds.

    `setting` says in which of the report's settings (data, threat model, network, schedule) it stands; it is empty where
    there is one. `measured` tells how it was attacked, and on which data: equal for cells whose figures can be compared at
    all. `reference` names the norm, trained here, that the others are compared with, and is empty for the others: BatchNorm
    on running statistics, or what the network was published with.
    """

    setting: str
    measured: str
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
        return self.worst_of(1)

    def worst_of(self, tests: int) -> Score:
        """The same with an interval for so many tests together."""
        joint = over_seeds([r.evaluation.robust_accuracy for r in self.results], tests)
        known = [r.evaluation.single for r in self.results if r.evaluation.single]
        return lower(joint, over_seeds(known, tests) if len(known) == len(self.results) else None)

    @property
    def paired(self) -> bool:
        """Whether stronger attacks searched on what the protocol's left standing."""
        return any(r.evaluation.strongest for r in self.results)

    @property
    def coupled(self) -> bool:
        return any(r.evaluation.coupled for r in self.results)

    @property
    def given(self) -> bool:
        """Whether it was evaluated as it was given, and not trained here."""
        return all(r.training is None for r in self.results)

    @property
    def dead(self) -> bool:
        """Whether it was seen to give almost all images one class: its robust accuracy says nothing."""
        return any(check.name == _DEAD for check in raised(self.results))

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


def beyond_chance(one: Cell, other: Cell, tests: int) -> bool:
    """Whether a network is more robust than another, on the same images, by more than chance: of one seed image by image, corrected for
    so many tests."""
    if len(one.results) == len(other.results) == 1:
        rows = [cell.results[0].evaluation.standing for cell in (one, other)]
        return leads(one.worst, other.worst, (rows[0], rows[1]), tests)
    return above(one.worst_of(tests), other.worst_of(tests))


def of(results: Sequence[Result]) -> list[Cell]:
    """Gather results into cells, in the order in which they first appear; the same record twice counts once."""
    groups: dict[str, list[Result]] = {}
    choices: dict[str, tuple[dict[str, Any], ...]] = {}
    for i, (result, setting) in enumerate(zip(results, _settings(results), strict=True)):
        if result not in results[:i]:
            chosen = setting, _norm(result), _recipe(result)
            groups.setdefault(key_of(chosen), []).append(result)
            choices[key_of(chosen)] = chosen
    settings, norms, recipes = zip(*choices.values(), strict=True) if choices else ((), (), ())
    parts = zip(named(settings), distinct_names(norms), distinct_names(recipes), strict=True)
    return [
        Cell(
            setting=name,
            measured=key_of(_measured(setting)),
            norm=norm,
            recipe=recipe,
            reference=_reference(group[0]),
            results=tuple(group),
        )
        for setting, (name, norm, recipe), group in zip(settings, parts, groups.values(), strict=True)
    ]


def compared_with(found: Iterable[Cell]) -> str:
    """The names of the norms that others are compared with, where there is one at least."""
    return joined(dict.fromkeys(cell.reference for cell in found if cell.reference))


def references(found: Sequence[Cell]) -> list[Cell]:
    """Norms that others, of the same recipe and setting, are compared with."""
    groups = [(cell.setting, cell.recipe) for cell in found]
    return [cell for cell, group in zip(found, groups, strict=True) if cell.reference and groups.count(group) > 1]


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


def over_seeds(scores: Sequence[Score], tests: int = 1) -> Score:
    """The mean over seeds. Its interval joins, as independent errors, that of the rows (the seeds share them, so it does
    not shrink) and that of the trainings (Student's t over the seeds). It holds 95% of the time, for so many `tests` together."""
    first, last = scores[0], 1 - LEVEL / 2 / tests
    if len(scores) == tests == 1:
        return first
    wider = NormalDist().inv_cdf(last) / NormalDist().inv_cdf(1 - LEVEL / 2)
    mean, trainings = fmean(s.value for s in scores), 0.0
    if len(scores) > 1:
        from scipy.special import stdtrit

        trainings = float(stdtrit(len(scores) - 1, last)) * stdev(s.value for s in scores) / sqrt(len(scores))
    low = mean - hypot(wider * (mean - fmean(s.low for s in scores)), trainings)
    high = mean + hypot(wider * (fmean(s.high for s in scores) - mean), trainings)
    return Score(value=mean, low=max(low, 0.0), high=min(high, 1.0), n=first.n, unit=first.unit, rows=first.rows)


def raised(results: Iterable[Result]) -> list[Check]:
    """The checks that did not pass; of further attackers those that passed under the network's own threat model."""
    found = list[Check]()
    for result in results:
        own = [check for check in result.evaluation.checks if check.status != "pass"]
        known, found = {check.name for check in own}, [*found, *own]
        for kind, e in (result.several.evaluations if result.several else {}).items():
            more = [check for check in e.checks if check.status != "pass" and check.name not in known]
            found += [replace(check, measured=f"{kind}: {check.measured}") for check in more]
    return found


def _settings(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The setting of each result. A network that was not trained here stands in that of the first trained one that was measured alike."""
    own = [_DEFAULTS | {key: value for key, value in r.experiment.items() if key not in _APART} for r in results]
    trained = [setting for r, setting in zip(results, own, strict=True) if "norm" in r.experiment]
    return [
        setting
        if "norm" in r.experiment
        else next((one for one in trained if _measured(one) == _measured(setting)), _measured(setting))
        for r, setting in zip(results, own, strict=True)
    ]


def _measured(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in setting.items() if key not in _TRAINING}


def _norm(result: Result) -> dict[str, Any]:
    """A network's norm; one that was not trained here is called by its own name, with the norm that it was seen to have."""
    e, kinds = result.experiment, " and ".join(result.evaluation.norms)
    if "norm" not in e:
        name = label(e.get("model"), result.evaluation.model or result.name)
        asked = {key: str(e[key]) for key in _ASKED if e.get(key)}
        return {"label": f"{name} ({kinds})" if kinds else name, "weights": e.get("weights"), **asked}
    return _mapping(e["norm"]) or {
        "label": f"its own {kinds or 'norm'}" if e.get("start") else f"{kinds or 'norm'} as built"
    }


def _recipe(result: Result) -> dict[str, Any]:
    e = result.experiment
    if "recipe" not in e:
        return {"label": "as given, not trained here"}
    adapted = e.get("substitute") or (e.get("adaptive") or {}).get("source") == "plain"
    begun = {key: e[key] for key in _FROM if e.get(key) and (adapted or key != "adaptive")}
    for key in ("start", "substitute"):  # of a bench: of the row's own seed, and the same for all seeds
        if Path(str(begun.get(key, ""))).parent.name == PRETRAINED:
            begun[key] = begun[key].removesuffix(f"-seed{e.get('seed', 0)}")
    return _mapping(e["recipe"]) | begun


def _mapping(choice: Any) -> dict[str, Any]:
    return dict(choice) if isinstance(choice, Mapping) else {} if choice is None else {"name": str(choice)}


def _reference(result: Result) -> str:
    norm, model = _norm(result), _mapping(result.experiment.get("model"))
    shares = [norm.get(share) or 0 for share in ("centre_share", "spread_share")]
    if any(shares) or result.evaluation.coupled:
        return ""
    if result.experiment.get("norm", "") is None and list(result.evaluation.norms) == ["BatchNorm"]:
        return "BatchNorm"  # it keeps its own
    return _BUILT_FOR.get(str(model.get("name")), _REFERENCES).get(str(norm.get("name")), "")
