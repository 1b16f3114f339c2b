"""A run goes to the Hugging Face Hub without what is private, and comes back as a folder that every verb takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ..config import read_yaml
from ..models import checkpoints, hub
from ..models.loading import load, maker
from ..records import read_result, write
from ..registry import plain
from ..report import audit, model_card
from ..utils.model_state import digest
from ..utils.run import RESULT
from ..utils.run_folder import CONFIG
from .private import check_nothing_private, private_words, without


@dataclass(frozen=True, kw_only=True)
class Push:
    """Which run is shared, and where.

    Options
        run         the folder of a normwise train
        repository  USER/NAME on the hub
        private     make the repository private
        audit       the folder of an audit of this network
    """

    run: str = ""
    repository: str = ""
    private: bool = False
    audit: str = ""

    def __post_init__(self) -> None:
        hub.check_name(self.repository)


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Which network is fetched.

    Options
        repository  USER/NAME or USER/NAME@REVISION on the hub
    """

    repository: str = ""


def push(settings: Push) -> str:
    """Upload weights, card, settings, result, audit and a README, all without what is private; returns the address.

    Raises ValueError for a folder that holds no finished run, a network that a function makes (nobody who pulls it could
    build it), figures or an audit of other weights, and a repository that cannot be written.
    """
    run = Path(settings.run)
    if missing := [file for file in (*hub.NEEDED, CONFIG, RESULT) if not (run / file).is_file()]:
        raise ValueError(f"{run} holds no {', no '.join(missing)}; give the folder of a finished normwise train")
    with TemporaryDirectory() as place:
        _fill(settings, run, Path(place))
        return hub.upload(Path(place), settings.repository, private=settings.private)


def _fill(settings: Push, run: Path, place: Path) -> None:
    """Write what is shared into an empty folder."""
    card = checkpoints.card(run)
    if function := maker(card):
        raise ValueError(
            f"{run} needs {function}, which nobody has who pulls it; share a network whose parts normwise makes"
        )
    model, result = load(str(run)).model, plain(read_result(run / RESULT))
    bits, name = digest(model), settings.repository.split("/")[1]
    _check_same(f"{run / RESULT} was measured", result["evaluation"]["digest_before"], bits)
    records: dict[str, Any] = {checkpoints.CARD: card, CONFIG: read_yaml(run / CONFIG), RESULT: result}
    folders = [settings.run, result["evaluation"]["model"]]
    if settings.audit:
        records[hub.AUDIT] = audit.read(Path(settings.audit) / audit.RECORD)
        _check_same(f"the audit in {settings.audit} was made", records[hub.AUDIT].get("digest", ""), bits)
        folders += [settings.audit, records[hub.AUDIT]["model"]]
    words = private_words(folders, list(records.values()))
    shared = {file: without(record, words) for file, record in records.items()}
    shared[RESULT]["name"] = shared[RESULT]["evaluation"]["model"] = name
    if settings.audit:
        shared[hub.AUDIT]["model"] = name
    texts = {file: json.dumps(record, indent=2) + "\n" for file, record in shared.items()}
    texts[CONFIG] = yaml.safe_dump(shared[CONFIG], sort_keys=False, allow_unicode=True)
    checkpoints.save(model, place, shared[checkpoints.CARD])
    write(place / RESULT, texts[RESULT])
    texts[hub.README] = model_card.of(settings.repository, read_result(place / RESULT), shared.get(hub.AUDIT))
    for file, text in texts.items():
        check_nothing_private(file, text, words)
        write(place / file, text)


def _check_same(what: str, measured: str, held: str) -> None:
    """Refuse figures of other weights than those that are shared. Raises ValueError."""
    if measured != held:
        why = (
            f"of other weights (digest {measured}, not {held})" if measured else "by an earlier version, of weights unknown"
        )
        raise ValueError(f"{what} {why}; measure this network again")


def pull(settings: Pull, out: Path) -> Mapping[str, str]:
    """Fetch a network into a folder, which every verb takes; returns its commit and the verdict of its audit.

    Raises ValueError as `hub.fetched`, and for a folder that holds anything else.
    """
    found = hub.fetched(settings.repository)
    files = [path for path in sorted(found.iterdir()) if path.name in hub.LIMITS]
    held = [path for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
    if other := [
        path for path in held if not (found / path.name).is_file() or not cmp(path, found / path.name, shallow=False)
    ]:
        raise ValueError(f"{out} holds files of something else ({other[0].name}); give a new or an empty folder as --out")
    for path in files:
        write(out / path.name, path.read_bytes())
    audited = out / hub.AUDIT
    return {"commit": found.name, "audit": audit.read(audited)["verdict"] if audited.is_file() else "not audited"}
