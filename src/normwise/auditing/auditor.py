"""Is this robustness real? One verdict with its reasons, for any network."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import nn

from ..attacks.strongest import verdict_for
from ..config import choice
from ..data import DATA, Digits, find
from ..evaluation.forecast import forecast
from ..evaluation.groups import groups_of
from ..evaluation.plan import check_attacks
from ..evaluation.predictor import check_network, check_weights
from ..evaluation.store import PARTS, Shard
from ..models.loading import check_named, load, report_notes
from ..records import Check, provenance, read_result, to_json, write
from ..registry import plain
from ..report.audit import RECORD
from ..threats import THREATS, Linf, Normalized
from ..types import Batch, Data, Report, ThreatModel, check_threat, silent
from ..utils.batches import Rows, as_batches, sizes_of
from ..utils.forward import in_time, until
from ..utils.model_state import Identity, device_of, identity, moved, running
from ..utils.per_row import first_rows
from ..utils.run import check_running, set_up_device
from ..utils.run_folder import check_folder, keep_settings
from ..utils.workers import check_devices, for_process, helped
from .checks import CHECKS, Audited, Case, Found, conclude, copy_of, in_a_process
from .checks.record import LATE, read
from .options import DECLARABLE, AuditOptions, check_declares
from .twin import trained_twin

KEPT, SHARE = 1 / 3, 1 / 2  # of the budget, what the last check is kept; of what is left beside that, what one may take


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Which network is audited, and what is claimed of it.

    Options
        model       a run folder, a weights file beside its model.json, hub:USER/NAME, or package.module:function
        weights     a weights file for the function
        data        the data set, by name or path
        threat      what the attacker may do
        claim       the claimed robust accuracy: a share such as 0.53, or a run's result.json, which also gives the protocol
                    and what it declares; empty: what PGD-20 leaves
        rows        number of test images
        twin        undefended reference network for transfer attacks, named like the model; "train": a small one is trained,
                    in a quarter of the budget at most; "none": no reference
        declares    what the claim admits of the network: some of random, stateful, coupled
        victims     images attacked one at a time among clean neighbours, where images are coupled
        seed        every random choice follows from it
        batch_size  images per batch
        at_once     images searched at a time, where they are independent of each other
        budget      minutes for all checks; a third is kept for the last one, the strongest search. Another check that needs
                    more than half of the rest is marked "could not run"
        device      "cpu", "cuda", "cuda:1", or "auto"
        devices     processes that share the batches, each on a CUDA device of its own, or all on the CPU
        threads     CPU threads; 0: torch's default
    """

    model: str = ""
    weights: str = ""
    data: Data = choice(DATA, Digits(), find)
    threat: ThreatModel = choice(THREATS, Linf())
    claim: str = ""
    twin: str = "train"
    declares: tuple[str, ...] = ()
    rows: int = 200
    victims: int = 32
    seed: int = 0
    batch_size: int = 32
    at_once: int = 256
    budget: float = 30.0
    device: str = "auto"
    devices: int = 1
    threads: int = 0

    marked: ClassVar = ("test",)

    def __post_init__(self) -> None:
        check_running(self)
        check_devices(self.devices, self.device)
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}; give a whole number above 0")
        if self.devices > 1 and self.rows <= self.at_once:
            fit = f"{-(-self.rows // self.devices)} or fewer"
            raise ValueError(f"devices is {self.devices}, and all {self.rows} rows are searched at once; give at_once {fit}")
        if self.rows < 1 or self.victims < 1 or not self.budget > 0:
            raise ValueError(f"rows is {self.rows}, victims {self.victims} and budget {self.budget}; give numbers above 0")
        check_named(self.model, "audit")
        check_declares(self.declares)
        read_claim(self.claim)


class Claim(NamedTuple):
    """What is claimed (None: what PGD-20 leaves), under what protocol, on which data, and what the claim admits."""

    share: float | None = None
    under: Mapping[str, Any] = MappingProxyType({})
    data: str = ""
    declares: tuple[str, ...] = ()


