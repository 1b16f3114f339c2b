"""How long an evaluation can take, before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..seeding import generator
from ..types import Batch, Report
from ..utils.batches import sizes_of
from ..utils.forward import logits_of
from ..utils.model_state import device_of, running, untouched

ROWS = 16  # that are timed
WORTH = 60  # seconds from which it is reported


def forecast(model: nn.Module, batch: Batch, attacks: Sequence[Any], rows: int) -> float:
    """Seconds that attacks take on so many rows if none falls, by the time that the first rows take forward and backward; 0 if that cannot be measured.

    They go through twice, and the second time counts. A pass backward counts as two forward. The network is left as it was.
    """
    x = batch.x[:ROWS].to(device_of(model))
    with running(model, "eval"), untouched(model, generator(0, "forecast")):
        spent = next((seconds for backward in (True, False) if (seconds := _a_pass(model, x, backward))), 0.0)
    return sum(getattr(attack, "passes", 0) for attack in attacks) * spent / len(x) * rows


def _a_pass(model: nn.Module, x: Tensor, backward: bool) -> float:
    """Seconds of a pass; 0 where the network, or its gradient, fails: what that means is for others to say."""
    seconds = 0.0
    try:
        for _ in range(2):
            began = time.perf_counter()
            with torch.set_grad_enabled(backward):
                inputs = x.clone().requires_grad_(backward)
                logits = logits_of(model, inputs)
                if backward:
                    torch.autograd.grad(logits.sum(), inputs)
            seconds = (time.perf_counter() - began) / (3 if backward else 1)
    except Exception:
        return 0.0
    return seconds


def report_expected_time(
    model: nn.Module, batches: Sequence[Batch], attacks: Sequence[Any], processes: int, budget: float, report: Report
) -> None:
    """Tell how long it can take, if that is minutes, or longer than a budget (in minutes; 0: none)."""
    rows = sum(sizes_of(batches))
    seconds = forecast(model, batches[0], attacks, rows) / processes
    late = 0 < 60 * budget < seconds
    if late or seconds > WORTH:
        long = f"{seconds / 60:.{1 if seconds < 600 else 0}f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
        within = f"; the budget is {budget:g} minutes" * late
        report(
            f"time: the searches take about {long} for {rows:,} images if none falls; start and checks come on top{within}",
            0,
            len(batches),
        )
