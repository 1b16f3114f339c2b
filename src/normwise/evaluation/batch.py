"""One batch, attacked and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..registry import DIGEST_VERSION, digest_text
from ..seeding import generator
from ..types import Attack, Batch, Labels, PerRow, Proposal, Region, Rows
from .blind import beyond_gradients
from .naming import label, labels, named_parts
from .predictor import Predictor, check_images
from .preflight import Prepared

CLEAN, PROTOCOL, WORST = "clean", "protocol", "worst case"
NEAR = 0.1  # share of its clean margin below which a row is searched again in the model's own precision


class RowOutcomes(NamedTuple):
    """What became of the rows of one batch, on the CPU; the images are the worst case found.

    Of an independent row that nothing broke that is the image with the largest margin. `broken_by` is the index of the first
    attack that reached its goal (-1: none did, -2: the row was misclassified untouched); `part` tells which of that attack's
    parts, `step` at which of its gradient steps or queries. `margin` is positive where the goal is reached, `distance` how
    far the image is from the clean one, both as checked.
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
    """What became of the rows, how many survive each attack, what it cost in images, and whether an earlier call made it.

    `beyond`: how many rows each search without gradients broke beyond those by gradient (see `blind.beyond_gradients`).
    """

    rows: RowOutcomes
    survivors: dict[str, int]
    forwards: int
    backwards: int
    seconds: float
    beyond: dict[str, int]
    earlier: bool = False


def broken_by(attacks: Sequence[Attack], rows: RowOutcomes) -> list[str]:
    """What broke each row: an attack's label, with its part after a slash; "clean": it was wrong untouched; "": nothing did."""
    parts = named_parts(attacks)
    found = zip(rows.broken_by.tolist(), rows.part.tolist(), strict=True)
    return [parts[by][part][0] if by >= 0 else "clean" if by == -2 else "" for by, part in found]


class Candidate(NamedTuple):
    """Images of a batch, what the network answers, the margins towards the goal, and which attack made each row's image (-1: none)."""

    proposal: Proposal
    answers: Tensor
    margins: PerRow
    source: Tensor


def attack_batch(prepared: Prepared, batch: Batch, index: int) -> tuple[RowOutcomes, dict[str, int], dict[str, int]]:
    """Let each attack of the plan try, and check its images; returns the worst case, how many rows survive each attack, and `Outcome.beyond`.

    Of independent rows the strongest attacks see those alone that all others left correct (unless `speed` drops none); of
    coupled rows every batch whole, and one more candidate is checked as it is: each row's most damaging image of all
    batches. How many rows survive is counted for the protocol's attacks together, and for all.
    """
    predictor, plan, coupled = prepared.predictor, prepared.plan, prepared.coupling.coupled
    check_images(batch, predictor.classes)
    y, aim = batch.y, prepared.aims[index].to(batch.y)
    clean, margin = predictor.answers(batch.x, aim)
    right, close = clean == y, margin * (0.0 if plan.speed.precision == "float32" else NEAR)
    unmoved = Proposal(batch.x, torch.full_like(y, -1), 0, 0, torch.zeros_like(y))
    tried, standing = [Candidate(unmoved, clean, margin, torch.full_like(y, -1))], right  # the untouched batch comes first
    for number, attack in enumerate(plan.every):
        alone = right if number < len(plan.attacks) or not plan.speed.drop else standing
        proposal, answers, margins = _craft(prepared, batch, index, attack, None if coupled else alone, close)
        reached = predictor.reached(answers, aim)
        unseen = right & reached & (proposal.first_hit < 0)  # the search did not look at its last image
        proposal = proposal._replace(first_hit=torch.where(unseen, _last_step(attack, proposal), proposal.first_hit))
        tried.append(Candidate(proposal, answers, margins, torch.full_like(y, number)))
        standing = standing & ~reached
    ours, searched = 1 + len(plan.attacks), len(tried)
    if coupled:  # of the protocol's candidates, and of all
        tried += [_mixed(predictor, plan.every, tried[:end], aim) for end in sorted({ours, searched} - {1})]
    wrong = predictor.reached(torch.stack([one.answers for one in tried]), aim)  # (candidates, b)
    if plan.targeted or not coupled:
        wrong |= ~right
    survivors, rows = (~wrong).sum(1), torch.arange(len(y), device=y.device)
    if coupled:
        protocol = torch.cat([survivors[:ours], survivors[searched : searched + (ours > 1)]]).min()
        worst = survivors.argmin().expand(len(y))  # one candidate for the whole batch: a batch that existed
    else:
        protocol = (~wrong[:ours].any(0)).sum()
        nearest = len(tried) - 1 - torch.stack([one.margins for one in tried]).flip(0).argmax(0)  # of equals the last
        worst = torch.where(wrong.any(0), wrong.int().argmax(0), nearest)  # the first to break the row
    source = torch.stack([one.source for one in tried])[worst, rows]
    broken_by = torch.where(right, torch.where(wrong[worst, rows], source, -1), -2)
    x_adv, step, part = (
        torch.stack([getattr(one.proposal, name) for one in tried])[worst, rows] for name in ("x_adv", "first_hit", "part")
    )
    answers, margins = (torch.stack([getattr(one, name) for one in tried])[worst, rows] for name in ("answers", "margins"))
    distance = _region(prepared, batch, index).distance(x_adv)
    outcomes = RowOutcomes(batch.ids, y, clean, answers, broken_by, part, step, margins, distance, x_adv)
    counts = dict(zip([CLEAN, *labels(plan.attacks)], survivors[:ours].tolist(), strict=True))
    counts[PROTOCOL] = int(protocol)
    counts[WORST] = int((~wrong[worst, rows]).sum())
    proposals = [one.proposal for one in tried[1:searched]]
    beyond = beyond_gradients(plan.every, proposals, wrong[1:searched] & (right | coupled), coupled)
    return RowOutcomes(*(tensor.cpu() for tensor in outcomes)), counts, beyond


