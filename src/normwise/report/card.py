"""What was compared, under which threat model, and on what it was checked, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..records import Result
from .apart import flat, label
from .cells import Cell, attackers
from .words import capital, joined, plural, training, where

UNIVERSAL = "one pattern for all images, made before it sees any of them: a weaker attacker than one who makes a pattern for each image"
ALONE = "each image alone: the other images of the batch were measured not to matter"
BATCH = "all images of a batch together (joint), with gradients through the batch statistics"
JOINT = f"{BATCH}; not one image among clean ones"
ONE = "separately, one image among clean neighbours (single): PGD-20 on each of {} images; the lower of both figures counts"
KNOWS = "everything: architecture, weights, statistics, gradients (white box)"
FIXED = "which images share a batch, their order and the batch size; running statistics do not change"
UNKNOWN = "unknown (the package does not run from a checkout)"  # of a commit
_LEVELS = {"digits": 16}  # grey levels of a data set's own scale, where it is not 255
_BALLS = {
    "linf": "every pixel may move by at most",
    "l2": "the image may move by a Euclidean length (over all its pixels) of at most",
    "l1": "the moves of all pixels and channels may add up to at most",
}


class Card(NamedTuple):
    """The threat card of a figure: the attacker, who decides what, and the number of images."""

    threat: str
    attacks: tuple[str, ...]
    changes: tuple[str, ...]
    fixed: str
    judged: str
    oracle: str = ""

    @property
    def lines(self) -> list[tuple[str, list[str]]]:
        """The card as (what, lines)."""
        return [
            ("Threat model", [self.threat]),
            ("Attacks", list(self.attacks) or ["none"]),
            ("The attacker changes", list(self.changes)),
            ("The evaluation fixes", [self.fixed]),
            ("Checked on", [self.judged]),
            *([("Oracle, no defence that can be used", [self.oracle])] if self.oracle else []),
        ]


def of(result: Result) -> Card:
    """The threat card of a result's figures."""
    e = result.evaluation
    attacks = tuple(_unique(_attack(attack, result) for attack in e.attacks))
    further = "on every batch again" if e.coupled else "on the images that these left correct"
    attacks += tuple(f"{further}: {_attack(attack, result)}" for attack in e.strongest)
    coupled = (BATCH, ONE.format(e.single.n)) if e.single else (JOINT,)
    changes = coupled if e.coupled else (ALONE,)
    if all(_made_before(attack) for attack in (*e.attacks, *e.strongest)):
        changes = (UNIVERSAL,)
    return Card(_threat(result), attacks, changes, FIXED, _judged(result), _oracle(result))


def coupling(networks: Iterable[tuple[str, bool]]) -> list[str]:
    """Say for which networks images are coupled, and for which they are not."""
    groups: dict[bool, list[str]] = {}
    for name, coupled in networks:
        groups.setdefault(coupled, []).append(name)
    words = {True: "coupled (an answer depends on the other images of the batch)", False: "independent"}
    return [f"{words[coupled]}: {joined(names)}" for coupled, names in groups.items()]


