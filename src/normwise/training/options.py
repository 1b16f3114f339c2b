"""Settings of a training that do not change the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..registry import check_words
from ..types import Report, silent


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Where a training is saved, and how it reports progress; nothing here but `stats` changes the weights.

    folder  where every epoch is saved: `last.pt` (all that is needed to resume), a line in `log.jsonl`, and the best model so far
            in `model.safetensors`; None: nothing is written
    card    plain data about the network, saved as `model.json` beside the weights; `load` builds the network again from it
    report  is called after every step and epoch with a text, the steps done, and the total number of steps
    every   seconds after which the state is saved within an epoch too
    tensorboard  also write every epoch for TensorBoard, into `folder`/tensorboard: loss, accuracies, learning rate, and how far
            the running mean of each layer moved since the last epoch, in running deviations (needs the extra `tensorboard`)
    stats   batch statistics if a process group is running: "synchronized" takes those of the whole batch, "per-rank" those of each
            process's own rows, and averages running statistics after every step; this alone changes the weights
    """

    folder: Path | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    report: Report = silent
    every: float = 300
    tensorboard: bool = False
    stats: Literal["synchronized", "per-rank"] = "synchronized"

    def __post_init__(self) -> None:
        check_words(self)
        if self.folder is not None:
            object.__setattr__(self, "folder", Path(self.folder))  # who gives text is understood
        if self.tensorboard and self.folder is None:
            raise ValueError("tensorboard is true, and there is no folder to write into; give folder too")