def _mixed(predictor: Predictor, attacks: Sequence[Attack], tried: Sequence[Candidate], aim: Labels) -> Candidate:
    """A batch of coupled rows put together of each row's most damaging image (`tried` begins with the untouched batch).

    Whether the rows are misclassified side by side is for the network to say. A row that is so untouched is put down to the
    first attack.
    """
    best = torch.stack([one.margins for one in tried]).argmax(0)
    rows, source = torch.arange(len(best), device=best.device), (best - 1).clamp_min(0)
    ends = [_last_step(attack, one.proposal) for attack, one in zip(attacks, tried[1:], strict=False)]
    x_adv, step, part = (
        torch.stack([getattr(one.proposal, name) for one in tried])[best, rows] for name in ("x_adv", "first_hit", "part")
    )
    mixed = Proposal(x_adv, torch.where(step < 0, torch.stack(ends)[source, rows], step), 0, 0, part)
    return Candidate(mixed, *predictor.answers(x_adv, aim), source)


def _last_step(attack: Attack, proposal: Proposal) -> Tensor:
    """Per row, the number of steps of the part that made its image."""
    steps = [getattr(part, "steps", 1) for part in getattr(attack, "parts", (attack,))]
    return torch.tensor(steps, device=proposal.first_hit.device)[proposal.part]


def _region(prepared: Prepared, batch: Batch, index: int) -> Region:
    return prepared.plan.threat.around(batch.x, generator=generator(prepared.plan.seed, "region", index))


def _craft(
    prepared: Prepared, batch: Batch, index: int, attack: Attack, only: Rows | None, close: PerRow
) -> tuple[Proposal, Tensor, Tensor]:
    """Let one attack propose images (for the rows `only`, where rows are independent); returns them, answers and margins.

    A row stops where it reaches the goal, unless `speed` drops none. If the network itself does not agree (by rounding, or
    because another model was searched, or by the model's noise), or if after a search in lower precision its margin is above
    `close`, it is searched again on the last of the networks, and to the end where that is not the network itself, or draws
    noise. A batch of coupled rows that a copy was searched for and answers otherwise than the network itself is searched
    again, and the better batch kept.
    """
    predictor, attacked, drop = prepared.predictor, prepared.attacked, prepared.plan.speed.drop
    aim = prepared.aims[index].to(batch.y)
    own = attacked[-1] is predictor.model and predictor.draws == 1  # what the search sees is what the predictor sees
    first = _propose(prepared, attacked[0], batch, index, attack, only, own if only is None else drop)
    answers, margins = predictor.answers(first.x_adv, aim)
    if own and len(attacked) == 1:
        return first, answers, margins
    if only is None:
        if not own:
            return first, answers, margins
        copy = Predictor(attacked[0], predictor.seed)
        agrees = torch.equal(copy.logits(first.x_adv).argmax(1), answers)
        predictor.forwards += copy.forwards
        if agrees:
            return first, answers, margins
        again = _propose(prepared, attacked[-1], batch, index, attack, only, own)
        found = (first, answers, margins), (again, *predictor.answers(again.x_adv, aim))
        return max(found, key=lambda one: int(predictor.reached(one[1], aim).sum()))
    missed = only & ~predictor.reached(answers, aim) & ((first.first_hit >= 0) | (margins > close))
    if not missed.any():
        return first, answers, margins
    again = _propose(prepared, attacked[-1], batch, index, attack, missed, own and drop)
    for name in ("x_adv", "first_hit", "part"):
        getattr(first, name)[missed] = getattr(again, name)[missed]
    return first, *predictor.answers(first.x_adv, aim)


def _propose(
    prepared: Prepared, attacked: nn.Module, batch: Batch, index: int, attack: Attack, only: Rows | None, stops: bool
) -> Proposal:
    """Run one attack on a batch, check that its images are allowed; returns them for all rows, the others untouched."""
    predictor, plan = prepared.predictor, prepared.plan
    chosen = torch.ones(len(batch.y), dtype=torch.bool, device=batch.x.device) if only is None else only
    rng, search = generator(plan.seed, digest_text(attack), DIGEST_VERSION, index), plan.search(only is not None, stops)
    x, aim = batch.x[chosen], prepared.aims[index].to(batch.y)[chosen]
    proposal = attack(attacked, x, aim, plan.threat, generator=rng, search=search)
    predictor.forwards += proposal.forwards
    predictor.backwards += proposal.backwards
    if proposal.x_adv.shape != x.shape:
        got, expected = tuple(proposal.x_adv.shape), tuple(x.shape)
        raise ValueError(f"{label(attack)} returned images of shape {got}; expected {expected}")
    x_adv, first_hit, part = batch.x.clone(), torch.full_like(batch.y, -1), torch.zeros_like(batch.y)
    x_adv[chosen], first_hit[chosen] = proposal.x_adv.to(x_adv), proposal.first_hit.to(first_hit)
    if proposal.part is not None:
        part[chosen] = proposal.part.to(part)
    outside = int((~_region(prepared, batch, index).contains(x_adv)).sum())
    if outside:
        raise ValueError(
            f"{label(attack)} left {plan.threat.name}: {outside} of {len(chosen)} rows of batch {index}; fix its projection"
        )
    return Proposal(x_adv, first_hit, 0, 0, part, proposal.fallen)
