"""Audits of several networks, shared out over workers: each network is claimed by one, and all are on one page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..auditing.auditor import Audit, asked_already, read_claim, run_audit
from ..config import choice
from ..evaluation.store import PARTS
from ..models.loading import load
from ..report import audit
from ..types import Report, silent
from ..utils.model_state import identity
from ..utils.run_folder import check_folder, keep_settings
from .backends import BACKENDS, Backend, Processes
from .evaluation_run import clear
from .launch import Job, Workers, launch


@dataclass(frozen=True, kw_only=True)
class Audits(Audit):
    """Which networks are audited, each as `Audit` says.

    Options
        models   networks, each named as the model of an audit
        budget   minutes for each
        jobs     networks audited at a time
        backend  where the workers run
        threads  CPU threads of each audit
    """

    models: tuple[str, ...] = ()
    jobs: int = 2
    backend: Backend = choice(BACKENDS, Processes())
    threads: int = 1

    def __post_init__(self) -> None:
        if self.model or self.weights:
            raise ValueError(
                "model and weights are of one network; name all as MODEL MODEL ..., folders of their runs mostly"
            )
        if len(set(self.models)) < max(2, len(self.models)):
            raise ValueError(f"models are {', '.join(self.models) or 'none'}; name two or more, each once")
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}; give a whole number >= 1")
        cells(self)


class Finished(NamedTuple):
    """Records of finished audits, in the order of the networks, and why others failed, by the name of their folders."""

    audits: list[dict[str, Any]]
    failures: dict[str, str]


def cells(settings: Audits) -> Mapping[str, Audit]:
    """The audits by the names of their folders: the last words of their networks, with a number where these are equal."""
    shared = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Audit)}
    found: dict[str, Audit] = {}
    for model in settings.models:
        name = re.sub(r"[^\w.-]+", "-", Path(model).name).strip("-.") or "network"
        same = sum(re.fullmatch(re.escape(name) + r"(~\d+)?", other) is not None for other in found)
        found[name + (f"~{same + 1}" if same else "")] = Audit(**shared | {"model": model})
    return found


def run_audits(settings: Audits, folder: Path, report: Report) -> Finished:
    """Audit every network that is not yet audited, in `folder/cells/NAME`; one that fails is named, and the others continue.

    A stopped call goes on where it was. Who starts the same in the same folder meanwhile shares the work. Raises ValueError
    for a network that cannot be loaded, an engine that is not installed, and a folder that another run filled.
    """
    check_folder(settings, folder)
    settings.backend.check()
    grid, ended = cells(settings), dict[str, str]()
    claim, places = read_claim(settings.claim), {name: folder / "cells" / name for name in grid}
    held = {}
    for name, one in grid.items():  # what cannot be loaded is refused before anything is written
        about = identity(load(one.model, views=getattr(one.data, "views", 1)).model)
        held[name] = asked_already(places[name], about, claim)
    keep_settings(settings, folder)
    for name in [name for name, ended in held.items() if not ended]:
        (places[name] / audit.RECORD).unlink(missing_ok=True)  # of another network or claim
    jobs = [Job(name, partial(_make, grid[name], there), partial(made, there)) for name, there in places.items()]
    workers = Workers(settings.jobs, settings.backend)
    for name, error in launch(jobs, workers, folder, lambda text: report(text, len(ended), len(grid))):
        ended[name] = (str(error).split("\n")[0] or type(error).__name__) if error else ""
        report(f"{name}: {'failed' if error else 'audited'}", len(ended), len(grid))
    audits = [audit.read(places[name] / audit.RECORD) for name in grid if ended.get(name) == ""]
    return Finished(audits, {name: why for name, why in ended.items() if why})


def made(folder: Path) -> bool:
    """Whether an audit is finished, and its batches are put away."""
    return (folder / audit.RECORD).is_file() and not (folder / PARTS).exists()


def _make(one: Audit, folder: Path) -> None:
    run_audit(one, folder, silent)
    clear(folder)