def read_claim(text: str) -> Claim:
    """Read a claim: a share, or the `result.json` of a run, which says its protocol and what it measured. Raises ValueError."""
    if not text:
        return Claim()
    if text.endswith(".json"):
        e = read_result(Path(text)).evaluation
        under = {
            "threat": e.threat,
            "attacks": [*e.attacks, *e.strongest],
            "mode": e.mode,
            "batch_size": e.batch_size,
            "n": e.n,
        }
        declares = tuple(name for name in DECLARABLE if e.coupling.get(name))
        return Claim(e.headline.value, under, str(e.data.get("name", "")), declares)
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(
            f"claim is {text!r}; give the claimed robust accuracy as a share such as 0.53, or a run's result.json"
        )
    return Claim(share)


def run_audit(settings: Audit, folder: Path, report: Report) -> Audited:
    """Audit a network and write `audit.json` and `config.yaml`. Finished batches are kept in `parts`, from which the same call goes on.

    A finished audit of the same network and claim is read, and nothing is asked again.

    Raises ValueError for a network or data that cannot be used, and for a folder that another run filled.
    """
    started, claim = time.monotonic(), read_claim(settings.claim)
    mine = for_process(settings, 0)
    device, data = set_up_device(mine), str(getattr(settings.data, "name", ""))
    if claim.data and claim.data != data:
        raise ValueError(
            f"the claim {settings.claim} was measured on {claim.data}, not on {data}; audit with --data {claim.data}"
        )
    _same_threat(settings, claim)
    check_folder(settings, folder)
    named = _named(settings)
    loaded = load(*named)
    model = moved(loaded.model, device)
    about = identity(model)
    if ended := asked_already(folder, about, claim):
        return ended
    batches = first_rows(settings.data.test(batch_size=min(settings.batch_size, settings.rows)), settings.rows)
    _together(model, batches[0])
    check_attacks((), settings.threat, batches[0])
    twins = [load(settings.twin, views=named[2])] if settings.twin not in ("train", "none") else []
    said = report_notes([loaded, *twins], report)
    keep_settings(settings, folder)
    _warn_of_time(settings, model, batches, report)
    options = AuditOptions(
        declares=(*settings.declares, *claim.declares),
        twin=moved(twins[0].model, device) if twins else trained_twin(mine, folder / PARTS, report),
        victims=settings.victims,
        elsewhere=partial(in_a_process, named, str(device), about.digest),
        budget=settings.budget - (time.monotonic() - started) / 60,
        at_once=settings.at_once,
        groups=groups_of(settings.data, sum(sizes_of(batches))),
        share=Shard(folder / PARTS, 0, settings.devices, whole=True),
        report=report,
    )
    light = dataclasses.replace(options, twin=None, elsewhere=None, report=silent)
    with helped(
        settings,
        settings.devices,
        partial(_help, folder=folder, options=light),
        lambda text: report(text, len(CHECKS), len(CHECKS)),
    ):
        made = audit(model, batches, settings.threat, claim=claim.share, seed=settings.seed, options=options)
    described: dict[str, Any] = about._asdict() | {
        "model": settings.model,
        "data": data,
        "claimed_under": dict(claim.under) or made.claimed_under,
        "provenance": provenance() | said,
    }
    made = dataclasses.replace(made, **described, seconds=time.monotonic() - started)
    write(folder / RECORD, to_json(made))
    return made


def asked_already(folder: Path, about: Identity, claim: Claim) -> Audited | None:
    """The finished audit of a folder, if it was of this network and this claim, whose file may have changed."""
    ended = read(folder / RECORD) if (folder / RECORD).is_file() else None
    if ended is None or about != (ended.digest, ended.settings) or claim.share not in (None, ended.claimed_accuracy):
        return None
    return ended if not claim.under or plain(dict(claim.under)) == plain(ended.claimed_under) else None


def _named(settings: Audit) -> tuple[str, str, int]:
    """What is loaded: the network, its weights, and over how many views of a row it answers."""
    return settings.model, settings.weights, getattr(settings.data, "views", 1)


