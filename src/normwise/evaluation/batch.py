"""One batch, attacked and judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attacks.base import BaseAttack
from ..seeding import generator
from ..types import Attack, Batch, PerRow, Proposal, Region, Rows, ThreatModel
from .acceleration import FAST, Speed
from .predictor import Judge, check_images

CLEAN, PROTOCOL, WORST = "clean", "protocol", "worst case"
NEAR = 0.1  # share of its clean margin below which a row is searched again in the model's own precision


class Trial(NamedTuple):
    """What became of the rows of one batch, on the CPU; the images are the worst case found.

    Of an independent row that nothing broke that is the image with the largest margin.
    `broken_by` is the index of the first attack that broke the row (-1: none did, -2: it was misclassified untouched);
    `part` tells which of that attack's parts, `step` at which of its gradient steps or queries. `margin` is the largest wrong
    logit less the label's, `distance` how far the image is from the clean one, both as judged.
    """

    ids: Tensor
    y: Tensor
    clean_predictions: Tensor
    predictions: Tensor
    broken_by: Tensor
    part: Tensor
    step: Tensor
    margin: Tensor
    distance: Tensor
    x_adv: Tensor


class Outcome(NamedTuple):
    """A trial, the rows that survive each attack, what it cost in images, and whether an earlier call made it."""

    trial: Trial
    survivors: dict[str, int]
    forwards: int
    backwards: int
    seconds: float
    earlier: bool = False


def label(attack: Attack) -> str:
    """How an attack is called in tables."""
    return str(getattr(attack, "label", attack.name))


def labels(attacks: Sequence[Attack]) -> list[str]:
    """Call each attack by its label; equal labels of other options are told apart by a number."""
    names = list(map(label, attacks))
    return [f"{name}~{same + 1}" if (same := names[:i].count(name)) else name for i, name in enumerate(names)]


def broken_by(attacks: Sequence[Attack], rows: Trial) -> list[str]:
    """What broke each row: an attack's label, with its part after a slash; "clean": it was wrong untouched; "": nothing did."""
    names = []
    for attack in attacks:
        parts = tuple(getattr(attack, "parts", (attack,)))
        names.append([label(attack)] if parts == (attack,) else [f"{label(attack)}/{label(part)}" for part in parts])
    found = zip(rows.broken_by.tolist(), rows.part.tolist(), strict=True)
    return [names[by][part] if by >= 0 else "clean" if by == -2 else "" for by, part in found]


def check_attacks(attacks: Sequence[Attack], threat: ThreatModel, batch: Batch) -> None:
    """Refuse attacks that cannot work in a threat model, before any work is done. Raises ValueError."""
    region = threat.around(batch.x[:1], generator=generator(0))
    for attack in attacks:
        if check := getattr(attack, "check_kind", None):
            check(region)


