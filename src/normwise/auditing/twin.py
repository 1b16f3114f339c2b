"""The undefended reference network that an audit trains, for transfer attacks."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from torch import nn

from ..models import ResNet, ResNet3D
from ..norms import BN
from ..seeding import derive, drawing
from ..training.loop import fit
from ..training.options import FitOptions
from ..training.recipes import Standard
from ..training.schedule import Schedule
from ..types import Report
from ..utils.forward import in_time, until
from ..utils.model_state import moved
from ..utils.run import set_up_device
from .checks import CHECKS

SHARE = 1 / 4  # of the budget that training it may take
TWIN_PIXELS = 60_000 * 32 * 32  # that it sees in training, with repetitions


def trained_twin(settings: Any, folder: Path, report: Report) -> nn.Module | None:
    """The undefended reference: a small ResNet, for clips in three dimensions, trained on clean images; None if none is wanted, or training takes more than a
    quarter of the budget.

    It is kept in the folder `twin` there: a stopped training goes on, and another process finds it.
    """
    if settings.twin == "none":
        return None
    data: Any = settings.data
    rows, pixels = 128 * data.train_batches(128), math.prod(data.shape[1:])
    if rows * pixels > 4 * TWIN_PIXELS:
        report(
            "twin: the data are too large to train an undefended reference in minutes; name one as --twin", 0, len(CHECKS)
        )
        return None
    epochs = max(1, min(20, TWIN_PIXELS // (rows * pixels)))
    schedule = Schedule(epochs=epochs, optimizer="adamw", lr=3e-3, decay="onecycle", validate_every=0)
    with drawing(derive(settings.seed, "twin")):
        choice = ResNet(depth=8, width=8) if len(data.shape) == 3 else ResNet3D(depth=10, width=8)
        small = choice(BN(), classes=data.classes, mean=data.mean, std=data.std)

    def progress(text: str, done: int, total: int) -> None:
        in_time()
        report(f"twin, {text.replace(': ', ' ')}", 0, len(CHECKS))

    small, options = moved(small, set_up_device(settings)), FitOptions(folder=folder / "twin", report=progress)
    try:
        with until(time.monotonic() + 60 * SHARE * settings.budget):
            return fit(small, data, Standard(), settings.threat, schedule, seed=settings.seed, options=options).model
    except TimeoutError:
        few = f"{SHARE * settings.budget:.3g} of the {settings.budget:.3g} minutes were not enough to train an undefended reference"
        report(f"twin: {few}; give a larger --budget, or name one as --twin", 0, len(CHECKS))
        return None
