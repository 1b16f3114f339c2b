"""Defaults of a command before its options are read: those of presets, and the settings of run folders.

Each function gets the operands, and the choices and texts that were given. It returns the defaults for this command, and
what the operands set (`parser.parse` lays the first below and the second above the settings of a file).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..auditing.attack_tests import SelfTest
from ..auditing.auditor import Audit
from ..config import read_yaml
from ..diagnostics.run import Diagnose
from ..experiments.evaluation_run import Evaluate
from ..experiments.experiment import Experiment
from ..experiments.export import Export
from ..experiments.grid import Bench
from ..experiments.improve import Improve
from ..experiments.presets import BASELINES, COMPARED, DOMAINS, OTHER, PRESETS, data_name, defaults_for, model_name
from ..models.checkpoints import CARD
from ..models.hub import located
from ..registry import plain, unknown
from ..utils.run_folder import CONFIG
from .parser import Layers


def for_bench(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """The data set decides the radius and the schedule; the network its norms; a domain the data set, the methods and the columns."""
    domain, model = str(given.get("domain", "")), model_name(given)
    filled, data = COMPARED.get(model, {}), data_name(given, DOMAINS.get(domain, "digits"))
    if domain in DOMAINS:
        filled = BASELINES | {"pretrained": [{"name": "other"} | OTHER.get(data, {})]}
    return _known(Bench, defaults_for(data, model)) | filled, {}


def for_train(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """A network to start from keeps its norms, if no others are named."""
    preset, start = data_name(given), str(given.get("start", ""))
    if operands and operands[0] in PRESETS:
        preset = operands[0]
    elif operands:
        start = operands[0]
        if ":" not in start and not Path(start).exists():
            raise unknown("preset or model", start, list(PRESETS))
    defaults = defaults_for(preset, model_name(given))
    return defaults | ({"norm": None, "model": plain(Experiment.model)} if start else {}), {"start": start}


def _settings(operands: Sequence[str], given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """All that is known of a model: the defaults of its data, and over them the settings of its training. And its name.

    A function has no folder of its own: its weights may have one. The folder may come from anybody: settings that a training
    does not have, such as another network to attack, are left out.
    """
    model = operands[0] if operands else str(given.get("model", ""))
    weights = str(given.get("weights") or "")
    path = Path(weights) if weights else located(model)
    folder = path if path.is_dir() else path.parent
    there = bool(model) and path.exists() and (folder / CONFIG).is_file() and (not weights or (folder / CARD).is_file())
    brought = _known(Experiment, read_yaml(folder / CONFIG)) if there else {}
    if _name(given.get("threat")) not in ("", _name(brought.get("threat"))):
        brought = {key: value for key, value in brought.items() if key not in ("attacks", "strongest")}  # of its own threat
    return defaults_for(data_name(given, data_name(brought))) | brought | {"model": model, "weights": ""}, model


def for_evaluate(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """A run folder decides data, threat model, attacks, seed and batch size."""
    settings, model = _settings(operands, given)
    return _known(Evaluate, settings), {"model": model}


def _name(choice: Any) -> str:
    """The name of a choice, as words or as settings; "" where none is given."""
    return str(choice.get("name", "") if isinstance(choice, Mapping) else choice or "")


def read_evaluate(path: Path) -> Mapping[str, Any]:
    """Read settings of an evaluation; those of a training run ask for the evaluation of the network beside them."""
    settings = read_yaml(path)
    return {"model": str(path.parent)} if isinstance(settings.get("model"), Mapping) else settings


def for_audit(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """A run folder decides data, threat model and seed."""
    defaults, model = for_evaluate(operands, given)
    return _known(Audit, {key: value for key, value in defaults.items() if key != "batch_size"}), model


def for_audits(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """If the first network is a run folder, it decides data, threat model and seed of all audits."""
    defaults, _ = for_audit(operands[:1], given)
    shared = {key: value for key, value in defaults.items() if key not in ("model", "weights", "threads")}
    return shared, {"models": list(operands)} if operands else {}


def for_improve(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """A run folder decides data, threat model, attacks, seed, batch size, and how images are augmented."""
    settings, model = _settings(operands, given)
    augmented = {key: settings["schedule"][key] for key in ("crop", "flip")} if "schedule" in settings else {}
    return _known(Improve, settings | {"schedule": plain(Improve.schedule) | augmented}), {"model": model}


def for_diagnose(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """If the first network is a run folder, it decides data, threat model and seed."""
    defaults, _ = for_audit(operands[:1], given)
    return _known(Diagnose, defaults), {"models": list(operands)} if operands else {}


def for_shifts(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """The first run folder decides data and seed."""
    defaults, _ = for_evaluate(operands[:1], given)
    own = {key: defaults[key] for key in ("data", "seed") if key in defaults}
    return own, {"models": list(operands)} if operands else {}


def for_export(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """A run folder decides data."""
    settings, model = _settings(operands, given)
    return _known(Export, {"data": settings["data"]} if "data" in settings else {}), {"model": model}


def for_selftest(operands: Sequence[str], given: Mapping[str, Any]) -> Layers:
    """A run folder decides data and threat model."""
    defaults, model = for_evaluate(operands, given)
    own = _known(SelfTest, defaults)
    return (own if model["model"] or "data" in given else {}), model


def _known(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: settings[field.name] for field in dataclasses.fields(kind) if field.name in settings}