def attack_and_judge(
    judge: Judge,
    attacked: Sequence[nn.Module],
    batch: Batch,
    threat: ThreatModel,
    attacks: Sequence[Attack],
    coupled: bool,
    index: int,
    strongest: Sequence[Attack] = (),
    speed: Speed = FAST,
) -> tuple[Trial, dict[str, int]]:
    """Let each attack try, and judge; returns the worst case and how many rows survive each attack.

    Of independent rows `strongest` see those alone that all attacks left standing (unless `speed` drops none); of coupled rows
    every batch whole, and one more candidate is judged as it stands: each row's most damaging image of all batches. How many rows
    survive is counted for all `attacks` together, and for all with `strongest`.

    `attacked` are the networks to search on: the first, and the last for rows that fell for it but not for the judge, or, after
    a search in lower precision, that kept less than a tenth of their clean margin. Where the last is not the judge's own model,
    or is random, rows that fall in this second search go on.
    """
    check_images(batch, judge.classes)
    x, y, ids = batch
    clean, margin = judge.answers(x, y)
    right, close = clean == y, margin * (0.0 if speed.precision == "float32" else NEAR)
    unmoved = Proposal(x, torch.full_like(y, -1), 0, 0, torch.zeros_like(y))
    tried, answers, margins = [unmoved], [clean], [margin]  # the untouched batch is the first candidate
    standing, ours = right, 1 + len(attacks)  # the candidates of the protocol come first
    for attack in (*attacks, *strongest):
        asked = None if coupled else right if len(tried) < ours or not speed.drop else standing
        proposal, answer, margin = _craft(judge, attacked, batch, threat, attack, index, asked, close, speed)
        unseen = right & (answer != y) & (proposal.first_hit < 0)  # the search did not look at its last image
        proposal = proposal._replace(first_hit=torch.where(unseen, _last_step(attack, proposal), proposal.first_hit))
        tried.append(proposal)
        answers.append(answer)
        margins.append(margin)
        standing = standing & (answer == y)
    every, searched = (*attacks, *strongest), len(tried)
    sources = [torch.full_like(y, number - 1) for number in range(searched)]  # the attack that made a row's image
    if coupled:
        for end in sorted({ours, searched} - {1}):  # of the protocol's candidates, and of all
            mixed, source = _mixed(every, tried[:end], margins[:end])
            answer, margin = judge.answers(mixed.x_adv, y)
            tried, answers, margins = [*tried, mixed], [*answers, answer], [*margins, margin]
            sources.append(source)
    wrong = torch.stack(answers) != y  # (candidates, b)
    if coupled:
        survivors = (~wrong).sum(1)
        protocol = torch.cat([survivors[:ours], survivors[searched : searched + (ours > 1)]]).min()
        worst = survivors.argmin().expand(len(y))  # one candidate for the whole batch: a batch that existed
        broken_by = torch.where(wrong[worst[0]], sources[int(worst[0])], -1)
    else:
        wrong |= ~right
        survivors = (~wrong).sum(1)
        protocol = (~wrong[:ours].any(0)).sum()
        nearest = len(tried) - 1 - torch.stack(margins).flip(0).argmax(0)  # to breaking the row; of equals the last
        worst = torch.where(wrong.any(0), wrong.int().argmax(0), nearest)  # the first to break the row
        broken_by = torch.where(wrong.any(0), worst - 1, -1)
    rows = torch.arange(len(y), device=y.device)

    def chosen(candidates: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(candidates))[worst, rows]

    x_adv, step, part = (chosen([getattr(one, name) for one in tried]) for name in ("x_adv", "first_hit", "part"))
    trial = Trial(
        ids,
        y,
        clean,
        chosen(answers),
        torch.where(right, broken_by, -2),
        part,
        step,
        chosen(margins),
        _region(threat, batch, judge, index).distance(x_adv),
        x_adv,
    )
    counts = dict(zip([CLEAN, *labels(attacks)], survivors[:ours].tolist(), strict=True))
    counts[PROTOCOL] = int(protocol)
    counts[WORST] = int((~wrong[worst, rows]).sum())
    return Trial(*(tensor.cpu() for tensor in trial)), counts


def _mixed(attacks: Sequence[Attack], tried: Sequence[Proposal], margins: Sequence[PerRow]) -> tuple[Proposal, Tensor]:
    """A batch of coupled rows put together of what broke each row most (`tried` begins with the untouched batch); and by which attack.

    Whether the rows fall side by side is for the judge to say. A row that falls untouched is put down to the first attack.
    """
    best = torch.stack(list(margins)).argmax(0)
    rows, source = torch.arange(len(best), device=best.device), (best - 1).clamp_min(0)
    last = torch.stack([_last_step(attack, one) for attack, one in zip(attacks, tried[1:], strict=False)])[source, rows]
    x_adv, step, part = (
        torch.stack([getattr(one, name) for one in tried])[best, rows] for name in ("x_adv", "first_hit", "part")
    )
    return Proposal(x_adv, torch.where(step < 0, last, step), 0, 0, part), source


def _last_step(attack: Attack, proposal: Proposal) -> Tensor:
    """Per row, the number of steps of the part that made its image."""
    steps = [getattr(part, "steps", 1) for part in getattr(attack, "parts", (attack,))]
    return torch.tensor(steps, device=proposal.first_hit.device)[proposal.part]