def card(found: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    """What all threat cards of a report have in common: (what, lines)."""
    results = [r for cell in found for r in cell.results]
    compared, norms = [], _unique(cell.norm for cell in found if not cell.given)
    if len(norms) > 1:
        compared.append(f"normalizations: {joined(norms)}")
    trained = [(cell.recipe, cell.results[0].experiment.get("recipe")) for cell in found if cell.seconds]
    if trained:
        compared.append(f"training: {joined(_unique(_recipe(*each) for each in trained))}")
    return [
        ("What was compared" if len(found) > 1 else "What was evaluated", compared + _unique(network(r) for r in results)),
        ("The attacker knows", [KNOWS]),
        ("The attacker does not change", ["labels and weights"]),
    ]


def subtitle(found: Sequence[Cell]) -> str:
    """One line: how many cells, on which data, under which threat model."""
    results = [r for cell in found for r in cell.results]
    data = _unique(label(r.evaluation.data, "unnamed data") for r in results)
    return " · ".join(
        [
            plural(len(results), "network"),
            joined(data),
            joined(
                _unique(
                    radius(r.evaluation.threat) + (", targeted" if r.evaluation.goal == "targeted" else "") for r in results
                )
            ),
        ]
    )


def compared(found: Sequence[Cell]) -> tuple[str, str]:
    """What was compared, as (what, words): how many norms and recipes, on how many images of which data, under which attacks."""
    results = [r for cell in found for r in cell.results]
    given, trained = ([cell for cell in found if cell.given == which] for which in (True, False))
    what = (
        [joined(_unique(cell.norm for cell in given)) if len(given) < 4 else plural(len(given), "network")] if given else []
    )
    if trained:
        what.append(_trained(trained))
    images, data, under = (
        joined(_unique(part))
        for part in (
            (f"{r.evaluation.n:,}" for r in results),
            (label(r.evaluation.data, "unnamed data") for r in results),
            (moves(r.evaluation.threat) or label(r.evaluation.threat) for r in results),
        )
    )
    protocol, strongest = (joined(attackers(results, further) or ["no attack"]) for further in (False, True))
    further = f" (the protocol), then by the stronger {strongest}" * any(cell.paired for cell in found)
    text = f"{', and '.join(what)}. On {images} test images of {data}, attacked by {protocol}{further}. {capital(under)}."
    if protocol != "no attack":
        text += " Worst case: right under all of them."
    return ("Compared" if len(found) > 1 else "Evaluated"), text


def _trained(found: Sequence[Cell]) -> str:
    """Networks that were trained here, in words: how many norms, in which network, with which recipes."""
    norms, recipes = (_unique(part) for part in ((cell.norm for cell in found), (training(cell.recipe) for cell in found)))
    what = plural(len(norms), "normalization") if len(norms) > 1 else norms[0]
    networks = _unique(_architecture(r) for cell in found for r in cell.results)
    each = "each " if len(norms) > 1 else ""
    if len(norms) == len(networks) == 1:
        return f"{networks[0]} with {what} after {joined(recipes)}"
    place = f" in {networks[0]}" if len(networks) == 1 else ""
    return f"{what}{place}, {each}with {joined(recipes)}"


def _architecture(result: Result) -> str:
    """The name of a network, with its options."""
    model = result.experiment.get("model") or result.experiment.get("start")
    options = _options(model) if isinstance(model, Mapping) else ""
    return f"{label(model, result.evaluation.model)}{f' ({options})' if options else ''}"


def radius(threat: Mapping[str, Any]) -> str:
    """The threat model by name and radius: "Linf, eps 51/255"."""
    eps = threat.get("eps")
    name = label(threat, "no threat model").capitalize()
    if not isinstance(eps, int | float):
        return name
    return f"{name}, eps {length(threat, eps)}"


def length(threat: Mapping[str, Any], eps: float) -> str:
    """A radius of this threat model: in levels of 255 where it is one of pixels."""
    return f"{255 * eps:.4g}/255" if threat.get("name") == "linf" else f"{eps:.4g}"


def moves(threat: Mapping[str, Any]) -> str:
    """What a threat model lets an attack do, in few words; empty where only its name is known."""
    name, eps = threat.get("name", ""), threat.get("eps")
    if name not in _BALLS or not isinstance(eps, int | float):
        return ""
    return f"{_BALLS[name]} {length(threat, eps)}{' of its range' if name == 'linf' else ''}"


def allowed(threat: Mapping[str, Any], data: str = "") -> str:
    """What a threat model allows, in words."""
    name, eps = threat.get("name", ""), threat.get("eps")
    if name not in _BALLS or not isinstance(eps, int | float):
        return where(label(threat, "none"), _options(threat))
    text = f"{name.capitalize()}: {_BALLS[name]} eps = {eps:.4g}, with pixels in [0, 1]"
    if name == "linf":
        own = f"; {_LEVELS[data] * eps:.3g} of the {_LEVELS[data]} grey levels of {data}" if data in _LEVELS else ""
        text += f" (that is {255 * eps:.4g}/255{own})"
    return f"{text}; no pixel leaves [0, 1]"


def rows(n: int, data: Any, batch_size: int) -> str:
    """Say on how many images, of which data, and in which batches."""
    return f"{n:,} test images of {label(data, 'the data')}, in fixed batches of {batch_size}"


def facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Provenance line by line."""
    lines = []
    for key, value in provenance.items():
        inner = [f"{name} {label(leaf, 'none')}".strip() for name, leaf in flat(value).items()]
        lines.append((key, ", ".join(inner) if value is not None else UNKNOWN))
    return lines


def _threat(result: Result) -> str:
    targeted = "; only the class to reach counts as success" if result.evaluation.goal == "targeted" else ""
    return allowed(result.evaluation.threat, label(result.evaluation.data, "")) + targeted


def _made_before(attack: Mapping[str, Any]) -> bool:
    return attack.get("name") == "universal" and bool(attack.get("pattern"))


def _attack(attack: Mapping[str, Any], result: Result) -> str:
    name: Any = attack.get("name")
    eps: Any = result.evaluation.threat.get("eps")
    if name == "fgsm":
        return (
            f"FGSM: one step as long as eps along the gradient of the {attack.get('loss', 'ce')} loss, from the clean image"
        )
    if name == "pgd" and "steps" in attack:
        step: Any = attack.get("relative_step")
        known = isinstance(step, int | float) and isinstance(eps, int | float)
        length = f" of {step:.4g} eps = {step * eps:.4g}" if known else ""
        start = "from a random allowed point" if attack.get("random_start") else "from the clean image"
        kept = {"best": "the strongest image seen counts", "last": "the last image counts"}.get(attack.get("keep", ""), "")
        restarts = attack.get("restarts", 1)
        words = [
            f"PGD-{attack['steps']}: {plural(attack['steps'], 'step')}{length} on the {attack.get('loss', 'ce')} loss",
            start,
            f"{restarts} searches" if restarts > 1 else "one search",
            kept,
        ]
        return ", ".join(filter(None, words))
    if _made_before(attack):
        pattern = {key: value for key, value in attack.items() if key not in ("pattern", "made_from")}
        return (
            f"{where('UNIVERSAL', _options(pattern))}: one pattern for all images, made beforehand from {attack['made_from']}; "
            "put on each test image once, without a look at it"
        )
    return where(label(attack).upper(), _options(attack))


def network(result: Result) -> str:
    """The network, and how it was trained."""
    model = result.experiment.get("model")
    name = f"network: {label(model, result.evaluation.model)}"
    if isinstance(model, Mapping) and len(model) > 1:
        name += f" ({_options(model)})"
    if not result.training:
        return f"{name}, as given"
    settings = result.experiment.get("schedule") or result.experiment.get("training") or {}
    how = [f"{label(settings[key], '')}" for key in ("optimizer",) if isinstance(settings, Mapping) and key in settings]
    text = f"{name}, {plural(result.training.epochs, 'epoch')}{' of ' + how[0] if how else ''}"
    eps = result.experiment.get("train_eps")
    text += _substitute(result)
    return text + (f", trained at eps {eps:.4g}" if isinstance(eps, int | float) else "")


def _substitute(result: Result) -> str:
    """The substitute of an ABNN, and its own clean accuracy."""
    heard = result.substitute
    if heard is None:
        return ""
    on = "which does not say what it was trained on"
    if heard.trained_on:
        place = heard.trained_on.get("path") or heard.trained_on.get("root") or ""
        on = f"trained on {label(heard.trained_on)} {label(place, '').rstrip('/').split('/')[-1]}".rstrip()
    itself = f"{heard.clean_accuracy} of the clean test images" if heard.clean_accuracy else heard.why
    return f", with the substitute {label(heard.source)}, {on} (its own accuracy: {itself})"


def _recipe(name: str, recipe: Any) -> str:
    options = _options(recipe) if isinstance(recipe, Mapping) else ""
    return f"{name} ({options})" if options and "(" not in name else name


def _judged(result: Result) -> str:
    e = result.evaluation
    return f"{rows(e.n, e.data, e.batch_size)}, the network in {e.mode} mode"


def _oracle(result: Result) -> str:
    """What MultiBN keeps if somebody who knows the attack chooses the route."""
    if not result.several or not result.several.oracle:
        return ""
    kept = ", ".join(f"{kind} {score}" for kind, score in result.several.oracle.items())
    return f"if somebody who knows the attack chooses the route, there stay correct: {kept}"


def _options(choice: Mapping[str, Any]) -> str:
    options = {key: value for key, value in flat(choice).items() if key not in ("name", "label")}
    return ", ".join(
        f"{key.replace('_', ' ')} {label(value)}" for key, value in options.items() if value not in (None, 0, "")
    )


def _unique(lines: Any) -> list[str]:
    return list(dict.fromkeys(lines))
