"""What was measured, on what, with what: records that go to JSON and back."""

from __future__ import annotations

import json
import os
import platform
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .checkout import commit, processor
from .limits import from_json
from .registry import fits, plain

SCHEMA = 1
WRITER = platform.node()  # in the names of files that are not whole yet, with the process that writes them
RESULTS = "results.json"  # all records of a bench in one file


@dataclass(frozen=True, kw_only=True)
class Score:
    """A share of rows, with its 95% interval.

    `n` counts what was drawn independently: rows (Wilson interval), groups where rows come in groups (Wilson interval for as
    many rows as these are worth), or whole batches where rows are coupled (bootstrap). `rows` is the number of rows behind
    the share.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str  # "rows", "groups" or "batches"
    rows: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @property
    def sample(self) -> str:
        """What was drawn independently, in words: "60 images" or "3 batches"."""
        return f"{self.n} {'images' if self.unit == 'rows' else self.unit}"


def lower(joint: Score, single: Score | None) -> Score:
    """The lower of two figures of coupled rows; the joint one if they are equal."""
    return single if single and single.value < joint.value else joint


@dataclass(frozen=True, kw_only=True)
class Check:
    """A reason to doubt an evaluation, or to trust it. `status` is pass, warn or fail.

    `n` counts the rows that were looked at; None where no row enters, or nobody counted them. `series`, where what was
    measured is one: what it is `over`, its `values`, and the `scores` `of` something there, with what else was scored there
    `beside` it, by name. `attacker`: who controls what, where a check has an attacker of its own.
    """

    name: str
    status: str
    measured: str
    why: str
    series: dict[str, Any] | None = None
    n: int | None = None
    attacker: str = ""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Robust accuracy at several values of one thing: eps (pixels) or the attacks' steps. It never rises."""

    over: str
    values: tuple[float, ...]
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model under one threat model: the record of a verdict.

    `robust_accuracy` is the worst case over all that searched: per row when rows are independent, per batch when they are
    coupled. Where `strongest` searched on what `attacks` left standing, `protocol_accuracy` is the worst case over the
    `attacks` alone; None: nothing did, and the robust accuracy is the protocol's. `rebatched_accuracy` and `alone_accuracy`
    score the worst-case images again in shuffled batches of the same size, and one by one (None where nobody asked, the
    second also where rows are independent: it was measured that who stands beside a row does not matter). `single`, of
    coupled rows: what is left where the attacker owns one row among clean neighbours (`batch_attacks.single`; its cost is
    not counted here); None: rows are independent, or nobody asked. `broken_by` counts, per attack (or part of one), the rows
    that it was the first to break. `goal`: "misclassified", or "targeted": a row counts as robust where it is classified
    correctly, and no attack reaches its class to reach. `forwards` and `backwards` count images through the network, attacks
    and checks together. `norm_reads` and `norms` count its norm layers by what they read and by kind; `norms` is empty where
    it normalizes nothing, and where nobody counted. `beyond_gradients` counts, per search without gradients, the rows that
    it broke and no search by gradient did (of coupled rows, by how many fell in the best batch); empty unless both kinds
    searched. `standing` has one character per image in the order of the batches, 1 where it is robust and 0 where not; empty
    for coupled images, and beyond 10,000. `speed` is what made the search faster (`Speed`); empty where nobody recorded it.
    """

    model: str
    mode: str
    norm_reads: dict[str, int]
    data: dict[str, Any]
    threat: dict[str, Any]
    attacks: list[dict[str, Any]]
    seed: int
    n: int
    batch_size: int
    coupled: bool
    coupling: dict[str, Any]
    clean_accuracy: Score
    per_attack: dict[str, Score]
    robust_accuracy: Score
    rebatched_accuracy: float | None
    alone_accuracy: float | None
    checks: tuple[Check, ...]
    seconds: float
    forwards: int
    backwards: int
    digest_before: str
    digest_after: str
    broken_by: dict[str, int] = field(default_factory=dict)
    strongest: list[dict[str, Any]] = field(default_factory=list)
    protocol_accuracy: Score | None = None
    curves: tuple[Curve, ...] = ()
    single: Score | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    goal: str = "misclassified"
    norms: dict[str, int] = field(default_factory=dict)
    beyond_gradients: dict[str, int] = field(default_factory=dict)
    standing: str = ""
    speed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        left, lost = (self.standing.count(one) for one in "10")
        if self.standing and (left + lost != self.n or abs(left - self.robust_accuracy.value * self.n) > 0.5):
            raise ValueError("standing is not what robust_accuracy says of n images")

    @property
    def pair(self) -> tuple[Score, Score]:
        """What is left under the protocol's attacks, and under the strongest; one number twice where nothing else searched."""
        return self.protocol_accuracy or self.robust_accuracy, self.robust_accuracy

    @property
    def headline(self) -> Score:
        """The robust accuracy to quote: of coupled rows the lower of joint and single, where both were measured."""
        return lower(self.robust_accuracy, self.single)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What training cost and where it ended. `forwards` and `backwards` count images, crafting included.

    `overfitted_epoch` is the first after which the model withstood one step alone (`validation.overfitted`); 0: none, or
    training was not with one step. `loss` is the last epoch's mean over training images; None where it was not recorded.
    `remarks` say what was done otherwise than usual, and why.
    """

    seconds: float
    forwards: int
    backwards: int
    epochs: int
    best_epoch: int
    validation: dict[str, float]
    parameters: int
    trained_parameters: int
    overfitted_epoch: int = 0
    loss: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Substitute:
    """The frozen network that an ABNN listens to: what it was trained on (None: it does not say), and how it does itself.

    `clean_accuracy` is its own, on the rows the ABNN was evaluated on; None, and `why`, where it knows other classes.
    """

    source: str
    trained_on: dict[str, Any] | None
    clean_accuracy: Score | None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Several:
    """A network under several attackers: its own threat model, and those of `evaluations`, by kind; their mean and union.

    What stands under the protocols alone is None where rows are coupled. `oracle`: of MultiBN, if the route is chosen by who
    knows the attack.
    """

    evaluations: dict[str, Evaluation]
    mean: Score
    union: Score
    protocol_mean: Score | None = None
    protocol_union: Score | None = None
    oracle: dict[str, Score] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One experiment, whole: its settings, what training cost, what the evaluation found."""

    name: str
    experiment: dict[str, Any]
    training: Training | None
    evaluation: Evaluation
    substitute: Substitute | None = None
    several: Several | None = None
    schema: int = SCHEMA