def _region(threat: ThreatModel, batch: Batch, judge: Judge, index: int) -> Region:
    return threat.around(batch.x, generator=generator(judge.seed, "region", index))


def _craft(
    judge: Judge,
    attacked: Sequence[nn.Module],
    batch: Batch,
    threat: ThreatModel,
    attack: Attack,
    index: int,
    only: Rows | None,
    close: PerRow,
    speed: Speed,
) -> tuple[Proposal, Tensor, Tensor]:
    """Let one attack propose images (for the rows `only`, where rows are independent); returns them, answers and margins.

    A row stops where it falls, unless `speed` drops none. If the judge does not agree (by rounding, or because another model was
    searched, or by the model's noise), it is searched again, and where falls decide nothing, to the end. A batch of coupled rows
    that a copy was searched for and answers otherwise than the judge is searched again as a whole, and the better batch kept.
    """
    own = attacked[-1] is judge.model and judge.draws == 1  # a fall seen in the search is one before the judge
    stops = own if only is None else speed.drop
    first = _propose(judge, attacked[0], batch, threat, attack, index, only, stops, speed)
    answers, margins = judge.answers(first.x_adv, batch.y)
    if only is None:
        if not own or len(attacked) == 1:
            return first, answers, margins
        copy = Judge(attacked[0], judge.seed)
        agrees = torch.equal(copy.logits(first.x_adv).argmax(1), answers)
        judge.forwards += copy.forwards
        if agrees:
            return first, answers, margins
        again = _propose(judge, attacked[-1], batch, threat, attack, index, only, stops, speed)
        found = (first, answers, margins), (again, *judge.answers(again.x_adv, batch.y))
        return min(found, key=lambda one: int((one[1] == batch.y).sum()))
    if own and len(attacked) == 1:
        return first, answers, margins
    missed = only & (answers == batch.y) & ((first.first_hit >= 0) | (margins > close))
    if not missed.any():
        return first, answers, margins
    again = _propose(judge, attacked[-1], batch, threat, attack, index, missed, own and speed.drop, speed)
    for name in ("x_adv", "first_hit", "part"):
        getattr(first, name)[missed] = getattr(again, name)[missed]
    return first, *judge.answers(first.x_adv, batch.y)


def _propose(
    judge: Judge,
    attacked: nn.Module,
    batch: Batch,
    threat: ThreatModel,
    attack: Attack,
    index: int,
    only: Rows | None,
    stops: bool,
    speed: Speed,
) -> Proposal:
    """Run one attack on a batch, check that its images are allowed; returns them for all rows, the others untouched."""
    rng = generator(judge.seed, attack, index)
    chosen = torch.ones(len(batch.y), dtype=torch.bool, device=batch.x.device) if only is None else only
    how = {"independent": only is not None} | ({} if stops else {"stops": False})
    if not speed.give_up and isinstance(attack, BaseAttack):  # others have no shortcuts that we know
        how["give_up"] = False
    proposal = attack(attacked, batch.x[chosen], batch.y[chosen], threat, generator=rng, **how)
    judge.forwards += proposal.forwards
    judge.backwards += proposal.backwards
    if proposal.x_adv.shape != batch.x[chosen].shape:
        got, expected = tuple(proposal.x_adv.shape), tuple(batch.x[chosen].shape)
        raise ValueError(f"{label(attack)} returned images of shape {got}; expected {expected}")
    x_adv, first_hit, part = batch.x.clone(), torch.full_like(batch.y, -1), torch.zeros_like(batch.y)
    x_adv[chosen], first_hit[chosen] = proposal.x_adv.to(x_adv), proposal.first_hit.to(first_hit)
    if proposal.part is not None:
        part[chosen] = proposal.part.to(part)
    outside = int((~_region(threat, batch, judge, index).contains(x_adv)).sum())
    if outside:
        raise ValueError(
            f"{label(attack)} left {threat.name}: {outside} of {len(chosen)} rows of batch {index}; mend its projection"
        )
    return Proposal(x_adv, first_hit, 0, 0, part)