def _warn_of_time(settings: Audit, model: nn.Module, batches: Sequence[Batch], report: Report) -> None:
    """Tell if the strongest search may need more than the budget has for it."""
    rows = sum(sizes_of(batches))
    some = batches[0]._replace(x=batches[0].x[: settings.at_once])  # as many as are searched at once, for the memory's sake
    needed = forecast(model, some, verdict_for(settings.threat), rows) / 60 / settings.devices
    if needed > KEPT * settings.budget:
        text = f"takes about {needed:.1f} minutes, and {KEPT * settings.budget:.1f} of {settings.budget:g} are kept for it"
        advice = f"give fewer --rows, or a --budget of {math.ceil(10 * needed / KEPT) / 10:g} minutes"
        report(f"time: if no image falls, the strongest search {text}; {advice}", 0, len(CHECKS))


def _help(settings: Audit, number: int, folder: Path, options: AuditOptions) -> None:
    device = set_up_device(settings)
    twin = settings.twin not in ("train", "none") and moved(load(settings.twin, views=_named(settings)[2]).model, device)
    share = Shard(folder / PARTS, number, settings.devices, whole=True)
    options = dataclasses.replace(options, share=share, twin=twin or trained_twin(settings, folder / PARTS, silent))
    batches = first_rows(settings.data.test(batch_size=min(settings.batch_size, settings.rows)), settings.rows)
    model, claim = moved(load(*_named(settings)).model, device), read_claim(settings.claim).share
    audit(model, batches, settings.threat, claim=claim, seed=settings.seed, options=options)


def _together(model: nn.Module, batch: Batch) -> None:
    """Refuse a network, images and labels that do not go together, by a copy: the network's first answers are the audit's."""
    check_weights(model)
    check_network(copy_of(model) or model, Batch(*(part.to(device_of(model)) for part in batch)))


def _same_threat(settings: Audit, claim: Claim) -> None:
    """Refuse a claim made under another threat model; one in normalized units is tested in pixels. Raises ValueError."""
    theirs, ours = claim.under.get("threat"), plain(settings.threat)
    if theirs and theirs["name"] != Normalized.name and json.loads(json.dumps(ours)) != theirs:
        options = " ".join(f"--threat{'' if key == 'name' else f'.{key}'} {value}" for key, value in theirs.items())
        raise ValueError(f"the claim {settings.claim} was made under another threat model than {ours}; audit with {options}")


def audit(
    model: nn.Module,
    batches: Rows,
    threat: ThreatModel,
    *,
    claim: float | None = None,
    seed: int = 0,
    options: AuditOptions = AuditOptions(),
) -> Audited:
    """Test a claim of robust accuracy by a list of checks on a network in evaluation mode.

    Without `claim`, the claim is what PGD-20 leaves under the model's own protocol (whole batches are attacked, where images
    are coupled). The verdict is "doubtful" if the claim exceeds the upper bound by more than 5 points and than its interval.
    It is also "doubtful" if answers are random, change the model ("stateful"), or depend on neighbours ("coupled"), and
    `options` do not declare it. It is "not established" if no check speaks against the claim and none supports it: gradients
    are no use, the strongest search could not run, or the network never learned. A check that fails to run, or runs out of
    time, is named, and the others continue. The model is left as it was.

    Raises ValueError for no batches, for a network, images and labels that do not go together, images with the same
    id, and a claim that is no share.
    """
    check_threat(threat)
    if claim is not None and not 0 <= claim <= 1:
        raise ValueError(f"claim is {claim}; give the claimed robust accuracy as a share such as 0.53")
    batches = as_batches(batches)
    if batches:
        _together(model, batches[0])
    case = Case(model, batches, threat, claim=claim, seed=seed, options=options)
    budget, deadline = options.budget, time.monotonic() + 60 * options.budget
    checks: list[Check] = []
    for number, one in enumerate(CHECKS):
        options.report(one.name, number, len(CHECKS))
        now, case.check = time.monotonic(), one.name
        left = deadline - KEPT * 60 * budget - now  # without the last, the strongest search, nothing is trusted
        mine = deadline if one is CHECKS[-1] else now + SHARE * left
        try:
            with until(mine), running(model, "eval"):
                in_time()
                found = one.ask(case)
        except TimeoutError:
            spent = max(0.0, time.monotonic() - now) / 60
            found = Found(
                "could not run",
                f"{spent:.2f} {LATE}, its part of the {budget:.3g} that the checks have; give a larger budget",
                None,
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            found = Found("could not run", reason, None)
        checks.append(Check(name=one.name, why=one.why, attacker=one.attacker, **found._asdict()))
    return conclude(case, checks)
