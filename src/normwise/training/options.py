"""What a training may be told beside what is trained, on what and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..types import Report, silent


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Where a training is kept, and whom it tells how far it is; nothing here changes the weights.

    folder  where every epoch is kept: `last.pt` (all that is needed to go on), a line in `log.jsonl`, and the chosen model so far
            in `model.safetensors`; None: nothing is written
    card    plain data about the network, saved as `model.json` beside the weights; `load` builds the network again from it
    report  is called after every step and every epoch with what is going on, the steps done, and the steps in all
    stats   which rows norms read where a process group is up: "synchronized" refuses norms that would read each process's own,
            "per-rank" lets them
    """

    folder: Path | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    report: Report = silent
    stats: Literal["synchronized", "per-rank"] = "synchronized"
