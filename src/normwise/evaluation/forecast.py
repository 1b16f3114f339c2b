"""How long an evaluation can take, before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..seeding import generator
from ..types import Batch, Report
from ..utils.forward import logits_of
from ..utils.model_state import device_of, running, untouched

ROWS = 16  # that are timed
WORTH = 60  # seconds from which it is told


def forecast(model: nn.Module, batch: Batch, attacks: Sequence[Any], rows: int) -> float:
    """Seconds that attacks take on so many rows if none falls, by the time that the first rows take forward and backward; 0 if that cannot be told.

    They go through twice, and the second time counts. A pass backward counts as two forward. The network is left as it was.
    """
    x, spent = batch.x[:ROWS].to(device_of(model)), 0.0
    with torch.enable_grad(), running(model, "eval"), untouched(model, generator(0, "forecast")):
        for _ in range(2):
            began, passes = time.perf_counter(), _through(model, x)
            spent = (time.perf_counter() - began) / passes
    return sum(getattr(attack, "passes", 0) for attack in attacks) * spent / len(x) * rows


def _through(model: nn.Module, x: Tensor) -> int:
    """Send rows through a network, and their gradient back where there is one; returns the passes that this was."""
    x = x.clone().requires_grad_()
    logits = logits_of(model, x)
    if not logits.requires_grad:
        return 1
    torch.autograd.grad(logits.sum(), x, allow_unused=True)
    return 3


def foretell(
    model: nn.Module, batches: Sequence[Batch], attacks: Sequence[Any], processes: int, budget: float, report: Report
) -> None:
    """Tell how long it can take, if that is minutes, or longer than a budget (in minutes; 0: none)."""
    rows = sum(len(batch.y) for batch in batches)
    seconds = forecast(model, batches[0], attacks, rows) / processes
    late = 0 < 60 * budget < seconds
    if late or seconds > WORTH:
        long = f"{seconds / 60:.{1 if seconds < 600 else 0}f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
        within = f"; the budget is {budget:g} minutes" * late
        report(f"time: at most about {long} for {rows:,} images, less where images fall{within}", 0, len(batches))
