"""Does the network remember queries? Compared with a copy that was never queried, and in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ... import losses
from ...attacks import PGD
from ...models.loading import load
from ...seeding import generator
from ...types import Images
from ...utils.forward import logits_of, time_left
from ...utils.model_state import digest, moved, running, untouched
from .case import Case, Found, found, question
from .rechecks import Kept


@question(
    "asked anew",
    "a network that remembers earlier queries can hide from attackers: quote what is left on a network that was never queried "
    "before",
)
def fresh_copy(case: Case) -> Found:
    """Clean and found images before a copy made before the first question, and in a process of its own where that can be done."""
    if case.random:
        return found("the model is random: answers always differ", None)
    with suppress(ValueError):  # where there is a gradient to follow
        case.evaluate(PGD(steps=20, keep="last"), called="pgd-20, last images")
    again, clean = case.again, case.evaluate()
    now = [Kept("clean", batch, *again.answers(case.model, batch.x, batch.y, clean)) for batch in case.batches]
    lines, fail, warn = list[str](), False, False

    def learn(unlike: int, rows: int, who: str) -> None:
        nonlocal fail
        lines.append(f"{who} gives other answers to {unlike} of {rows} clean and adversarial images")
        if unlike:
            fail = True
            case.violated("stateful", lines[-1])

    if again.before is None:
        lines.append("the network cannot be copied")
    else:
        copies = [again.answers(again.fresh(case.model) or case.model, batch.x, batch.y, clean) for batch in case.batches]
        others = sum(int(one.unlike(*other).sum()) for one, other in zip(now, copies, strict=True))
        learn(again.unlike + others, again.asked + case.rows, "a copy that was never queried before")
    if case.options.elsewhere is None:
        lines.append("it has no name by which a separate process could load it")
        return found("; ".join(lines), case.rows, fail=fail, warn=again.before is None)
    sets = [*reversed(again.kept), *now]  # what was found last comes first: it is made for this
    try:
        answers = case.options.elsewhere([one.batch.x.cpu() for one in sets])
        learn(
            sum(_fell_elsewhere(case, *one) for one in zip(sets, answers, strict=True)),
            sum(len(one.said) for one in sets),
            "the network loaded in a separate process",
        )
    except OtherWeights as error:
        lines, warn = [*lines, str(error)], True
        case.unvouched.append(str(error))
    except ValueError as error:
        lines, warn = [*lines, str(error)], True
    return found("; ".join(lines), case.rows, fail=fail, warn=warn)


def _fell_elsewhere(case: Case, one: Kept, logits: Tensor) -> int:
    """Learn of the rows that fall where the network was loaded anew; returns how many rows are answered otherwise there."""
    said, others = logits.argmax(1), one.unlike(logits.argmax(1), losses.margin(logits, one.batch.y.cpu()))
    if not case.coupled:
        fell = one.batch.ids[others & (said != one.batch.y.cpu())].tolist()
        case.ledger.fell(fell, f"{one.called}, asked elsewhere", case.check)
    return int(others.sum())


class OtherWeights(ValueError):
    """The name of a network leads to other weights each time."""


def in_a_process(named: tuple[str, str, int], device: str, bits: str, batches: Sequence[Images]) -> list[Tensor]:
    """Load the network by its name in a process of its own and ask it about batches of images; returns the logits.

    `named` is what `load` takes: the name, a weights file, and the clips of each row. `bits` is the digest of the network as
    it was loaded here. Raises ValueError where the process fails, OtherWeights where the digest there is another,
    TimeoutError where the time is over.
    """
    with TemporaryDirectory() as folder:
        given, answered = Path(folder) / "images.pt", Path(folder) / "logits.pt"
        torch.save(list(batches), given)
        call = f"from {__name__} import answer; import sys; answer(*sys.argv[1:])"
        words = [sys.executable, "-c", call, *map(str, named), device, str(given), str(answered)]
        here = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        try:
            ended = subprocess.run(words, capture_output=True, text=True, timeout=time_left(), check=False, env=here)
        except subprocess.TimeoutExpired:
            raise TimeoutError("the time for this check is over") from None
        if ended.returncode:
            why = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1][:120]
            raise ValueError(f"in a separate process it cannot be run ({why})")
        found_bits, logits = torch.load(answered, weights_only=True)
        if found_bits != bits:
            raise OtherWeights(
                f"{named[0]} has other weights each time it is loaded: the name does not say which network is meant"
            )
        return list(logits)


def answer(model: str, weights: str, views: str, device: str, given: str, answered: str) -> None:
    """Ask a network that is loaded here and now about the batches in one file; write its digest and its logits to another."""
    network, logits = moved(load(model, weights, int(views)).model, device), list[Tensor]()
    bits = digest(network)
    for number, x in enumerate(torch.load(given, weights_only=True)):
        with torch.no_grad(), running(network, "eval"), untouched(network, generator(0, "anew", number)):
            logits.append(logits_of(network, x.to(device)).float().cpu())
    torch.save((bits, logits), answered)