def to_json(record: Any) -> str:
    """Write a record as JSON text, numbers as measured."""
    return json.dumps(plain(record), indent=2, allow_nan=False) + "\n"


def read_result(path: Path) -> Result:
    """Read a `Result` back. Raises ValueError naming the file where it is not one."""
    results = read_results(path)
    if len(results) != 1:
        raise ValueError(f"{path} holds {len(results)} results; give the file of one run")
    return results[0]


def read_results(path: Path) -> list[Result]:
    """Read the `Result` that a run wrote, or all that a bench wrote into one file. Raises ValueError naming the file."""
    try:
        data = from_json(path)
        if data["schema"] != SCHEMA:
            raise TypeError(f"it has schema {data['schema']!r}, and this version reads {SCHEMA}")
        return [built(Result, one) for one in data.get("cells", [data])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a normwise result: {error}; expected the JSON that a run writes") from None


def built(kind: type, data: Mapping[str, Any]) -> Any:
    """Make a record of this kind from what `to_json` wrote of it. Raises TypeError for what does not fit."""
    hints = typing.get_type_hints(kind)
    values = {key: _as_hinted(hints[key], value) for key, value in data.items() if key in hints}
    for key, value in values.items():
        if not fits(value, hints[key]):
            raise TypeError(f"{key} is {str(value)[:60]!r}")
    return kind(**values)


def _as_hinted(hint: Any, value: Any) -> Any:
    """A value that JSON gave, with records and tuples where the type says so."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and value is not None:
        return _as_hinted(parts[0], value)
    if origin is tuple and isinstance(value, list):
        return tuple(_as_hinted(parts[0], one) for one in value)
    if origin is dict and isinstance(value, Mapping):
        return {key: _as_hinted(parts[1], one) for key, one in value.items()}
    known = isinstance(hint, type) and is_dataclass(hint)
    return built(hint, value) if known and isinstance(value, Mapping) else value


def write(path: Path, text: str | bytes) -> Path:
    """Write a file whole or not at all: into a neighbour first, then renamed. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}.{WRITER}-{os.getpid()}")
    try:
        neighbour.write_bytes(text if isinstance(text, bytes) else text.encode())
        neighbour.replace(path)
    except OSError as error:  # a full disk does not say which file it was
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        neighbour.unlink(missing_ok=True)
    return path


def provenance() -> dict[str, Any]:
    """What ran: command, commit of the working folder's code (see `commit`), hardware, versions."""
    from . import __version__

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "command": " ".join([Path(sys.argv[0]).name.replace("__main__.py", "normwise"), *sys.argv[1:]]),
        "commit": commit(),
        "hardware": {
            "device": device,
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "normwise": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
